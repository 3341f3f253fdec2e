//! Connections that are kept between requests, and servers that close them or say more than they were asked.

use crate::servers::{Asked, Server};
use crate::sessions::{REQWEST, UREQ, options};
use core::time::Duration;
use std::net::Shutdown;
use std::thread;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Long enough for what a server has done to arrive over loopback.
const MOMENT: Duration = Duration::from_millis(50);

fn no_attempt_fails(serve: fn(&Asked<'_>) -> bool, pause: Duration, connections: usize) {
    thread::scope(|scope| {
        for (name, start) in UREQ.into_iter().chain(REQWEST) {
            scope.spawn(move || {
                let server = Server::start(serve);
                let session = start(&server.url(), options());
                assert!(session.drain().all_delivered(), "{name}");
                for n in 0..5 {
                    // Real time: the server acts by itself.
                    thread::sleep(pause);
                    session.handle.log("x", tinkex_telemetry::fields! { n });
                    assert!(session.drain().all_delivered(), "{name}");
                }
                // One for `SESSION_START`.
                assert_eq!(server.requests(), 6, "{name}");
                assert_eq!(server.connections(), connections, "{name}");
            });
        }
    });
}

#[test]
fn a_connection_that_the_server_closes_unannounced_costs_no_attempt() {
    let close = |asked: &Asked<'_>| {
        asked.read_body();
        asked.say(OK);
        false
    };
    no_attempt_fails(close, MOMENT, 6);
}

#[test]
fn a_connection_that_the_server_closes_for_its_own_part_costs_no_attempt() {
    let half_close = |asked: &Asked<'_>| {
        asked.read_body();
        asked.say(OK);
        let _ = asked.stream.shutdown(Shutdown::Write);
        asked.wait_for_the_end();
        false
    };
    no_attempt_fails(half_close, MOMENT, 6);
}

#[test]
fn an_unrequested_response_is_not_taken_for_the_next() {
    let say_more = |asked: &Asked<'_>| {
        asked.read_body();
        asked.say(OK);
        thread::sleep(MOMENT / 5);
        asked.say("HTTP/1.1 408 Late\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        false
    };
    no_attempt_fails(say_more, MOMENT, 6);
}

#[test]
fn a_connection_that_stays_open_is_used_again() {
    let stay = |asked: &Asked<'_>| {
        asked.read_body();
        asked.say(OK);
        true
    };
    no_attempt_fails(stay, Duration::ZERO, 1);
}
