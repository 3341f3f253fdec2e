//! Spans: their fields travel with the events in them, and their ends can be events.

use super::{Failed, Keep, Time, data, everything, sent, sent_with};
use serde_json::{Value, json};
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Handle, Options, Reporter};
use tracing::{error, info, info_span};
use tracing_subscriber::Layer;

#[test]
fn spans_come_outermost_first_with_their_fields() {
    let events = sent(everything, |_, _| {
        info!("none");
        let outer = info_span!("outer", a = 1);
        outer.in_scope(|| {
            info!("one");
            info_span!("inner").in_scope(|| info!("two"));
            info!(parent: None, "none again");
        });
        info!(parent: &outer, "one by hand");
    });
    let spans: Vec<_> = data(&events).iter().map(|data| data.get("spans")).collect();
    let outer = json!({"name": "outer", "a": 1});
    let (one, two) = (json!([outer]), json!([outer, {"name": "inner"}]));
    assert_eq!(spans, [None, Some(&one), Some(&two), None, Some(&one)]);
}

#[test]
fn a_spans_fields_travel_with_each_event_in_it_as_they_are_then() {
    let events = sent(everything, |_, _| {
        let later = tracing::field::Empty;
        let span = info_span!("request", request_id = 42, user = %"ada", later, name = "n");
        span.in_scope(|| info!("one"));
        span.record("later", true);
        span.record("request_id", 43);
        span.in_scope(|| {
            info_span!("lookup", key = ?[1]).in_scope(|| error!("two"));
        });
    });
    let expected = [
        json!([{"name": "request", "request_id": 42, "user": "ada", "name_": "n"}]),
        json!([
            {"name": "request", "request_id": 43, "user": "ada", "later": true, "name_": "n"},
            {"name": "lookup", "key": "[1]"},
        ]),
    ];
    let spans: Vec<_> = data(&events).iter().map(|data| &data["spans"]).collect();
    assert_eq!(spans, expected.iter().collect::<Vec<_>>());
}

#[test]
fn the_context_of_the_layers_handle_travels_with_its_events() {
    let layer = |handle: &Handle, _: &Time| {
        let part = handle.with(tinkex_telemetry::fields! { job: 7 });
        TelemetryLayer::new(part).span_closings(true)
    };
    let events = sent(layer, |_, _| {
        info_span!("request", id = 1).in_scope(|| info!(context = "own", "one"));
    });
    assert_eq!(events[0]["event_data"]["context"], json!({"job": 7}));
    assert_eq!(events[0]["event_data"]["fields"]["context"], "own");
    assert_eq!(events[1]["event_name"], "request");
    assert_eq!(events[1]["event_data"]["context"], json!({"job": 7}));
}

#[test]
fn fields_of_spans_that_the_layer_does_not_select_do_not_travel() {
    let layer = |handle: &Handle, _: &Time| TelemetryLayer::new(handle.clone()).exclude("secret");
    let events = sent(layer, |_, _| {
        let outer = tracing::debug_span!("mild", a = 1);
        let inner = info_span!(target: "secret", parent: &outer, "hidden", b = 2);
        info!(parent: &inner, "one");
    });
    let expected = json!([{"name": "mild"}, {"name": "hidden"}]);
    assert_eq!(events[0]["event_data"]["spans"], expected);
}

#[test]
fn fields_of_spans_cost_no_event_however_large_they_are() {
    let large = "x".repeat(200_000);
    let half = "y".repeat(9_000);
    let events = sent(everything, |handle, _| {
        let outer = info_span!("outer", id = 1, half);
        let inner = info_span!(parent: &outer, "inner", half);
        info!(parent: &inner, "two");
        assert_eq!(handle.stats().truncated, 1);
        info_span!("large", large, id = 2).in_scope(|| info!("one"));
    });
    let spans = |at: usize| &events[at]["event_data"]["spans"];
    assert_eq!(spans(0)[0], json!({"name": "outer"}));
    assert_eq!(spans(0)[1]["half"], half);
    assert_eq!(spans(1)[0]["id"], 2);
    let text = spans(1)[0]["large"].as_str().expect("a text");
    assert!(text.starts_with("xxx") && text.ends_with("… (cut)"));
    assert!(spans(1).to_string().len() < 17_000);
}

#[test]
fn an_event_counts_as_truncated_once_though_its_spans_and_a_limit_cut_it() {
    let half = "y".repeat(9_000);
    let layer = |handle: &Handle, _: &Time| TelemetryLayer::new(handle.clone()).span_closings(true);
    let limited = Options {
        max_string_bytes: 1_000,
        ..Options::default()
    };
    for (options, is_limited) in [(Options::default(), false), (limited, true)] {
        sent_with(options, layer, |handle, _| {
            let truncated = || handle.stats().truncated;
            let outer = info_span!("outer", half);
            let inner = info_span!(parent: &outer, "inner", half);
            info!(parent: &inner, text = half, "the spans and a field are cut");
            assert_eq!(truncated(), 1);
            // The fields of `outer` alone fit; a limit cuts them, and what closes.
            drop(inner);
            assert_eq!(truncated(), 1 + u64::from(is_limited));
            info!("whole");
            assert_eq!(truncated(), 1 + u64::from(is_limited));
            let deep = info_span!(parent: &outer, "deep", half);
            drop(info_span!(parent: &deep, "deeper", half));
            assert_eq!(truncated(), 2 + u64::from(is_limited));
        });
    }
}

#[test]
fn only_the_innermost_of_many_spans_are_named() {
    fn nest(depth: usize) {
        if depth == 0 {
            info!("at the bottom");
        } else {
            info_span!("deeper").in_scope(|| nest(depth - 1));
        }
    }
    let events = sent(everything, |_, _| {
        info_span!("outermost").in_scope(|| nest(100));
    });
    let spans = events[0]["event_data"]["spans"].as_array().expect("spans");
    assert_eq!(spans.len(), 32);
    assert!(spans.iter().all(|span| *span == json!({"name": "deeper"})));
}

#[test]
fn a_closed_span_is_an_event_if_enabled() {
    let work = |_: &Handle, time: &Time| {
        let outer = info_span!(target: "app", "outer");
        let inner = info_span!(
            target: "app",
            parent: &outer,
            "inner",
            n = 1,
            text = "x",
            error = &Failed("bad", None) as &(dyn core::error::Error + 'static),
            later = tracing::field::Empty,
        );
        time.advance(10);
        inner.in_scope(|| time.advance(200));
        inner.record("later", 2.5);
        inner.record("n", 3);
        time.advance(3_000);
        inner.in_scope(|| inner.in_scope(|| time.advance(40_000)));
        tracing::debug_span!("not wanted").in_scope(|| {});
        drop(inner);
        drop(outer);
    };
    let layer = |handle: &Handle, _: &Time| TelemetryLayer::new(handle.clone()).span_closings(true);
    let events = sent(layer, work);
    let names: Vec<_> = events.iter().map(|event| &event["event_name"]).collect();
    assert_eq!(names, ["inner", "outer"]);
    let expected = json!({
        "target": "app",
        "spans": [{"name": "outer"}],
        "fields": {"n": 3, "text": "x", "error": "bad", "later": 2.5},
        "busy_us": 40_200,
        "idle_us": 3_010,
    });
    assert_eq!(events[0]["event_data"], expected);
    let expected = json!({"target": "app", "fields": {}, "busy_us": 0, "idle_us": 43_210});
    assert_eq!(events[1]["event_data"], expected);
    assert_eq!(sent(everything, work), Vec::<Value>::new());
}

#[test]
fn two_sessions_follow_the_same_spans() {
    let other = Keep::default();
    let (second, _driver) = Reporter::builder("other")
        .transport(other)
        .clock(Time::default())
        .enabled(true)
        .build()
        .expect("the defaults are valid");
    let layer = |handle: &Handle, _: &Time| {
        let first = TelemetryLayer::new(handle.clone()).span_closings(true);
        let second = TelemetryLayer::new(second.handle()).span_closings(true);
        first.and_then(second)
    };
    let events = sent(layer, |_, time| {
        info_span!("shared").in_scope(|| time.advance(5));
    });
    assert_eq!(events[0]["event_data"]["busy_us"], 5);
    assert_eq!(second.stats().accepted, 2);
}
