//! Strangers: web pages, slow clients, too many of them, and more than fits into memory.

use alloc::sync::Arc;
use core::time::Duration;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Mutex,
};

use serde_json::json;
use tinkex_telemetry::collector::{Collector, CollectorBuilder, Notice, Reply};

use crate::client::*;

type Notices = Arc<Mutex<Vec<Notice>>>;

/// A collector, and what it says beside the events.
fn noticing(builder: CollectorBuilder) -> (Collector, Notices) {
    let notices = Notices::default();
    let seen = Arc::clone(&notices);
    let observer = move |notice: &Notice| seen.lock().expect("no panic").push(notice.clone());
    (
        builder.on_notice(observer).start().expect("starts"),
        notices,
    )
}

fn texts(notices: &Notices) -> Vec<String> {
    let notices = notices.lock().expect("no panic");
    notices.iter().map(ToString::to_string).collect()
}

/// Sends a whole request, written by hand.
fn raw(collector: &Collector, head: &str, body: &str) -> String {
    let mut stream = connect(collector.addr());
    let length = body.len();
    write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{body}").expect("written");
    read(stream)
}

fn is_closed(mut stream: TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0) | Err(_))
}

#[test]
fn a_web_page_can_neither_send_events_nor_calls() {
    let (collector, notices) = noticing(Collector::builder().lenient());
    collector.script([Reply::status(503)]);
    let body = batch("s", &[start()]).to_string();
    let call = r#"{"tags":[],"user_metadata":{},"sdk_version":"1","type":"create_session"}"#;
    let (telemetry, session) = ("/api/v1/telemetry", "/api/v1/create_session");
    for (path, body) in [(telemetry, &*body), (session, call), ("/none", "")] {
        for headers in [
            "host: evil.example",
            "host: evil.example:8787",
            "accept: */*",
            "host: localhost\r\norigin: http://evil.example",
            "host: localhost\r\norigin: null",
            "host: localhost\r\nsec-fetch-site: cross-site",
        ] {
            let head = format!("POST {path} HTTP/1.1\r\n{headers}");
            let response = raw(&collector, &head, body);
            assert_eq!(status(&response), 403, "{head}");
            assert!(crate::client::body(&response)["error"].is_string());
        }
    }
    assert!(collector.requests().is_empty() && collector.sessions().is_empty());
    assert!(collector.backend().calls().is_empty());
    let texts = texts(&notices);
    assert_eq!(texts.len(), 18);
    assert!(texts[0].starts_with("refused (403): POST /api/v1/telemetry: the Host header"));
    assert!(texts[3].contains("`http://evil.example`"), "{}", texts[3]);
    // A stranger does not use up the script, and the rightful client is served.
    assert_eq!(send(&collector, &batch("s", &[start()])), 503);
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
}

#[test]
fn the_response_to_a_stranger_arrives_even_if_its_body_is_long() {
    let collector = Collector::start().expect("starts");
    let head = "POST /api/v1/telemetry HTTP/1.1\r\nhost: evil.example";
    let response = raw(&collector, head, &"x".repeat(500_000));
    assert_eq!(status(&response), 403);
}

#[test]
fn a_refused_request_is_a_notice_with_its_reason() {
    let (collector, notices) = noticing(Collector::builder().api_key("k"));
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    let second_run = with(start(), json!({"event_id": id(77)}));
    assert_eq!(send(&collector, &batch("s", &[second_run])), 422);
    assert_eq!(
        status(&exchange(
            &collector,
            LINE,
            &[("x-api-key", "wrong")],
            b"{}"
        )),
        401
    );
    assert_eq!(
        status(&exchange(
            &collector,
            "GET /api/v1/telemetry",
            &HEADERS,
            b""
        )),
        405
    );
    assert_eq!(
        status(&exchange(&collector, "POST /other", &HEADERS, b"")),
        404
    );
    let call = "POST /api/v1/create_session";
    assert_eq!(status(&exchange(&collector, call, &HEADERS, b"{}")), 422);
    // A scripted failure is no refusal.
    collector.script([Reply::status(500)]);
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 500);
    let texts = texts(&notices);
    let expected = [
        "refused (422): POST /api/v1/telemetry: session s: events[0].event_session_index is 0",
        "refused (401): POST /api/v1/telemetry: x-api-key does not match",
        "refused (405): GET /api/v1/telemetry: only POST",
        "refused (404): POST /other: no such path",
        "refused (422): POST /api/v1/create_session: tags is missing",
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:?}");
    for (text, expected) in texts.iter().zip(expected) {
        assert!(text.starts_with(expected), "{text}");
    }
    assert!(texts[0].contains("second run"), "{}", texts[0]);
}

#[test]
fn unfinished_heads_neither_stay_nor_keep_others_out() {
    let (collector, notices) = noticing(
        Collector::builder()
            .max_connections(16)
            .head_timeout(Duration::from_millis(300)),
    );
    let heads: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(collector.addr());
            let _ = write!(stream, "POST /api/v1/telemetry HTTP/1.1\r\nhost: loc");
            stream
        })
        .collect();
    // While they are open.
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    assert!(heads.into_iter().all(is_closed));
    let texts = texts(&notices);
    assert!(
        texts
            .iter()
            .any(|text| text.contains("others need the place"))
    );
    assert!(
        texts
            .iter()
            .any(|text| text.contains("head of its request was not complete"))
    );
}

#[test]
fn a_body_that_stops_and_a_connection_without_requests_are_closed() {
    let (collector, notices) =
        noticing(Collector::builder().idle_timeout(Duration::from_millis(200)));
    let mut half = connect(collector.addr());
    write!(
        half,
        "{LINE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{"
    )
    .expect("written");
    let silent = connect(collector.addr());
    assert!(is_closed(half) && is_closed(silent));
    let texts = texts(&notices);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("body made no progress"));
}

#[test]
fn a_response_that_takes_longer_than_the_timeouts_is_still_sent() {
    let collector = Collector::builder()
        .idle_timeout(Duration::from_millis(50))
        .head_timeout(Duration::from_millis(50))
        .start()
        .expect("starts");
    collector.script([Reply::accept().delay(Duration::from_millis(500))]);
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
}

#[test]
fn a_stalled_request_does_not_lose_its_place_to_a_new_one() {
    let (collector, notices) = noticing(Collector::builder().max_connections(1));
    collector.script([Reply::stall()]);
    let stalled = post(&collector, &batch("s", &[start()]));
    assert!(collector.wait_for_requests(1, BOUND));
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "");
    assert!(texts(&notices)[0].contains("every connection has a request in progress"));
    drop(stalled);
}

#[test]
fn a_reader_that_stops_does_not_stop_the_others() {
    let collector = Collector::start().expect("starts");
    let long = Reply::accept().body(vec![b'x'; 32 << 20]);
    collector.script([long]);
    let unread = post(&collector, &batch("s", &[start()]));
    assert!(collector.wait_for("s", 1, BOUND));
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
    drop(unread);
}

#[test]
fn the_oldest_sessions_are_forgotten_and_the_newest_goes_on() {
    let (collector, notices) = noticing(Collector::builder().max_memory(200_000));
    let text = "x".repeat(1_000);
    let event = |n| with(generic(n), json!({"event_data": {"text": text}}));
    for n in 0..100 {
        let session = format!("s{n:03}");
        assert_eq!(
            send(&collector, &batch(&session, &[start(), event(1)])),
            200
        );
    }
    let kept: Vec<_> = collector
        .sessions()
        .iter()
        .map(|session| session.id().to_owned())
        .collect();
    assert!((10..60).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().map(|id| &**id), Some("s099"));
    assert_eq!(kept[0], format!("s{:03}", 100 - kept.len()));
    let texts = texts(&notices);
    assert_eq!(texts.len(), 100 - kept.len());
    assert!(texts[0].starts_with("forgot session s000 with 2 events"));
    assert!(collector.requests().len() < 100);
    // A forgotten session goes on from its middle, and a session beyond the bound is kept in part.
    assert_eq!(send(&collector, &batch("s000", &[event(2)])), 200);
    for n in 3..200 {
        assert_eq!(send(&collector, &batch("s000", &[event(n)])), 200);
    }
    let long = collector.session("s000").map_or(0, |session| session.len());
    assert!(long < 100, "{long}");
}

#[test]
fn calls_are_forgotten_beyond_their_share_of_the_memory() {
    let bounded = Collector::builder()
        .max_memory(100_000)
        .start()
        .expect("starts");
    let unbounded = Collector::start().expect("starts");
    for (collector, kept) in [(&bounded, 5..40), (&unbounded, 100..101)] {
        let call = json!({"tags": ["x".repeat(500)], "user_metadata": {}, "sdk_version": "1", "type": "t"});
        let call = call.to_string();
        for _ in 0..100 {
            let line = "POST /api/v1/create_session";
            assert_eq!(
                status(&exchange(collector, line, &HEADERS, call.as_bytes())),
                200
            );
        }
        assert!(kept.contains(&collector.backend().calls().len()));
    }
}

#[test]
fn a_second_run_of_a_session_is_a_record_of_its_own_if_lenient() {
    let (collector, notices) = noticing(Collector::builder().lenient());
    let later = |n: u64| with(generic(n), json!({"event_id": id(100 + n)}));
    let restart = with(start(), json!({"event_id": id(100)}));
    let mut second = batch("s", &[restart.clone(), later(1)]);
    second["process_uuid"] = json!("another");
    assert_eq!(
        send(&collector, &batch("s", &[start(), generic(1), end(2)])),
        200
    );
    assert_eq!(send(&collector, &second), 200);
    // A retry of either run belongs to it, and so does what its process sends.
    assert_eq!(send(&collector, &second), 200);
    assert_eq!(send(&collector, &batch("s", &[end(2)])), 200);
    assert_eq!(send(&collector, &batch("s", &[generic(3)])), 200);
    let runs = collector.sessions();
    let seen: Vec<_> = runs
        .iter()
        .map(|run| (run.id(), run.run(), run.len(), run.duplicates()))
        .collect();
    assert_eq!(seen, [("s", 1, 4, 1), ("s", 2, 2, 2)]);
    assert_eq!(collector.session("s").map(|latest| latest.run()), Some(2));
    assert_eq!(texts(&notices), ["run 2 of session s begins"]);
    // The same process may run a session again, too.
    let third = with(start(), json!({"event_id": id(200)}));
    assert_eq!(send(&collector, &batch("s", &[third])), 200);
    assert_eq!(collector.sessions().len(), 3);
}

#[test]
fn a_lenient_collector_serves_the_calls_with_which_other_clients_begin() {
    let collector = Collector::builder().lenient().start().expect("starts");
    let typeless = br#"{"tags":[],"user_metadata":null,"sdk_version":"0.6.3"}"#;
    for (line, body) in [
        ("POST /api/v1/create_session", &typeless[..]),
        ("POST /api/v1/client/config", b"{}"),
        ("POST /api/v1/client/dynamic_config", b"{}"),
        ("GET /api/v1/healthz", b""),
        ("POST /api/v1/session_heartbeat", br#"{"session_id":"s"}"#),
    ] {
        let response = exchange(&collector, line, &HEADERS, body);
        assert_eq!(status(&response), 200, "{line}");
        assert!(crate::client::body(&response).is_object());
    }
}

#[test]
fn a_body_with_many_keys_is_refused_in_linear_time_and_holds_no_other_client_up() {
    let collector = Collector::builder().lenient().start().expect("starts");
    let keys: Vec<_> = (0..60_000).map(|n| format!(r#""key{n:06}":1"#)).collect();
    let long = format!("{{{}}}", keys.join(","));
    let response = exchange(&collector, LINE, &HEADERS, long.as_bytes());
    assert_eq!(body(&response)["field"], "session_id");
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
}

#[test]
fn a_session_that_goes_on_after_a_clear_has_no_gap_before_it() {
    let collector = Collector::builder().lenient().start().expect("starts");
    let events: Vec<_> = (1..5).map(generic).collect();
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    assert_eq!(send(&collector, &batch("s", &events)), 200);
    collector.clear();
    assert_eq!(
        send(&collector, &batch("s", &[generic(5), generic(7)])),
        200
    );
    // One from before the clear that comes again.
    assert_eq!(send(&collector, &batch("s", &[generic(2)])), 200);
    let gaps = |id| collector.session(id).expect("it is kept").gaps();
    assert_eq!(gaps("s"), [6..=6]);
    // Another session has lost its beginning.
    assert_eq!(send(&collector, &batch("other", &[generic(5)])), 200);
    assert_eq!(gaps("other"), [0..=4]);
}
