//! The embedded collector, through its public API and a socket.
#![cfg(feature = "collector")]

use core::{net::SocketAddr, time::Duration};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Instant,
};

use serde_json::{Value, json};
use tinkex_telemetry::collector::{Answer, AnswerKind, Collector, EventKind, Mode, check};

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(20);
const KEY: &str = "0d1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f";

// What is sent.

fn id(n: u64) -> String {
    format!("6f1c2d3e-4b5a-4c7d-8e9f-{n:012x}")
}

fn common(n: u64, kind: &str) -> Value {
    json!({
        "event": kind,
        "event_id": id(n),
        "event_session_index": n,
        "severity": "INFO",
        "timestamp": "2025-11-26T10:30:45.000000Z",
    })
}

fn with(mut event: Value, own: Value) -> Value {
    let (Some(event_keys), Value::Object(own)) = (event.as_object_mut(), own) else {
        panic!("objects");
    };
    event_keys.extend(own);
    event
}

fn start() -> Value {
    common(0, "SESSION_START")
}

fn generic(n: u64) -> Value {
    with(
        common(n, "GENERIC_EVENT"),
        json!({"event_name": "x", "event_data": {"n": n}}),
    )
}

fn exception(n: u64) -> Value {
    let own = json!({"error_type": "Error", "error_message": "", "traceback": "here"});
    with(common(n, "UNHANDLED_EXCEPTION"), own)
}

fn end(n: u64) -> Value {
    with(
        common(n, "SESSION_END"),
        json!({"duration": "25:00:00.000001"}),
    )
}

fn batch(session: &str, events: &[Value]) -> Value {
    json!({
        "session_id": session,
        "platform": "unix/linux",
        "sdk_version": "1.0.0",
        "process_uuid": "5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f",
        "events": events,
    })
}

// How it is sent.

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the collector listens");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    stream
}

fn write_request(stream: &mut TcpStream, line: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream
        .write_all(request.as_bytes())
        .expect("the head goes out");
    // The collector may have hung up already.
    let _ = stream.write_all(body);
}

const HEADERS: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("x-api-key", "k"),
    ("user-agent", "test/1"),
    ("x-idempotency-key", KEY),
];

const LINE: &str = "POST /api/v1/telemetry";

/// A request in flight: `post` writes it, `read` waits for what comes back.
fn post(collector: &Collector, body: &Value) -> TcpStream {
    let mut stream = connect(collector.addr());
    write_request(&mut stream, LINE, &HEADERS, body.to_string().as_bytes());
    stream
}

/// All bytes until the connection ends; a reset ends it as well.
fn read(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn exchange(collector: &Collector, line: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut stream = connect(collector.addr());
    write_request(&mut stream, line, headers, body);
    read(stream)
}

fn status(answer: &str) -> u16 {
    let word = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("a JSON body")
}

fn send(collector: &Collector, body: &Value) -> u16 {
    status(&read(post(collector, body)))
}

/// The field that a strict collector complains about.
fn complaint(collector: &Collector, request: &Value) -> String {
    let answer = read(post(collector, request));
    assert_eq!(status(&answer), 422, "{request} got {answer}");
    let answer = body(&answer);
    assert!(answer["error"].is_string(), "{answer}");
    answer["field"].as_str().expect("a field").to_owned()
}

// Keeping.

#[test]
fn a_whole_session_is_kept_as_it_was_sent() {
    let collector = Collector::start().expect("starts");
    let events = [start(), generic(1), exception(2), end(3)];
    let answer = read(post(&collector, &batch("s", &events)));
    assert_eq!(status(&answer), 200);
    assert_eq!(body(&answer), json!({"status": "accepted"}));

    let session = collector.session("s").expect("kept");
    assert_eq!(session.id(), "s");
    assert_eq!(session.platform(), "unix/linux");
    assert_eq!(session.sdk_version(), "1.0.0");
    assert_eq!(
        session.process_uuid(),
        Some("5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f")
    );
    assert_eq!(session.len(), 4);
    assert!(session.has_ended());
    assert!(session.gaps().is_empty());
    assert_eq!(session.duplicates(), 0);
    let kept: Vec<_> = session.events().iter().map(|event| event.value()).collect();
    assert_eq!(kept, events);
    let second = &session.events()[1];
    assert_eq!(
        (second.index(), second.kind()),
        (1, EventKind::GenericEvent)
    );
    assert_eq!((second.id(), second.severity()), (&*id(1), "INFO"));
    assert!(collector.violations().is_empty());
}

#[test]
fn sessions_are_kept_apart() {
    let collector = Collector::start().expect("starts");
    for name in ["b", "a"] {
        assert_eq!(send(&collector, &batch(name, &[start()])), 200);
    }
    let names: Vec<_> = collector
        .sessions()
        .iter()
        .map(|s| s.id().to_owned())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(collector.session("c").is_none());
}

#[test]
fn an_event_that_comes_again_is_a_duplicate_and_is_kept_once() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    assert_eq!(
        send(&collector, &batch("s", &[generic(1), generic(2)])),
        200
    );
    let session = collector.session("s").expect("kept");
    assert_eq!((session.len(), session.duplicates()), (3, 1));
}

#[test]
fn a_duplicate_may_have_its_keys_in_another_order() {
    let collector = Collector::start().expect("starts");
    let text = batch("s", &[start()]).to_string();
    let moved = text.replace(r#""severity":"INFO","#, "").replace(
        r#"{"event":"SESSION_START""#,
        r#"{"severity":"INFO","event":"SESSION_START""#,
    );
    assert_ne!(text, moved);
    for body in [text, moved] {
        assert_eq!(
            status(&exchange(&collector, LINE, &HEADERS, body.as_bytes())),
            200
        );
    }
    assert_eq!(collector.session("s").expect("kept").duplicates(), 1);
}

#[test]
fn indices_that_never_came_are_gaps() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(2)])), 200);
    assert_eq!(send(&collector, &batch("s", &[generic(6)])), 200);
    assert_eq!(collector.session("s").expect("kept").gaps(), [1..=1, 3..=5]);
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    let before = collector.session("s").expect("kept");
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
    assert_eq!(before.len(), 1);
    assert_eq!(collector.session("s").expect("kept").len(), 2);
}

#[test]
fn the_observer_sees_each_new_event_once_and_may_look_at_the_collector() {
    let (sender, seen) = mpsc::channel();
    let collector = Collector::builder()
        .on_event(move |session, event| {
            sender
                .send((session.to_owned(), event.index()))
                .expect("the test listens");
        })
        .start()
        .expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    assert_eq!(
        send(&collector, &batch("s", &[generic(1), generic(2)])),
        200
    );
    let seen: Vec<_> = seen.try_iter().collect();
    assert_eq!(seen, [0, 1, 2].map(|index| ("s".to_owned(), index)));
}

// Violations.

#[test]
fn every_way_of_leaving_the_wire_is_refused_and_named() {
    let collector = Collector::start().expect("starts");
    for (pointer, value, field) in spoilt() {
        let mut request = batch("s", &[start(), generic(1), exception(2), end(3)]);
        spoil(&mut request, pointer, value);
        assert_eq!(complaint(&collector, &request), field, "{pointer}");
    }
    assert_eq!(collector.violations().len(), spoilt().len());
    assert!(collector.session("s").is_none());
}

/// Where a sound request is spoilt, with what (`None` takes the key out), and the field at fault.
fn spoilt() -> Vec<(&'static str, Option<Value>, &'static str)> {
    let mut cases = missing();
    cases.extend(malformed().map(|(pointer, value, field)| (pointer, Some(value), field)));
    cases
}

fn missing() -> Vec<(&'static str, Option<Value>, &'static str)> {
    let fields = [
        ("/session_id", "session_id"),
        ("/platform", "platform"),
        ("/sdk_version", "sdk_version"),
        ("/events", "events"),
        ("/events/1/event", "events[1].event"),
        ("/events/1/event_id", "events[1].event_id"),
        (
            "/events/1/event_session_index",
            "events[1].event_session_index",
        ),
        ("/events/1/severity", "events[1].severity"),
        ("/events/1/timestamp", "events[1].timestamp"),
        ("/events/1/event_name", "events[1].event_name"),
        ("/events/1/event_data", "events[1].event_data"),
        ("/events/2/error_type", "events[2].error_type"),
        ("/events/2/error_message", "events[2].error_message"),
        ("/events/3/duration", "events[3].duration"),
    ];
    fields
        .map(|(pointer, field)| (pointer, None, field))
        .to_vec()
}

fn malformed() -> impl Iterator<Item = (&'static str, Value, &'static str)> {
    [
        ("/extra", json!(1), "extra"),
        ("/session_id", json!(""), "session_id"),
        ("/session_id", json!(17), "session_id"),
        ("/platform", json!("linux"), "platform"),
        ("/sdk_version", json!(""), "sdk_version"),
        ("/process_uuid", json!("x"), "process_uuid"),
        ("/process_uuid", json!(null), "process_uuid"),
        ("/events", json!([]), "events"),
        ("/events", json!({}), "events"),
        ("/events/1", json!("x"), "events[1]"),
        ("/events/1/event", json!("OTHER"), "events[1].event"),
        ("/events/1/extra", json!(1), "events[1].extra"),
        ("/events/0/duration", json!("0:00:00"), "events[0].duration"),
        (
            "/events/1/event_id",
            json!(id(1).to_uppercase()),
            "events[1].event_id",
        ),
        ("/events/1/event_id", json!(id(0)), "events[1].event_id"),
        (
            "/events/1/event_session_index",
            json!(0),
            "events[1].event_session_index",
        ),
        (
            "/events/1/event_session_index",
            json!(2),
            "events[2].event_session_index",
        ),
        (
            "/events/1/event_session_index",
            json!(1.5),
            "events[1].event_session_index",
        ),
        (
            "/events/1/event_session_index",
            json!(-1),
            "events[1].event_session_index",
        ),
        (
            "/events/1/event_session_index",
            json!("1"),
            "events[1].event_session_index",
        ),
        ("/events/1/severity", json!("info"), "events[1].severity"),
        (
            "/events/1/timestamp",
            json!("2025-11-26T10:30:45Z"),
            "events[1].timestamp",
        ),
        (
            "/events/1/timestamp",
            json!("2025-02-30T10:30:45.000000Z"),
            "events[1].timestamp",
        ),
        ("/events/1/event_name", json!(null), "events[1].event_name"),
        ("/events/1/event_data", json!(null), "events[1].event_data"),
        ("/events/1/event_data", json!([]), "events[1].event_data"),
        (
            "/events/2/error_message",
            json!(null),
            "events[2].error_message",
        ),
        ("/events/2/traceback", json!(null), "events[2].traceback"),
        (
            "/events/3/duration",
            json!("00:00:05"),
            "events[3].duration",
        ),
        ("/events/3/duration", json!(5), "events[3].duration"),
        ("/events/0/severity", json!("ERROR"), "events[0].severity"),
        (
            "/events/0/event_session_index",
            json!(1),
            "events[0].event_session_index",
        ),
    ]
    .into_iter()
}

fn spoil(request: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match (request.pointer_mut(parent).expect("a parent"), value) {
        (Value::Object(parent), Some(value)) => drop(parent.insert(key.to_owned(), value)),
        (Value::Object(parent), None) => drop(parent.remove(key).expect("a key to take out")),
        (Value::Array(parent), Some(value)) => {
            parent[key.parse::<usize>().expect("a place")] = value
        }
        (parent, value) => panic!("{parent} cannot take {value:?}"),
    }
}

#[test]
fn what_is_not_a_json_object_is_a_bad_request() {
    let collector = Collector::start().expect("starts");
    for bad in [&b"{"[..], b"", b"[]", b"17", b"{} {}", b"\xff"] {
        let answer = exchange(&collector, LINE, &HEADERS, bad);
        assert_eq!(status(&answer), 400, "{bad:?}");
        assert_eq!(body(&answer)["field"], "body");
    }
}

#[test]
fn each_header_of_the_wire_is_asked_for() {
    let collector = Collector::start().expect("starts");
    let request = batch("s", &[start()]).to_string();
    let cases = [
        ("content-type", "text/plain", 415),
        ("content-type", "", 415),
        ("x-api-key", "", 401),
        ("user-agent", "", 422),
        ("x-idempotency-key", "", 422),
        ("x-idempotency-key", "not-a-uuid", 422),
    ];
    for (name, value, expected) in cases {
        let mut headers: HashMap<_, _> = HEADERS.into();
        headers.remove(name);
        if !value.is_empty() {
            headers.insert(name, value);
        }
        let headers: Vec<_> = headers.into_iter().collect();
        let answer = exchange(&collector, LINE, &headers, request.as_bytes());
        assert_eq!(status(&answer), expected, "{name}: {value}");
        assert_eq!(body(&answer)["field"], name);
    }
}

#[test]
fn another_api_key_is_unauthorized_even_in_lenient_mode() {
    for builder in [Collector::builder(), Collector::builder().lenient()] {
        let collector = builder.api_key("other").start().expect("starts");
        assert_eq!(send(&collector, &batch("s", &[start()])), 401);
        assert!(
            !format!("{:?}", collector.requests()).contains("\"k\""),
            "the key is printed"
        );
    }
    let collector = Collector::builder().api_key("k").start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
}

#[test]
fn the_requests_of_a_session_are_held_against_each_other() {
    let changed = with(generic(2), json!({"event_name": "another"}));
    let taken = with(generic(2), json!({"event_id": id(99)}));
    let cases: [(Value, &str); 5] = [
        (generic(1), "events[0].event_session_index"),
        (changed, "events[0].event_id"),
        (taken, "events[0].event_session_index"),
        (generic(4), "events[0].event"),
        (end(4), "events[0].event"),
    ];
    let collector = Collector::start().expect("starts");
    assert_eq!(
        send(&collector, &batch("s", &[start(), generic(2), end(3)])),
        200
    );
    for (event, field) in cases {
        assert_eq!(complaint(&collector, &batch("s", &[event])), field);
    }
    assert_eq!(collector.session("s").expect("kept").len(), 3);
}

#[test]
fn a_request_with_one_bad_event_is_not_kept_in_part() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    let changed = with(generic(1), json!({"event_name": "another"}));
    let request = batch("s", &[start(), changed, generic(2)]);
    assert_eq!(complaint(&collector, &request), "events[1].event_id");
    let session = collector.session("s").expect("kept");
    assert_eq!((session.len(), session.duplicates()), (2, 0));
}

#[test]
fn a_session_begins_with_its_start_unless_that_was_refused() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("other", &[start()])), 200);
    assert_eq!(
        complaint(&collector, &batch("s", &[generic(1)])),
        "events[0].event"
    );

    let collector = Collector::start().expect("starts");
    collector.script([Answer::status(400)]);
    assert_eq!(send(&collector, &batch("s", &[start()])), 400);
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
    assert_eq!(
        complaint(&collector, &batch("t", &[generic(1)])),
        "events[0].event"
    );

    let collector = Collector::start().expect("starts");
    collector.script([Answer::close_before_body()]);
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "");
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
}

#[test]
fn a_session_that_ended_can_be_allowed_to_go_on_but_not_to_end_again() {
    let collector = Collector::builder()
        .events_after_end()
        .start()
        .expect("starts");
    assert_eq!(
        send(&collector, &batch("s", &[start(), end(1), generic(2)])),
        200
    );
    assert_eq!(send(&collector, &batch("s", &[generic(3)])), 200);
    assert_eq!(
        complaint(&collector, &batch("s", &[end(4)])),
        "events[0].event"
    );
}

#[test]
fn late_events_can_be_allowed_and_fill_their_gap() {
    let collector = Collector::builder().late_events().start().expect("starts");
    assert_eq!(
        send(&collector, &batch("s", &[generic(2), generic(3)])),
        200
    );
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    let session = collector.session("s").expect("kept");
    let indices: Vec<_> = session.events().iter().map(|event| event.index()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
}

#[test]
fn a_limit_on_events_is_kept_to() {
    let collector = Collector::builder().max_events(2).start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    let request = batch("s", &[generic(2), generic(3), generic(4)]);
    assert_eq!(complaint(&collector, &request), "events");
}

#[test]
fn lenient_takes_what_strict_refuses() {
    let mut request = batch("s", &[generic(5), end(6), generic(7), end(8)]);
    spoil(&mut request, "/platform", Some(json!("Linux")));
    spoil(&mut request, "/process_uuid", None);
    spoil(&mut request, "/extra", Some(json!(1)));
    spoil(&mut request, "/events/0/extra", Some(json!(1)));
    spoil(&mut request, "/events/0/event_id", Some(json!("5")));
    spoil(
        &mut request,
        "/events/0/timestamp",
        Some(json!("2025-11-26T10:30:45.123Z")),
    );
    let text = request.to_string();
    assert!(check(text.as_bytes(), Mode::Strict).is_err());
    assert!(check(text.as_bytes(), Mode::Lenient).is_ok());

    let collector = Collector::builder().lenient().start().expect("starts");
    assert_eq!(
        status(&exchange(&collector, LINE, &[], text.as_bytes())),
        200
    );
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    assert_eq!(collector.session("s").expect("kept").gaps(), [1..=4]);
}

#[test]
fn lenient_still_refuses_what_nobody_could_make_sense_of() {
    let collector = Collector::builder().lenient().start().expect("starts");
    let mut request = batch("s", &[generic(1)]);
    spoil(
        &mut request,
        "/events/0/timestamp",
        Some(json!("yesterday")),
    );
    assert_eq!(complaint(&collector, &request), "events[0].timestamp");
}

#[test]
fn other_paths_and_methods_are_refused_as_json() {
    let collector = Collector::start().expect("starts");
    for (line, expected) in [("GET /api/v1/telemetry", 405), ("POST /api/v1/other", 404)] {
        let answer = exchange(&collector, line, &HEADERS, b"");
        assert_eq!(status(&answer), expected);
        assert!(body(&answer)["error"].is_string());
    }
    assert!(collector.requests().is_empty());
}

#[test]
fn a_body_beyond_the_limit_is_too_large() {
    let collector = Collector::builder().lenient().start().expect("starts");
    let mut stream = connect(collector.addr());
    let length = (64 << 20) + 1;
    write!(
        stream,
        "{LINE} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
    )
    .expect("written");
    let answer = read(stream);
    assert_eq!(status(&answer), 413);
    assert_eq!(body(&answer)["field"], "body");
}

#[test]
fn a_request_that_breaks_off_is_not_recorded_and_may_have_been_a_start() {
    let collector = Collector::start().expect("starts");
    let mut stream = connect(collector.addr());
    write!(
        stream,
        "{LINE} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{"
    )
    .expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(read(stream), "");
    assert!(collector.requests().is_empty());
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
}

// Answers.

#[test]
fn answers_are_given_in_the_order_of_the_script_and_then_the_default() {
    let collector = Collector::start().expect("starts");
    collector.script([Answer::status(503), Answer::status(429)]);
    collector.always(Answer::status(500));
    let request = batch("s", &[start()]);
    let answers = [(); 4].map(|()| send(&collector, &request));
    assert_eq!(answers, [503, 429, 500, 500]);
    assert!(collector.session("s").is_none());
    collector.always(Answer::accept());
    assert_eq!(send(&collector, &request), 200);
    let answered: Vec<_> = collector.requests().iter().map(|r| r.answer()).collect();
    assert_eq!(answered, [503, 429, 500, 500, 200].map(AnswerKind::Status));
}

#[test]
fn an_answer_has_the_headers_and_the_body_it_was_given() {
    let collector = Collector::start().expect("starts");
    let answer = Answer::status(429)
        .retry_after("120")
        .header("x-more", "1")
        .body("slowly");
    collector.script([answer]);
    let answer = read(post(&collector, &batch("s", &[start()])));
    assert!(answer.contains("\r\nretry-after: 120\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-more: 1\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nslowly"), "{answer}");
}

#[test]
fn connections_can_end_without_an_answer() {
    let collector = Collector::start().expect("starts");
    let request = batch("s", &[start()]);
    let cases = [
        (
            Answer::close_before_body(),
            AnswerKind::CloseBeforeBody,
            false,
        ),
        (
            Answer::close_after_body(),
            AnswerKind::CloseAfterBody,
            false,
        ),
        (Answer::lost(), AnswerKind::CloseAfterBody, true),
    ];
    for (answer, kind, kept) in cases {
        collector.script([answer]);
        assert_eq!(read(post(&collector, &request)), "");
        let last = collector.requests().pop().expect("recorded");
        assert_eq!((last.answer(), last.is_kept()), (kind, kept));
    }
    assert_eq!(send(&collector, &request), 200);
    assert_eq!(collector.session("s").expect("kept").duplicates(), 1);
}

#[test]
fn a_connection_can_be_closed_before_its_body_is_sent() {
    let collector = Collector::start().expect("starts");
    collector.script([Answer::close_before_body()]);
    let mut stream = connect(collector.addr());
    let head = format!("{LINE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    assert_eq!(read(stream), "");
    assert_eq!(collector.requests()[0].session(), None);
}

#[test]
fn garbage_is_not_http_and_its_events_are_kept_only_on_request() {
    let collector = Collector::start().expect("starts");
    collector.script([Answer::garbage(), Answer::garbage().body("\0\0").keep()]);
    let first = read(post(&collector, &batch("s", &[start()])));
    assert!(!first.is_empty() && !first.starts_with("HTTP/"), "{first}");
    assert!(collector.session("s").is_none());
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "\0\0");
    assert_eq!(collector.session("s").expect("kept").len(), 1);
}

#[test]
fn a_truncated_answer_promises_more_than_it_sends() {
    let collector = Collector::start().expect("starts");
    collector.script([Answer::truncated().body("0123456789")]);
    let answer = read(post(&collector, &batch("s", &[start()])));
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("\r\ncontent-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n01234"), "{answer}");
    assert!(collector.session("s").is_none());
}

#[test]
fn a_delayed_answer_has_kept_its_events_before_it_comes() {
    let collector = Collector::start().expect("starts");
    collector.script([Answer::accept().delay(Duration::from_secs(3600))]);
    let stream = post(&collector, &batch("s", &[start()]));
    assert!(collector.wait_for("s", 1, BOUND));
    collector.stop();
    assert_eq!(read(stream), "");
}

#[test]
fn a_delay_is_at_least_as_long_as_it_says() {
    let collector = Collector::start().expect("starts");
    // For real, since it is the collector's own clock that is tested.
    let delay = Duration::from_millis(30);
    collector.script([Answer::accept().delay(delay)]);
    let before = Instant::now();
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    assert!(before.elapsed() >= delay);
}

#[test]
fn a_violation_takes_the_place_of_success_and_of_nothing_else() {
    let collector = Collector::start().expect("starts");
    collector.script([Answer::status(202), Answer::status(503).keep()]);
    let mut request = batch("s", &[start()]);
    spoil(&mut request, "/extra", Some(json!(1)));
    assert_eq!(send(&collector, &request), 422);
    assert_eq!(send(&collector, &request), 503);
    let violation = collector.requests()[1]
        .violation()
        .expect("recorded")
        .clone();
    assert_eq!((violation.field(), violation.status()), ("extra", 422));
    assert!(collector.session("s").is_none());
}

// What is recorded, waiting, stopping.

#[test]
fn a_request_is_recorded_with_what_a_test_asks_for() {
    let before = Instant::now();
    let collector = Collector::start().expect("starts");
    collector.script([Answer::status(503)]);
    assert_eq!(send(&collector, &batch("s", &[start(), generic(4)])), 503);
    let request = collector.requests().pop().expect("recorded");
    assert!(request.arrived() >= before);
    assert_eq!(request.session(), Some("s"));
    assert_eq!(request.idempotency_key(), Some(KEY));
    assert_eq!(request.headers()["user-agent"], "test/1");
    assert_eq!(request.event_ids().collect::<Vec<_>>(), [id(0), id(4)]);
    assert_eq!(request.event_count(), 2);
    assert_eq!(
        (request.first_index(), request.last_index()),
        (Some(0), Some(4))
    );
    assert!(!request.is_kept());
}

#[test]
fn several_requests_can_share_a_connection() {
    let collector = Collector::start().expect("starts");
    let mut stream = connect(collector.addr());
    for request in [batch("s", &[start()]), batch("s", &[generic(1)])] {
        let body = request.to_string();
        let mut head = format!("{LINE} HTTP/1.1\r\nhost: x\r\n");
        for (name, value) in HEADERS {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("written");
    }
    assert!(collector.wait_for("s", 2, BOUND));
}

#[test]
fn a_wait_ends_with_the_event_or_with_its_timeout() {
    let collector = Collector::start().expect("starts");
    assert!(!collector.wait_for("s", 1, Duration::ZERO));
    assert!(collector.wait_for("s", 0, Duration::ZERO));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| collector.wait_for("s", 2, Duration::MAX));
        assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
        assert!(waiter.join().expect("no panic"));
    });
    assert!(!collector.wait_for("s", 3, Duration::from_millis(1)));
    assert!(!collector.wait_for_requests(2, Duration::from_millis(1)));
}

#[test]
fn dropping_a_collector_ends_stalled_requests_and_frees_its_port() {
    let collector = Collector::start().expect("starts");
    collector.always(Answer::stall());
    let streams = [(); 3].map(|()| post(&collector, &batch("s", &[start()])));
    let mut half_sent = connect(collector.addr());
    half_sent.write_all(b"POST /api/v1/tel").expect("written");
    assert!(collector.wait_for_requests(3, BOUND));
    let addr = collector.addr();
    drop(collector);
    for stream in streams {
        assert_eq!(read(stream), "");
    }
    assert_eq!(read(half_sent), "");
    let again = Collector::builder()
        .port(addr.port())
        .start()
        .expect("the port is free");
    assert_eq!(again.addr(), addr);
}

#[test]
fn a_stopped_collector_can_still_be_asked() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    collector.stop();
    collector.stop();
    assert_eq!(collector.session("s").expect("kept").len(), 1);
    assert!(TcpStream::connect(collector.addr()).is_err());
    assert_eq!(collector.url(), format!("http://{}", collector.addr()));
}

#[test]
fn an_observer_that_panics_costs_one_connection() {
    let collector = Collector::builder()
        .on_event(|_, event| assert!(event.index() != 0, "the observer panics on purpose"))
        .start()
        .expect("starts");
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "");
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
}

// The binary.

fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinkex-collector"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = binary(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn bad_arguments_are_named_and_end_with_two() {
    for (arguments, named) in [
        (&["--loud"][..], "--loud"),
        (&["--port"], "--port"),
        (&["--port", "http"], "http"),
        (&["--api-key"], "--api-key"),
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, Some(2));
        assert!(stderr.contains(named), "{stderr}");
    }
}

#[test]
fn help_names_every_argument() {
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for argument in ["--port", "--strict", "--api-key", "--help"] {
        assert!(stdout.contains(argument), "{stdout}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, _, stderr) = run(&["--port", &port]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("port {port} is in use")),
        "{stderr}"
    );
}

#[cfg(unix)]
mod on_unix {
    use std::{
        io::{BufRead, BufReader},
        process::Child,
    };

    use super::*;

    /// Ends the process also when a test fails.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_binary_prints_a_line_for_each_event_and_a_table_on_ctrl_c() {
        let mut running = Running(binary(&["--port", "0"]).spawn().expect("it runs"));
        let mut stdout = BufReader::new(running.0.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            line.trim_end().to_owned()
        };
        let first = line();
        let addr = first
            .strip_prefix("listening on http://")
            .expect("the address");
        let mut stream = connect(addr.parse().expect("an address"));
        let events = [start(), generic(3), exception(4), end(5)];
        let body = batch("s\u{1b}[2J", &events).to_string();
        write_request(&mut stream, LINE, &HEADERS, body.as_bytes());
        assert_eq!(status(&read(stream)), 200);
        assert_eq!(line(), r"s\u{1b}[2J 0 INFO     SESSION_START");
        assert_eq!(line(), r#"s\u{1b}[2J 3 INFO     x {"n":3}"#);
        assert_eq!(line(), r#"s\u{1b}[2J 4 INFO     Error """#);
        assert_eq!(line(), r"s\u{1b}[2J 5 INFO     SESSION_END 25:00:00.000001");

        let pid = running.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .expect("kill runs")
                .success()
        );
        assert_eq!(line(), "session     events  gaps  duplicates  ended");
        assert_eq!(line(), r"s\u{1b}[2J  4       1-2   0           yes");
        assert_eq!(running.0.wait().expect("it ends").code(), Some(0));
    }
}
