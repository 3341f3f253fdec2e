//! Loss reports: a collector checks that they agree with the events that it has.

use serde_json::{Value, json};
use tinkex_telemetry::collector::{Collector, Reply};

use crate::client::*;

fn report(n: u64, lost: &[(u64, u64, &str)]) -> Value {
    let mut counts = [json!({}), json!({})];
    let mut runs = Vec::new();
    for &(first, last, reason) in lost {
        let is_dropped = ["rejected", "retries_exhausted", "too_large"].contains(&reason);
        let count = &mut counts[usize::from(is_dropped)][reason];
        *count = json!(count.as_u64().unwrap_or(0) + last - first + 1);
        runs.push(json!({"first": first, "last": last, "reason": reason}));
    }
    let [refused, dropped] = counts;
    let data = json!({
        "lost": runs, "refused": refused, "dropped": dropped, "truncated": 0, "retried": 0,
    });
    with(
        common(n, "GENERIC_EVENT"),
        json!({"event_name": "tinkex.telemetry.report", "event_data": data}),
    )
}

#[test]
fn a_report_that_tells_of_all_that_is_missing_is_accepted_and_so_is_a_session_without_one() {
    let collector = Collector::start().expect("starts");
    let lost = [(2, 3, "queue_full"), (5, 5, "rejected")];
    let events = [start(), generic(1), generic(4), report(6, &lost), end(7)];
    assert_eq!(send(&collector, &batch("exact", &events)), 200);
    let old = [start(), generic(1), generic(4), end(7)];
    assert_eq!(send(&collector, &batch("an old client", &old)), 200);
    // The second report tells of what the first could not know, and of the first.
    let first = [start(), generic(1), report(3, &[(2, 2, "queue_full")])];
    assert_eq!(send(&collector, &batch("twice", &first)), 200);
    let lost = [(2, 2, "queue_full"), (4, 4, "rejected")];
    let second = [generic(5), report(6, &lost), end(7)];
    assert_eq!(send(&collector, &batch("twice", &second)), 200);
    assert!(collector.violations().is_empty());
}

#[test]
fn what_is_missing_and_not_told_of_is_a_violation() {
    let collector = Collector::start().expect("starts");
    let events = [start(), report(4, &[(2, 2, "queue_full")]), end(5)];
    assert_eq!(
        complaint(&collector, &batch("s", &events)),
        "events[2].event_session_index"
    );
    let before = [start(), generic(1), report(3, &[(2, 2, "queue_full")])];
    assert_eq!(send(&collector, &batch("t", &before)), 200);
    // The session has lost events, and its end comes without a report.
    let end_alone = batch("t", &[generic(4), end(5)]);
    assert_eq!(complaint(&collector, &end_alone), "events[1].event");
}

#[test]
fn a_refused_event_that_is_here_is_a_violation_and_a_dropped_one_is_not() {
    for (reason, is_wrong) in [
        ("queue_full", true),
        ("event_too_large", true),
        ("unencodable", true),
        ("scrub_panicked", true),
        // Its response may have been lost.
        ("rejected", false),
        ("retries_exhausted", false),
    ] {
        let collector = Collector::start().expect("starts");
        let events = [start(), generic(1), report(2, &[(1, 1, reason)]), end(3)];
        let events = batch("s", &events);
        if is_wrong {
            let field = "events[2].event_data.lost";
            assert_eq!(complaint(&collector, &events), field, "{reason}");
        } else {
            assert_eq!(send(&collector, &events), 200, "{reason}");
        }
    }
}

#[test]
fn a_report_that_contradicts_itself_is_a_violation() {
    let collector = Collector::start().expect("starts");
    let mut wrong = report(3, &[(1, 2, "queue_full")]);
    wrong["event_data"]["refused"]["queue_full"] = json!(1);
    let events = batch("s", &[start(), wrong, end(4)]);
    assert_eq!(complaint(&collector, &events), "events[1].event_data");
    let own = report(3, &[(3, 3, "rejected")]);
    let events = batch("t", &[start(), own, end(4)]);
    assert_eq!(complaint(&collector, &events), "events[1].event_data.lost");
}

#[test]
fn a_request_that_the_collector_has_refused_explains_what_is_missing() {
    let collector = Collector::start().expect("starts");
    let before = [start(), report(2, &[(1, 1, "queue_full")])];
    assert_eq!(send(&collector, &batch("s", &before)), 200);
    collector.script([Reply::status(503)]);
    assert_eq!(send(&collector, &batch("s", &[generic(3)])), 503);
    assert_eq!(send(&collector, &batch("s", &[generic(4), end(5)])), 200);
}

#[test]
fn a_session_goes_on_after_its_end_if_a_report_stands_between_that_and_a_fatal_exception() {
    let collector = Collector::start().expect("starts");
    let lost = [(1, 1, "queue_full")];
    let fatal = [start(), exception(2), report(3, &lost), end(4), generic(5)];
    assert_eq!(send(&collector, &batch("fatal", &fatal)), 200);
    // The exception itself may be what is missing.
    let gap = [start(), report(2, &lost), end(3), generic(4)];
    assert_eq!(send(&collector, &batch("gap", &gap)), 200);
    let over = [start(), generic(2), report(3, &lost), end(4), generic(5)];
    let over = batch("over", &over);
    assert_eq!(complaint(&collector, &over), "events[4].event");
}
