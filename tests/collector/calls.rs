//! HTTP calls: a collector checks that each has one start and, after it, one end.

use serde_json::{Value, json};
use tinkex_telemetry::collector::Collector;

use crate::client::*;

const NUMBER: &str = "events[0].event_data.metadata.call";

fn call(n: u64, name: &str, call: u64) -> Value {
    let data = json!({"measurements": {}, "metadata": {"method": "GET", "call": call}});
    with(
        common(n, "GENERIC_EVENT"),
        json!({"event_name": format!("tinkex.http.request.{name}"), "event_data": data}),
    )
}

#[test]
fn calls_may_overlap_and_a_session_may_end_with_some_under_way() {
    let collector = Collector::start().expect("starts");
    let events = [
        start(),
        call(1, "start", 0),
        call(2, "start", 1),
        call(3, "stop", 1),
        call(4, "start", 2),
        call(5, "exception", 0),
        end(6),
    ];
    assert_eq!(send(&collector, &batch("s", &events)), 200);
    // Sent again, as after a lost response.
    assert_eq!(send(&collector, &batch("s", &events)), 200);
    assert!(collector.violations().is_empty());
}

#[test]
fn a_second_start_or_end_and_an_end_before_its_start_are_violations() {
    let collector = Collector::start().expect("starts");
    for (session, first, second) in [
        ("two starts", "start", "start"),
        ("two ends", "stop", "exception"),
        ("an end first", "stop", "start"),
    ] {
        let before = batch(session, &[start(), call(1, first, 7)]);
        assert_eq!(send(&collector, &before), 200);
        let after = batch(session, &[call(2, second, 7)]);
        assert_eq!(complaint(&collector, &after), NUMBER, "{session}");
        // Nothing was kept of it.
        let other = batch(session, &[call(2, "start", 8), call(3, "stop", 8)]);
        assert_eq!(send(&collector, &other), 200);
        // In one request it is the same.
        let both = batch(session, &[call(4, first, 9), call(5, second, 9)]);
        let second = "events[1].event_data.metadata.call";
        assert_eq!(complaint(&collector, &both), second, "{session}");
    }
    let again = batch(
        "two ends",
        &[call(4, "start", 1), call(5, "stop", 1), call(6, "stop", 1)],
    );
    assert_eq!(
        complaint(&collector, &again),
        "events[2].event_data.metadata.call"
    );
}

#[test]
fn events_without_a_number_and_those_of_a_lenient_collector_are_not_paired() {
    let without = |n| {
        let data = json!({"event_name": "tinkex.http.request.stop", "event_data": {}});
        with(common(n, "GENERIC_EVENT"), data)
    };
    let strict = Collector::start().expect("starts");
    let events = [start(), without(1), without(2)];
    assert_eq!(send(&strict, &batch("s", &events)), 200);
    let lenient = Collector::builder().lenient().start();
    let lenient = lenient.expect("starts");
    let events = [start(), call(1, "stop", 0), call(2, "stop", 0)];
    assert_eq!(send(&lenient, &batch("s", &events)), 200);
}
