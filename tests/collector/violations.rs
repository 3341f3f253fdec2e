//! Requests that a collector refuses.

use std::{collections::HashMap, io::Write, net::Shutdown};

use serde_json::{Value, json};
use tinkex_telemetry::collector::{Collector, Mode, Reply, check};

use crate::client::*;

#[test]
fn every_violation_of_the_wire_format_is_refused_and_named() {
    let collector = Collector::start().expect("starts");
    for (pointer, value, field) in corruptions() {
        let mut request = batch("s", &[start(), generic(1), exception(2), end(3)]);
        corrupt(&mut request, pointer, value);
        assert_eq!(complaint(&collector, &request), field, "{pointer}");
    }
    assert_eq!(collector.violations().len(), corruptions().len());
    assert!(collector.session("s").is_none());
}

/// Where a valid request is corrupted, with what (`None` removes the key), and the field that is reported.
fn corruptions() -> Vec<(&'static str, Option<Value>, &'static str)> {
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

pub(crate) fn corrupt(request: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match (request.pointer_mut(parent).expect("a parent"), value) {
        (Value::Object(parent), Some(value)) => drop(parent.insert(key.to_owned(), value)),
        (Value::Object(parent), None) => drop(parent.remove(key).expect("a key to remove")),
        (Value::Array(parent), Some(value)) => {
            parent[key.parse::<usize>().expect("an array index")] = value
        }
        (parent, value) => panic!("{parent} cannot take {value:?}"),
    }
}

#[test]
fn a_body_that_is_not_a_json_object_is_a_bad_request() {
    let collector = Collector::start().expect("starts");
    for bad in [&b"{"[..], b"", b"[]", b"17", b"{} {}", b"\xff"] {
        let response = exchange(&collector, LINE, &HEADERS, bad);
        assert_eq!(status(&response), 400, "{bad:?}");
        assert_eq!(body(&response)["field"], "body");
    }
}

#[test]
fn every_required_header_is_checked() {
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
        let response = exchange(&collector, LINE, &headers, request.as_bytes());
        assert_eq!(status(&response), expected, "{name}: {value}");
        assert_eq!(body(&response)["field"], name);
    }
}

#[test]
fn a_wrong_api_key_is_unauthorized_even_in_lenient_mode() {
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
fn requests_of_one_session_are_checked_against_each_other() {
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
    assert_eq!(collector.session("s").expect("stored").len(), 3);
}

#[test]
fn a_request_with_one_bad_event_is_refused_as_a_whole() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    let changed = with(generic(1), json!({"event_name": "another"}));
    let request = batch("s", &[start(), changed, generic(2)]);
    assert_eq!(complaint(&collector, &request), "events[1].event_id");
    let session = collector.session("s").expect("stored");
    assert_eq!((session.len(), session.duplicates()), (2, 0));
}

#[test]
fn a_session_must_begin_with_its_start_unless_that_was_refused() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("other", &[start()])), 200);
    assert_eq!(
        complaint(&collector, &batch("s", &[generic(1)])),
        "events[0].event"
    );

    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(400)]);
    assert_eq!(send(&collector, &batch("s", &[start()])), 400);
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
    assert_eq!(
        complaint(&collector, &batch("t", &[generic(1)])),
        "events[0].event"
    );

    let collector = Collector::start().expect("starts");
    collector.script([Reply::close_before_body()]);
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "");
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
}

#[test]
fn an_ended_session_can_be_allowed_to_continue_but_not_to_end_again() {
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
fn events_follow_the_end_of_a_session_that_a_fatal_exception_may_have_ended() {
    let user_error = with(generic(1), json!({"event_name": "user_error"}));
    let plain = generic(1);
    for (before, is_allowed) in [
        (Some(exception(1)), true),
        (Some(user_error), true),
        (Some(plain), false),
        // It was lost, and may have been the exception.
        (None, true),
    ] {
        // In one request, in one for the start and one for the end, and in one for each event.
        for cut in [1, 2, 9] {
            let collector = Collector::start().expect("starts");
            let events: Vec<_> = [Some(start()), before.clone(), Some(end(2))]
                .into_iter()
                .flatten()
                .collect();
            let size = events.len().div_ceil(cut);
            for events in events.chunks(size) {
                assert_eq!(send(&collector, &batch("s", events)), 200);
            }
            for n in [3, 4] {
                let expected = if is_allowed { 200 } else { 422 };
                assert_eq!(send(&collector, &batch("s", &[exception(n)])), expected);
            }
            assert_eq!(
                complaint(&collector, &batch("s", &[end(9)])),
                "events[0].event"
            );
        }
    }
}

#[test]
fn other_events_may_come_between_a_fatal_exception_and_the_end() {
    let user_error = with(generic(1), json!({"event_name": "user_error"}));
    // It names the word, but is no user error.
    let other = with(
        generic(1),
        json!({"event_data": {"event_name": "user_error"}}),
    );
    for (failure, is_allowed) in [
        (Some(exception(1)), true),
        (Some(user_error), true),
        (Some(other), false),
        // Only the event directly before the end may have been the one that ended the session.
        (None, false),
    ] {
        for size in [1, 2, 9] {
            let collector = Collector::start().expect("starts");
            let events = [
                Some(start()),
                failure.clone(),
                Some(generic(2)),
                Some(end(3)),
            ];
            let events: Vec<_> = events.into_iter().flatten().collect();
            for events in events.chunks(size) {
                assert_eq!(send(&collector, &batch("s", events)), 200);
            }
            let expected = if is_allowed { 200 } else { 422 };
            assert_eq!(send(&collector, &batch("s", &[generic(4)])), expected);
        }
    }
}

#[test]
fn many_late_events_are_kept_in_order() {
    let collector = Collector::builder().late_events().start().expect("starts");
    for last in [40_u64, 30, 20, 10] {
        let events: Vec<_> = (last - 9..=last).map(generic).collect();
        assert_eq!(send(&collector, &batch("s", &events)), 200);
    }
    let session = collector.session("s").expect("stored");
    let indices: Vec<_> = session.events().iter().map(|event| event.index()).collect();
    assert_eq!(indices, Vec::from_iter(1..=40));
}

#[test]
fn late_events_can_be_allowed_and_fill_their_gap() {
    let collector = Collector::builder().late_events().start().expect("starts");
    assert_eq!(
        send(&collector, &batch("s", &[generic(2), generic(3)])),
        200
    );
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    let session = collector.session("s").expect("stored");
    let indices: Vec<_> = session.events().iter().map(|event| event.index()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
}

#[test]
fn the_event_limit_is_enforced() {
    let collector = Collector::builder().max_events(2).start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    let request = batch("s", &[generic(2), generic(3), generic(4)]);
    assert_eq!(complaint(&collector, &request), "events");
}

#[test]
fn lenient_mode_accepts_what_strict_mode_refuses() {
    let events = [generic(5), end(6), generic(7), end(8), exception(9)];
    let mut request = batch("s", &events);
    corrupt(&mut request, "/events/4/traceback", Some(json!(null)));
    let null = request.to_string();
    assert!(check(null.as_bytes(), Mode::Strict).is_err());
    corrupt(&mut request, "/platform", Some(json!("Linux")));
    corrupt(&mut request, "/process_uuid", None);
    corrupt(&mut request, "/extra", Some(json!(1)));
    corrupt(&mut request, "/events/0/extra", Some(json!(1)));
    corrupt(&mut request, "/events/0/event_id", Some(json!("5")));
    corrupt(
        &mut request,
        "/events/0/timestamp",
        Some(json!("2025-11-26T10:30:45.123456+00:00")),
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
    assert_eq!(collector.session("s").expect("stored").gaps(), [1..=4]);
}

#[test]
fn lenient_mode_still_refuses_nonsense() {
    let collector = Collector::builder().lenient().start().expect("starts");
    let mut request = batch("s", &[generic(1)]);
    corrupt(
        &mut request,
        "/events/0/timestamp",
        Some(json!("yesterday")),
    );
    assert_eq!(complaint(&collector, &request), "events[0].timestamp");
}

#[test]
fn other_paths_and_methods_are_refused_with_json() {
    let collector = Collector::start().expect("starts");
    for (line, expected) in [("GET /api/v1/telemetry", 405), ("POST /api/v1/other", 404)] {
        let response = exchange(&collector, line, &HEADERS, b"");
        assert_eq!(status(&response), expected);
        assert!(body(&response)["error"].is_string());
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
        "{LINE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
    )
    .expect("written");
    let response = read(stream);
    assert_eq!(status(&response), 413);
    assert_eq!(body(&response)["field"], "body");
}

#[test]
fn an_aborted_request_is_not_recorded_but_may_have_been_a_start() {
    let collector = Collector::start().expect("starts");
    let mut stream = connect(collector.addr());
    write!(
        stream,
        "{LINE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{"
    )
    .expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(read(stream), "");
    assert!(collector.requests().is_empty());
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
}
