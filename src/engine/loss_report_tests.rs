//! What loss reports promise: they are exact, come when everything before them is settled, and never without a loss.
#![cfg(has_arc)]

use super::loss_report::REPORT_BYTES;
use super::testing::{Harness, Sent, retryable};
use super::{SendOutcome, Step};
use crate::event::encode::session_end;
use crate::stats::Refusal;
use crate::text::Reason;
use crate::time::{Instant, Timestamp};
use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DELAY: Duration = Duration::from_secs(300);

const REPORT: &str = "tinkex.telemetry.report";
const END: &str = "SESSION_END";

fn reporting(change: impl FnOnce(&mut crate::session::Options)) -> Harness {
    Harness::new(|options| {
        options.loss_report = true;
        options.max_event_bytes = 4_096;
        change(options);
    })
}

fn invalid() -> SendOutcome {
    SendOutcome::InvalidEvents(Reason::new("HTTP status 422"))
}

fn rejected() -> SendOutcome {
    SendOutcome::Rejected(Reason::new("HTTP status 401"))
}

fn refuse(harness: &mut Harness) {
    let (result, wakers) = harness
        .engine
        .refuse_with_reason(Refusal::Unencodable, None);
    assert!(result.is_err());
    harness.wake(((), wakers));
}

fn indices(sent: &Sent) -> Vec<u64> {
    let indices = sent
        .events
        .iter()
        .map(|event| &event["event_session_index"]);
    indices.filter_map(Value::as_u64).collect()
}

/// The data of the loss report that a request begins with.
fn data(sent: &Sent) -> &Value {
    assert_eq!(sent.names()[0], REPORT);
    assert_eq!(sent.events[0]["event"], "GENERIC_EVENT");
    assert_eq!(sent.events[0]["severity"], "WARNING");
    &sent.events[0]["event_data"]
}

fn unencodable(first: u64, last: u64) -> Value {
    json!({"first": first, "last": last, "reason": "unencodable"})
}

#[test]
fn a_session_that_loses_nothing_sends_no_report() {
    let mut harness = reporting(|_| {});
    harness.log_many(3);
    harness.flush();
    let sent = harness.attempt();
    harness.settle(&sent, retryable());
    harness.advance(2 * SECOND);
    harness.deliver();
    harness.advance(10 * DELAY);
    assert_eq!(harness.poll(), Step::Wait(None));
    harness.log("last");
    harness.stop(MINUTE);
    let sent = harness.deliver();
    assert_eq!(sent.names(), ["last", END]);
    assert_eq!(indices(&sent), [3, 4]);
    assert_eq!(harness.poll(), Step::Done);
    assert_eq!(harness.engine.stats().reports, 0);
}

#[test]
fn a_report_right_before_the_end_says_which_indices_are_missing_and_why() {
    let mut harness = reporting(|options| options.max_retries = 1);
    harness.log("lost");
    refuse(&mut harness);
    refuse(&mut harness);
    harness.flush();
    for _ in 0..2 {
        let sent = harness.attempt();
        harness.settle(&sent, retryable());
        harness.advance(2 * SECOND);
    }
    harness.log("kept");
    harness.engine.note_truncated();
    harness.stop(MINUTE);
    let sent = harness.deliver();
    assert_eq!(sent.names(), ["kept"]);
    let sent = harness.deliver();
    assert_eq!(sent.names(), [REPORT, END]);
    assert_eq!(indices(&sent), [4, 5]);
    let expected = json!({
        "lost": [
            {"first": 0, "last": 0, "reason": "retries_exhausted"},
            unencodable(1, 2),
        ],
        "refused": {"unencodable": 2},
        "dropped": {"retries_exhausted": 1},
        "truncated": 1,
        "retried": 1,
    });
    assert_eq!(*data(&sent), expected);
    assert_eq!(harness.poll(), Step::Done);
    let stats = harness.engine.stats();
    assert_eq!((stats.reports, stats.accepted, stats.delivered), (1, 4, 3));
}

#[test]
fn what_the_last_batch_loses_is_told_of_before_the_end() {
    let mut harness = reporting(|_| {});
    harness.log_many(2);
    harness.stop(MINUTE);
    let sent = harness.attempt();
    assert_eq!(sent.names(), ["e0", "e1", END], "nothing is lost yet");
    harness.settle(&sent, invalid());
    let sent = harness.attempt();
    assert_eq!(sent.names(), ["e0", "e1"]);
    harness.settle(&sent, invalid());
    let sent = harness.attempt();
    assert_eq!(sent.names(), ["e0"]);
    harness.settle(&sent, invalid());
    assert_eq!(harness.deliver().names(), ["e1"]);
    let sent = harness.deliver();
    assert_eq!(
        (sent.names(), indices(&sent)),
        (vec![REPORT, END], vec![2, 3])
    );
    let lost = json!([{"first": 0, "last": 0, "reason": "rejected"}]);
    assert_eq!(data(&sent)["lost"], lost);
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn an_end_that_may_have_arrived_keeps_its_index() {
    let mut harness = reporting(|_| {});
    harness.log_many(1);
    harness.stop(MINUTE);
    let sent = harness.attempt();
    harness.settle(&sent, retryable());
    harness.advance(2 * SECOND);
    for names in [&["e0", END][..], &["e0"]] {
        let sent = harness.attempt();
        assert_eq!(sent.names(), names);
        harness.settle(&sent, invalid());
    }
    let sent = harness.deliver();
    assert_eq!((sent.names(), indices(&sent)), (vec![END], vec![1]));
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn losses_are_reported_at_most_every_five_minutes_and_only_new_ones() {
    let mut harness = reporting(|_| {});
    harness.log("kept");
    refuse(&mut harness);
    let reported_at = harness.after(DELAY);
    harness.poll();
    harness.advance(MINUTE);
    refuse(&mut harness);
    harness.deliver();
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    harness.now = Instant::from_micros(reported_at.as_micros() - 1_000_000);
    assert_eq!(harness.poll(), Step::Wait(Some(reported_at)));
    harness.now = reported_at;
    let sent = harness.deliver();
    assert_eq!((sent.names(), indices(&sent)), (vec![REPORT], vec![3]));
    assert_eq!(data(&sent)["lost"], json!([unencodable(1, 2)]));
    harness.advance(10 * DELAY);
    assert_eq!(harness.poll(), Step::Wait(None), "there is nothing new");
    refuse(&mut harness);
    harness.poll();
    harness.advance(DELAY);
    let sent = harness.deliver();
    let all = json!([unencodable(1, 2), unencodable(4, 4)]);
    assert_eq!(data(&sent)["lost"], all, "totals");
    assert_eq!(data(&sent)["refused"], json!({"unencodable": 3}));
}

#[test]
fn events_before_a_report_are_sent_first_and_none_falls_due_while_a_batch_retries() {
    let mut harness = reporting(|options| {
        options.flush_interval = Duration::ZERO;
        options.max_batch_size = 2;
        options.max_retries = 20;
    });
    refuse(&mut harness);
    harness.poll();
    harness.log_many(3);
    harness.flush();
    let end = harness.after(2 * DELAY);
    while harness.now < end {
        let sent = harness.attempt();
        assert_eq!(sent.names(), ["e0", "e1"]);
        harness.settle(&sent, retryable());
        assert_eq!(harness.engine.stats().reports, 0);
        harness.advance(MINUTE);
    }
    assert_eq!(harness.deliver().names(), ["e0", "e1"]);
    assert_eq!(harness.deliver().names(), ["e2"]);
    let sent = harness.deliver();
    assert_eq!((sent.names(), indices(&sent)), (vec![REPORT], vec![4]));
    assert_eq!(data(&sent)["retried"], 10);
}

#[test]
fn a_report_does_not_count_towards_the_threshold_and_later_events_wait_as_ever() {
    let mut harness = reporting(|options| options.flush_threshold = 2);
    refuse(&mut harness);
    harness.poll();
    harness.advance(DELAY);
    let sent = harness.attempt();
    assert_eq!(sent.names(), [REPORT]);
    harness.log("one");
    harness.settle(&sent, SendOutcome::Delivered);
    assert!(matches!(harness.poll(), Step::Wait(Some(_))), "it waits");
    harness.log("two");
    assert_eq!(harness.deliver().names(), ["one", "two"]);
}

#[test]
fn a_report_that_is_lost_is_told_of_by_the_next() {
    let mut harness = reporting(|_| {});
    refuse(&mut harness);
    harness.poll();
    harness.advance(DELAY);
    let sent = harness.attempt();
    assert_eq!((sent.names(), indices(&sent)), (vec![REPORT], vec![1]));
    harness.settle(&sent, rejected());
    harness.poll();
    harness.advance(DELAY);
    let sent = harness.deliver();
    let lost = json!([unencodable(0, 0), {"first": 1, "last": 1, "reason": "rejected"}]);
    assert_eq!(data(&sent)["lost"], lost);
    assert_eq!(data(&sent)["dropped"], json!({"rejected": 1}));
    let stats = harness.engine.stats();
    assert_eq!((stats.accepted, stats.reports, stats.delivered), (2, 2, 1));
}

#[test]
fn of_a_batch_that_was_taken_in_part_the_range_and_the_count_are_told() {
    let partly = |rejected| SendOutcome::Partly {
        handed_over: false,
        rejected,
    };
    let mut harness = reporting(|options| options.max_batch_size = 4);
    harness.log_many(2);
    refuse(&mut harness);
    harness.log_many(2);
    harness.flush();
    let sent = harness.attempt();
    assert_eq!(indices(&sent), [0, 1, 3, 4]);
    harness.settle(&sent, partly(3));
    // All of them, one of one, and none.
    for (count, rejected) in [(2, 2), (1, 1), (1, 0)] {
        harness.log_many(count);
        harness.flush();
        let sent = harness.attempt();
        harness.settle(&sent, partly(rejected));
    }
    harness.stop(MINUTE);
    let sent = harness.deliver();
    assert_eq!(
        (sent.names(), indices(&sent)),
        (vec![REPORT, END], vec![9, 10])
    );
    let expected = json!([
        {"first": 0, "last": 4, "reason": "rejected", "count": 3},
        unencodable(2, 2),
        {"first": 5, "last": 7, "reason": "rejected"},
    ]);
    assert_eq!(data(&sent)["lost"], expected);
    assert_eq!(data(&sent)["refused"], json!({"unencodable": 1}));
    assert_eq!(data(&sent)["dropped"], json!({"rejected": 6}));
}

#[test]
fn a_report_that_was_taken_in_part_is_within_the_range_that_the_next_tells_of() {
    let mut harness = reporting(|_| {});
    refuse(&mut harness);
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert_eq!(harness.deliver().names(), ["fatal"]);
    let sent = harness.attempt();
    assert_eq!(
        (sent.names(), indices(&sent)),
        (vec![REPORT, END], vec![2, 3])
    );
    let partly = SendOutcome::Partly {
        handed_over: true,
        rejected: 1,
    };
    harness.settle(&sent, partly);
    harness.stop(MINUTE);
    let sent = harness.deliver();
    let part = json!({"first": 2, "last": 3, "reason": "rejected", "count": 1});
    assert_eq!(data(&sent)["lost"], json!([unencodable(0, 0), part]));
    let stats = harness.engine.stats();
    assert!(stats.is_balanced());
    assert_eq!((stats.handed_over, stats.dropped.rejected), (1, 1));
}

#[test]
fn a_thousand_alternating_losses_are_counted_and_none_is_listed_that_is_none() {
    for max_event_bytes in [512, 1_024, 4_096] {
        let mut harness = reporting(|options| options.max_event_bytes = max_event_bytes);
        for _ in 0..500 {
            harness.log("kept");
            refuse(&mut harness);
        }
        harness.stop(MINUTE);
        let mut received = Vec::new();
        let sent = loop {
            let sent = harness.deliver();
            if sent.names()[0] == REPORT {
                break sent;
            }
            received.extend(indices(&sent));
        };
        let report = &sent.events[0];
        assert!(report.to_string().len() <= max_event_bytes.min(REPORT_BYTES));
        assert_eq!(data(&sent)["refused"], json!({"unencodable": 500}));
        let lost = data(&sent)["lost"].as_array().expect("runs");
        assert_eq!(lost.len() < 16, max_event_bytes == 512);
        assert!(!lost.is_empty());
        for run in lost {
            let index = run["first"].as_u64().expect("an index");
            assert_eq!(*run, unencodable(index, index));
            assert!(!received.contains(&index));
        }
    }
}

#[test]
fn a_report_that_a_stop_cannot_deliver_is_dropped_at_its_deadline_like_any_event() {
    let mut harness = reporting(|_| {});
    harness.log("kept");
    refuse(&mut harness);
    harness.stop(MINUTE);
    assert_eq!(harness.deliver().names(), ["kept"]);
    let sent = harness.attempt();
    assert_eq!(sent.names(), [REPORT, END]);
    harness.advance(MINUTE);
    assert_eq!(harness.poll(), Step::Done);
    harness.settle(&sent, SendOutcome::Delivered);
    let stats = harness.engine.stats();
    assert!(stats.is_balanced());
    assert_eq!(
        (stats.dropped.shutdown, stats.queued, stats.reports),
        (2, 0, 1)
    );
}

#[test]
fn a_report_and_the_end_that_are_too_large_together_are_sent_one_by_one_and_made_once() {
    let mut harness = reporting(|_| {});
    refuse(&mut harness);
    harness.stop(MINUTE);
    let sent = harness.attempt();
    let report = sent.events[0].clone();
    assert_eq!(sent.names(), [REPORT, END]);
    harness.settle(&sent, SendOutcome::TooLarge(Reason::new("HTTP status 413")));
    let sent = harness.deliver();
    assert_eq!(sent.events, [report]);
    assert_eq!(harness.deliver().names(), [END]);
    assert_eq!(harness.poll(), Step::Done);
    assert_eq!(harness.engine.stats().reports, 1);
}

#[test]
fn a_session_that_survives_a_fatal_exception_goes_on_reporting_until_it_is_stopped() {
    let mut harness = reporting(|_| {});
    refuse(&mut harness);
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert!(harness.log("after"));
    assert_eq!(harness.deliver().names(), ["fatal"]);
    let sent = harness.deliver();
    assert_eq!(
        (sent.names(), indices(&sent)),
        (vec![REPORT, END], vec![2, 3])
    );
    refuse(&mut harness);
    harness.poll();
    harness.advance(DELAY);
    assert_eq!(harness.deliver().names(), ["after"]);
    let sent = harness.deliver();
    assert_eq!(data(&sent)["refused"], json!({"unencodable": 2}));
    refuse(&mut harness);
    harness.stop(MINUTE);
    let sent = harness.deliver();
    assert_eq!((sent.names(), indices(&sent)), (vec![REPORT], vec![8]));
    assert_eq!(data(&sent)["refused"], json!({"unencodable": 3}));
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn a_stop_waits_for_the_last_report_and_a_flush_for_those_before_it() {
    let mut harness = reporting(|_| {});
    assert_eq!(harness.fatal("fatal"), Ok(()));
    harness.deliver();
    refuse(&mut harness);
    harness.poll();
    harness.advance(DELAY);
    let before = harness.engine.request_flush();
    let before = harness.wake(before);
    let report = harness.attempt();
    let during = harness.engine.request_flush();
    let during = harness.wake(during);
    assert!(harness.engine.is_reached(before), "no event waits");
    assert!(!harness.engine.is_reached(during));
    harness.settle(&report, rejected());
    assert!(harness.engine.is_reached(during));
    let tail = session_end(Timestamp::from_unix_micros(0), SECOND);
    let begun = harness.engine.begin_stop(None, &tail);
    let stopped = harness.wake(begun);
    assert!(!harness.engine.is_reached(stopped));
    assert_eq!(harness.deliver().names(), [REPORT]);
    assert!(harness.engine.is_reached(stopped));
}

#[test]
fn a_fatal_exception_that_a_hook_refuses_is_a_gap_that_is_told_of() {
    for refusal in [Refusal::Scrubbed, Refusal::OwnWork] {
        let mut harness = reporting(|_| {});
        let tail = session_end(Timestamp::from_unix_micros(0), SECOND);
        let refused = |harness: &mut Harness| {
            let (_, wakers) = harness.engine.refuse_with_reason(refusal, None);
            harness.wake(((), wakers));
        };
        refused(&mut harness);
        let (_, wakers) = harness.engine.refuse_fatal(refusal, None, &tail);
        harness.wake(((), wakers));
        let sent = harness.deliver();
        assert_eq!(
            (sent.names(), indices(&sent)),
            (vec![REPORT, END], vec![1, 2])
        );
        let run = json!([{"first": 0, "last": 0, "reason": refusal.as_str()}]);
        assert_eq!(data(&sent)["lost"], run);
        assert_eq!(data(&sent)["refused"][refusal.as_str()], 1);
    }
}

#[test]
fn a_session_without_reports_only_leaves_its_gaps() {
    let mut harness = reporting(|options| options.loss_report = false);
    refuse(&mut harness);
    harness.poll();
    harness.advance(10 * DELAY);
    assert_eq!(harness.poll(), Step::Wait(None));
    harness.stop(MINUTE);
    let sent = harness.deliver();
    assert_eq!((sent.names(), indices(&sent)), (vec![END], vec![1]));
    assert_eq!(harness.poll(), Step::Done);
}
