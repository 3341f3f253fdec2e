//! Responses whose body is cut off, badly framed, endless or never comes, interim responses without end, and long heads.

use crate::servers::{Server, Then};
use crate::sessions::{REQWEST, SURF, Start, UREQ, options, reqwest, start, surf, ways};
use bytes::Bytes;
use core::time::Duration;
use http::Request;
use std::io::Write as _;
use std::thread;
use tinkex_telemetry::Tokio;
use tinkex_telemetry::http::HttpClient as _;

const BROKEN: [(&[u8], Then); 7] = [
    // Cut off.
    (b"content-length: 10\r\n\r\n{", Then::Close),
    (b"transfer-encoding: chunked\r\n\r\n5\r\n{", Then::Close),
    // Badly framed.
    (
        b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        Then::Close,
    ),
    (
        b"transfer-encoding: chunked\r\n\r\n2\r\n{}__0\r\n\r\n",
        Then::Stall,
    ),
    // Stalled.
    (b"content-length: 10\r\n\r\n", Then::Stall),
    (b"content-length: 10\r\n\r\n{\"a\"", Then::Stall),
    (b"transfer-encoding: chunked\r\n\r\n", Then::Stall),
];

/// A server that sends `status` with the broken rest of a response to the first request, and 200 to every other one.
fn server(status: u16, header: &'static str, rest: &'static [u8], then: Then) -> Server {
    Server::start(move |asked| {
        asked.read_body();
        if asked.n > 0 {
            asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            return true;
        }
        let head = format!("HTTP/1.1 {status} So\r\n{header}");
        asked.say([head.as_bytes(), rest].concat());
        if then == Then::Stall {
            asked.wait_for_the_end();
        }
        false
    })
}

/// Runs `test` for each client and each broken response, all at once: most of the time is spent waiting.
fn with_each_broken_body(test: fn(&str, Start, &'static [u8], Then)) {
    thread::scope(|scope| {
        for (name, start) in ways() {
            scope.spawn(move || {
                for (rest, then) in BROKEN {
                    let case = format!("{name}: {}", String::from_utf8_lossy(rest));
                    test(&case, start, rest, then);
                }
            });
        }
    });
}

#[test]
fn a_batch_is_delivered_when_the_head_says_so_whatever_the_body() {
    with_each_broken_body(|case, start, rest, then| {
        let server = server(200, "", rest, then);
        let session = start(&server.url(), options());
        assert!(session.drain().all_delivered(), "{case}");
        assert_eq!(server.requests(), 1, "{case}");
        // The connection is not used again, and the session goes on.
        session.handle.log("x", tinkex_telemetry::fields! { n: 1 });
        assert!(session.drain().all_delivered(), "{case}");
        assert_eq!(server.requests(), 2, "{case}");
    });
}

#[test]
fn a_batch_is_rejected_when_the_head_says_so_whatever_the_body() {
    with_each_broken_body(|case, start, rest, then| {
        let server = server(403, "", rest, then);
        let session = start(&server.url(), options());
        assert!(session.drain().is_drained(), "{case}");
        assert_eq!((session.rejected(), server.requests()), (1, 1), "{case}");
        session.report_of("HTTP 403");
    });
}

#[test]
fn a_retry_after_is_heard_whatever_the_body() {
    with_each_broken_body(|case, start, rest, then| {
        let server = server(429, "retry-after: 3600\r\n", rest, then);
        let mut options = options();
        // Where it is not heard, the retry comes after a millisecond.
        options.retry_max_delay = Duration::from_millis(40);
        let session = start(&server.url(), options);
        assert!(session.drain().all_delivered(), "{case}");
        assert_eq!(server.requests(), 2, "{case}");
        session.report_of("HTTP 429");
    });
}

#[test]
fn a_body_that_stalls_after_a_late_head_costs_no_attempt() {
    let mut options = options();
    options.http_timeout = Duration::from_secs(4);
    thread::scope(|scope| {
        for (name, start) in ways() {
            let options = options.clone();
            scope.spawn(move || {
                let server = Server::start(|asked| {
                    asked.read_body();
                    // Real time: when the head comes is the point.
                    thread::sleep(Duration::from_millis(3500));
                    asked.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
                    asked.wait_for_the_end();
                    false
                });
                let session = start(&server.url(), options);
                assert!(session.drain().all_delivered(), "{name}");
                assert_eq!(server.requests(), 1, "{name}");
            });
        }
    });
}

#[test]
fn interim_responses_without_end_cost_an_attempt_at_its_deadline() {
    let mut options = options();
    options.http_timeout = Duration::from_millis(150);
    options.max_retries = 1;
    let own: Start = |url, options| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let on_it = Tokio::on(runtime.handle().clone());
        // Driven until the process ends.
        thread::spawn(move || runtime.block_on(core::future::pending::<()>()));
        start(url, options, reqwest(), on_it)
    };
    let ways = UREQ
        .into_iter()
        .chain(SURF)
        .chain([REQWEST[1], REQWEST[2], REQWEST[3]]);
    for (name, start) in ways.chain([("reqwest on a runtime of its own", own)]) {
        for interim in [
            "100 Continue\r\n\r\n",
            "103 Early Hints\r\nlink: </x>\r\n\r\n",
        ] {
            let many = format!("HTTP/1.1 {interim}").repeat(1000);
            let server = Server::start(move |asked| {
                asked.read_body();
                let mut stream = asked.stream;
                while stream.write_all(many.as_bytes()).is_ok() {}
                false
            });
            let session = start(&server.url(), options.clone());
            assert!(session.drain().is_drained(), "{name}");
            let dropped = session.handle.stats().dropped;
            assert_eq!(dropped.retries_exhausted, 1, "{name}");
        }
    }
}

#[test]
fn a_header_that_is_not_ascii_is_read_or_costs_an_attempt_and_no_panic_gets_through() {
    let response = "HTTP/1.1 200 OK\r\nx-note: caf\u{e9}\r\ncontent-length: 0\r\n\r\n".as_bytes();
    for (name, start) in UREQ.into_iter().chain(REQWEST) {
        let server = Server::saying(response, Then::Close);
        let session = start(&server.url(), options());
        assert!(session.drain().all_delivered(), "{name}");
    }
    let mut options = options();
    options.max_retries = 1;
    for (name, start) in SURF {
        let server = Server::saying(response, Then::Close);
        let session = start(&server.url(), options.clone());
        assert!(session.drain().is_drained(), "{name}");
        let dropped = session.handle.stats().dropped;
        assert_eq!(dropped.retries_exhausted, 1, "{name}");
        assert_eq!(server.requests(), 2, "{name}");
    }
    // Nor does it reach the caller of a client without a session.
    let server = Server::saying(response, Then::Close);
    let request = Request::get(server.url()).body(Bytes::new());
    let sent = smol::block_on(surf().send(request.expect("a request")));
    let error = sent.expect_err("surf has panicked").to_string();
    assert!(error.starts_with("surf panicked"), "{error}");
}

#[test]
fn a_response_with_64_kilobytes_of_headers_is_read() {
    let mut response = b"HTTP/1.1 200 OK\r\n".to_vec();
    for n in 0..16 {
        response.extend(format!("x-{n:02}: {}\r\n", "v".repeat(4096 - 8)).bytes());
    }
    response.extend(b"content-length: 0\r\n\r\n");
    assert!(response.len() > 64 * 1024);
    let response: &'static [u8] = response.leak();
    // surf's own backend stops at 8 KiB.
    for (name, start) in UREQ.into_iter().chain(REQWEST) {
        let server = Server::saying(response, Then::Close);
        let session = start(&server.url(), options());
        assert!(session.drain().all_delivered(), "{name}");
        assert_eq!(server.requests(), 1, "{name}");
    }
    for (name, start) in SURF {
        let server = Server::saying(&response[..7000], Then::Close);
        let session = start(&server.url(), options());
        let _ = session.drain();
        assert!(server.requests() > 0, "{name}");
    }
}
