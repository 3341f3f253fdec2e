//! Servers and proxies that answer from the head of a request alone, and close while its body is being sent.

use crate::servers::Server;
use crate::sessions::{
    BOUND, REQWEST, SURF, Session, Start, UREQ, child, has_namespaces, is_child, options, reqwest,
    surf, tokio,
};
use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response};
use tinkex_telemetry::Ureq;
use tinkex_telemetry::http::{HttpClient, HttpError};

const REFUSALS: [(u16, &str); 3] = [(413, ""), (401, ""), (429, "retry-after: 7\r\n")];

/// Answers from the head, and closes with the body unread, which resets the connection.
fn hasty(status: u16, header: &'static str) -> Server {
    Server::start(move |asked| {
        asked.say(format!(
            "HTTP/1.1 {status} No\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n"
        ));
        false
    })
}

/// Answers from the head, and neither reads on nor closes.
fn stubborn() -> Server {
    Server::start(|asked| {
        asked.say("HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n");
        std::thread::park();
        false
    })
}

fn post(server: &Server, len: usize, asks_first: bool) -> Request<Bytes> {
    let mut request = Request::post(format!("{}/x", server.url()));
    if asks_first {
        request = request.header("expect", "100-continue");
    }
    request
        .body(Bytes::from(vec![b'x'; len]))
        .expect("a request")
}

fn send(
    client: &mut impl HttpClient,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    tokio().block_on(client.send(request))
}

/// More than fits into the buffers of a connection over loopback.
const LARGE: usize = 16 << 20;

fn an_early_refusal_is_heard_or_told_apart(name: &str, len: usize, mut client: impl HttpClient) {
    for (status, header) in REFUSALS {
        let server = hasty(status, header);
        for run in 0..20 {
            match send(&mut client, post(&server, len, false)) {
                Ok(response) => assert_eq!(response.status().as_u16(), status, "{name}"),
                Err(error) => {
                    assert!(error.has_broken_while_sending(), "{name}: {run}: {error}");
                }
            }
        }
    }
}

fn an_early_refusal_is_heard_by_asking_first(name: &str, len: usize, mut client: impl HttpClient) {
    for (status, header) in REFUSALS {
        let server = hasty(status, header);
        for run in 0..20 {
            let response = send(&mut client, post(&server, len, true));
            let response = response.unwrap_or_else(|error| panic!("{name}: {run}: {error}"));
            assert_eq!(response.status().as_u16(), status, "{name}");
            let retry_after = response.headers().contains_key("retry-after");
            assert_eq!(retry_after, status == 429, "{name}");
        }
    }
}

#[test]
fn an_early_refusal_is_heard_or_the_error_says_that_the_connection_broke_while_sending() {
    an_early_refusal_is_heard_or_told_apart("ureq", LARGE, Ureq::new());
    an_early_refusal_is_heard_or_told_apart("reqwest", LARGE, reqwest());
    an_early_refusal_is_heard_or_told_apart("surf", LARGE, surf());
}

#[test]
fn a_client_that_asks_first_hears_every_early_refusal() {
    an_early_refusal_is_heard_by_asking_first("ureq", LARGE, Ureq::new());
    an_early_refusal_is_heard_by_asking_first("reqwest", LARGE, reqwest());
}

#[test]
fn a_server_that_is_asked_first_and_agrees_gets_the_body() {
    let agreeing = || {
        Server::start(|asked| {
            asked.say("HTTP/1.1 100 Continue\r\n\r\n");
            let len = asked.read_body().len();
            asked.say(format!(
                "HTTP/1.1 200 OK\r\nx-len: {len}\r\ncontent-length: 0\r\n\r\n"
            ));
            true
        })
    };
    let silent = || {
        Server::start(|asked| {
            let len = asked.read_body().len();
            asked.say(format!(
                "HTTP/1.1 200 OK\r\nx-len: {len}\r\ncontent-length: 0\r\n\r\n"
            ));
            true
        })
    };
    for server in [agreeing(), silent()] {
        for _ in 0..2 {
            let request = || post(&server, 1_000_000, true);
            let ureq = send(&mut Ureq::new(), request()).expect("a response");
            let reqwest = send(&mut reqwest(), request()).expect("a response");
            assert_eq!(ureq.headers()["x-len"], "1000000");
            assert_eq!(reqwest.headers()["x-len"], "1000000");
        }
    }
    // surf would take the interim response for the final one: it does not ask.
    let server = silent();
    let response = send(&mut surf(), post(&server, 1000, true)).expect("a response");
    assert_eq!(response.headers()["x-len"], "1000");
    assert!(!server.heads()[0].contains("expect"));
}

#[test]
fn an_early_refusal_by_a_server_that_stops_reading_is_heard_or_told_apart() {
    let response = send(&mut reqwest(), post(&stubborn(), LARGE, false)).expect("a response");
    assert_eq!(response.status(), 413);
    let mut ureq = Ureq::with_timeout(Duration::from_millis(300));
    let error = send(&mut ureq, post(&stubborn(), LARGE, false)).expect_err("none");
    assert!(error.has_broken_while_sending(), "{error}");
    // ureq waits for the end of the connection, even if it asks first.
    let error = send(&mut ureq, post(&stubborn(), LARGE, true)).expect_err("none");
    assert!(error.has_broken_while_sending(), "{error}");
}

/// A session sends a batch of some 900 kB to a proxy that answers from the head while a request is too large.
fn in_a_session(name: &str, start: Start, refusal: &'static str, refusals: usize) -> Session {
    let server = Server::start(move |asked| {
        let length = asked.head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if asked.n < refusals && length.is_none_or(|length: usize| length > 200_000) {
            asked.say(format!(
                "HTTP/1.1 {refusal}content-length: 0\r\nconnection: close\r\n\r\n"
            ));
            return false;
        }
        if asked.head.contains("expect: 100-continue") {
            asked.say("HTTP/1.1 100 Continue\r\n\r\n");
        }
        asked.read_body();
        asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        true
    });
    let mut options = options();
    options.flush_interval = BOUND;
    options.retry_max_delay = Duration::from_millis(20);
    let session = start(&server.url(), options);
    let text = "x".repeat(9000);
    for n in 0..100 {
        let fields = tinkex_telemetry::fields! { n: n, text: text.as_str() };
        assert!(session.handle.log("x", fields), "{name}");
    }
    assert!(session.drain().is_drained(), "{name}");
    session
}

fn nothing_is_lost_to_an_early_refusal() {
    for (name, start) in [UREQ[0], REQWEST[0], SURF[0]] {
        for run in 0..20 {
            let session = in_a_session(name, start, "413 No\r\n", usize::MAX);
            let stats = session.handle.stats();
            assert_eq!(stats.delivered, 101, "{name}, run {run}: {stats:?}");
        }
        let slow = "429 Slow\r\nretry-after: 3600\r\n";
        let session = in_a_session(name, start, slow, 2);
        assert_eq!(session.handle.stats().delivered, 101, "{name}");
    }
    for (name, start) in [UREQ[0], REQWEST[0]] {
        let session = in_a_session(name, start, "401 No\r\n", usize::MAX);
        assert!(session.rejected() > 0, "{name}");
        session.report_of("HTTP 401");
    }
}

/// Over loopback as it is, packets are so large that a whole batch is sent before the refusal arrives.
#[test]
fn the_same_holds_for_a_batch_and_packets_of_the_usual_size() {
    const BATCH: usize = 900_000;
    if is_child() {
        an_early_refusal_is_heard_or_told_apart("ureq", BATCH, Ureq::new());
        an_early_refusal_is_heard_or_told_apart("reqwest", BATCH, reqwest());
        an_early_refusal_is_heard_or_told_apart("surf", BATCH, surf());
        an_early_refusal_is_heard_by_asking_first("ureq", BATCH, Ureq::new());
        an_early_refusal_is_heard_by_asking_first("reqwest", BATCH, reqwest());
        nothing_is_lost_to_an_early_refusal();
        println!("done in a network of its own");
        return;
    }
    if !has_namespaces() {
        return;
    }
    let script = "ip link set lo mtu 1500 && ip link set lo up && exec \"$0\" \"$@\"";
    let own_network = ["unshare", "--map-root-user", "--net", "sh", "-c", script];
    let name = "early::the_same_holds_for_a_batch_and_packets_of_the_usual_size";
    let printed = child(&own_network, name, &[]);
    assert!(
        printed.contains("done in a network of its own"),
        "{printed}"
    );
}
