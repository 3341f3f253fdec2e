//! What patience promises: an outage costs no event, and a poisoned event is found, and dropped only with proof.
#![cfg(has_arc)]

use super::testing::{Harness, Sent, retryable};
use super::{GiveUp, SendOutcome, Step};
use crate::diagnostic::DiagnosticKind;
use crate::text::Reason;
use alloc::vec::Vec;
use core::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn patient() -> Harness {
    Harness::new(|options| options.give_up = GiveUp::WhenFull)
}

fn failed() -> SendOutcome {
    SendOutcome::Failed(None, Reason::new("HTTP status 500"))
}

fn broke() -> SendOutcome {
    SendOutcome::Broke(Reason::new("connection reset"))
}

fn settled() -> SendOutcome {
    SendOutcome::Delivered
}

/// Advances to the next attempt, at most a minute, and returns it.
fn next(harness: &mut Harness) -> Sent {
    for _ in 0..3 {
        match harness.poll() {
            Step::Send(attempt) => return harness.read(attempt, 4096),
            Step::Wait(Some(until)) => {
                assert!(until <= harness.after(MINUTE));
                harness.now = until;
            }
            other => panic!("nothing to send: {other:?}"),
        }
    }
    panic!("no attempt is due");
}

/// Answers the next `count` attempts.
fn answer(harness: &mut Harness, count: usize, outcome: fn() -> SendOutcome) {
    for _ in 0..count {
        let sent = next(harness);
        harness.settle(&sent, outcome());
    }
}

/// A lone event on which the server has failed for more than ten minutes, with `behind` events behind it; the next
/// attempt is a probe, if there is one to send.
fn in_doubt(behind: usize) -> Harness {
    let mut harness = Harness::new(|options| {
        options.give_up = GiveUp::WhenFull;
        options.max_batch_size = 1;
    });
    harness.log("poison");
    harness.log_many(behind);
    harness.flush();
    let start = harness.now;
    while harness.now.saturating_duration_since(start) < 10 * MINUTE {
        let sent = next(&mut harness);
        assert_eq!(sent.names(), ["poison"]);
        harness.settle(&sent, failed());
    }
    harness
}

#[test]
fn a_batch_is_tried_until_it_is_settled_and_with_one_key() {
    let mut harness = patient();
    harness.log_many(8);
    harness.flush();
    let key = next(&mut harness).attempt.key;
    let mut harness = patient();
    harness.log_many(8);
    harness.flush();
    for number in 0..1_000 {
        let sent = next(&mut harness);
        assert_eq!((sent.attempt.key, sent.attempt.attempt), (key, number));
        assert_eq!(sent.events.len(), 8, "no response and 503 never count");
        harness.settle(&sent, retryable());
    }
    answer(&mut harness, 1, settled);
    assert_eq!(harness.engine.stats().delivered, 8);
}

#[test]
fn what_is_full_refuses_as_ever() {
    let mut harness = Harness::new(|options| {
        options.give_up = GiveUp::WhenFull;
        (options.max_queue_size, options.flush_threshold) = (5, 5);
    });
    harness.log_many(5);
    answer(&mut harness, 20, retryable);
    assert!(!harness.log("one too many"));
    let stats = harness.engine.stats();
    assert_eq!((stats.refused.queue_full, stats.dropped.total()), (1, 0));
}

#[test]
fn delays_at_the_cap_are_up_to_a_tenth_shorter_and_differ() {
    let mut harness = patient();
    harness.log("event");
    harness.flush();
    answer(&mut harness, 7, retryable);
    let mut delays = Vec::new();
    for _ in 0..50 {
        let before = harness.now;
        answer(&mut harness, 1, retryable);
        delays.push(harness.now.saturating_duration_since(before));
    }
    let range = Duration::from_secs(54)..=MINUTE;
    assert!(
        delays.iter().all(|delay| range.contains(delay)),
        "{delays:?}"
    );
    delays.sort();
    delays.dedup();
    assert!(delays.len() > 40, "{delays:?}");
}

#[test]
fn the_deadline_of_a_stop_ends_a_batch_as_ever() {
    let mut harness = patient();
    harness.log("event");
    harness.flush();
    answer(&mut harness, 20, retryable);
    harness.stop(Duration::from_secs(5));
    let sent = next(&mut harness);
    harness.settle(&sent, retryable());
    while let Step::Send(_) | Step::Wait(Some(_)) = harness.poll() {
        harness.advance(Duration::from_secs(1));
    }
    assert_eq!(harness.poll(), Step::Done);
    assert_eq!(harness.engine.stats().dropped.shutdown, 2);
}

#[test]
fn that_the_backend_is_away_and_that_it_is_back_are_each_told_once() {
    let mut harness = patient();
    harness.log_many(3);
    harness.flush();
    let told = |harness: &mut Harness| {
        harness.report(true);
        let of_backend = |(kind, _): &(DiagnosticKind, u64)| {
            matches!(
                kind,
                DiagnosticKind::BackendAway | DiagnosticKind::BackendReturned
            )
        };
        harness
            .reported
            .iter()
            .copied()
            .filter(of_backend)
            .collect::<Vec<_>>()
    };
    answer(&mut harness, 3, retryable);
    assert_eq!(told(&mut harness), []);
    answer(&mut harness, 1, retryable);
    let away = (DiagnosticKind::BackendAway, 3);
    assert_eq!(told(&mut harness), [away]);
    answer(&mut harness, 60, retryable);
    assert_eq!(told(&mut harness), [away]);
    answer(&mut harness, 1, settled);
    let back = (DiagnosticKind::BackendReturned, 64);
    assert_eq!(told(&mut harness), [away, back]);
    harness.log("event");
    harness.flush();
    answer(&mut harness, 1, settled);
    assert_eq!(told(&mut harness), [away, back]);
}

#[test]
fn a_session_that_gives_up_tells_neither() {
    let mut harness = Harness::new(|options| options.max_retries = 100);
    harness.log("event");
    harness.flush();
    answer(&mut harness, 20, failed);
    answer(&mut harness, 1, settled);
    harness.report(true);
    let mut kinds = harness.reported.iter().map(|(kind, _)| *kind);
    assert!(kinds.all(|kind| kind == DiagnosticKind::AttemptFailed));
}

#[test]
fn a_session_that_gives_up_takes_a_failure_of_the_server_for_any_other() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(8);
    harness.flush();
    answer(&mut harness, 4, failed);
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.retries_exhausted, stats.queued), (8, 0));
}

#[test]
fn a_batch_on_which_the_server_has_failed_eight_times_is_halved_at_each_further_one() {
    let mut harness = patient();
    harness.log_many(8);
    harness.flush();
    for outcome in [retryable, failed, retryable] {
        answer(&mut harness, 1, outcome);
    }
    for _ in 0..7 {
        let sent = next(&mut harness);
        assert_eq!(sent.events.len(), 8);
        harness.settle(&sent, failed());
    }
    let mut keys = Vec::new();
    for size in [8, 4, 2, 1, 1] {
        let before = harness.now;
        let sent = next(&mut harness);
        assert_eq!(sent.events.len(), size);
        let waited = harness.now.saturating_duration_since(before);
        assert!(waited >= Duration::from_secs(1), "pieces do not hurry");
        keys.push(sent.attempt.key);
        harness.settle(&sent, failed());
    }
    keys.dedup();
    assert_eq!(
        keys.len(),
        4,
        "a key for each piece, and one for its attempts"
    );
    // Once it works again, the pieces grow.
    let sizes: Vec<_> = core::iter::from_fn(|| {
        let is_left = harness.engine.stats().queued > 0;
        is_left.then(|| {
            let sent = next(&mut harness);
            harness.settle(&sent, settled());
            sent.events.len()
        })
    })
    .collect();
    assert_eq!(sizes, [1, 2, 4, 1]);
    assert_eq!(harness.engine.stats().delivered, 8);
}

#[test]
fn an_event_is_dropped_once_the_backend_has_taken_another_and_at_once_fails_on_it_again() {
    let mut harness = in_doubt(3);
    let probe = next(&mut harness);
    assert_eq!(probe.names(), ["e0"]);
    harness.settle(&probe, settled());
    assert_eq!(
        harness.engine.stats().delivered,
        0,
        "a probe settles nothing"
    );
    let again = harness.attempt();
    assert_eq!(again.names(), ["poison"]);
    harness.settle(&again, failed());
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.rejected, stats.queued), (1, 3));
    answer(&mut harness, 3, settled);
    assert_eq!(harness.engine.stats().delivered, 3);
    harness.report(true);
    assert!(harness.reported.contains(&(DiagnosticKind::Rejected, 1)));
}

#[test]
fn an_event_that_is_taken_after_all_is_delivered() {
    let mut harness = in_doubt(1);
    answer(&mut harness, 1, settled);
    answer(&mut harness, 2, settled);
    let stats = harness.engine.stats();
    assert_eq!((stats.delivered, stats.queued), (2, 0));
}

#[test]
fn an_outage_behind_a_proxy_that_answers_for_the_backend_costs_nothing() {
    let mut harness = patient();
    harness.log_many(100);
    answer(&mut harness, 200, failed);
    while harness.engine.stats().queued > 0 {
        answer(&mut harness, 1, settled);
    }
    let stats = harness.engine.stats();
    assert_eq!((stats.delivered, stats.dropped.total()), (100, 0));
}

#[test]
fn an_outage_that_begins_after_a_probe_is_no_proof() {
    let mut harness = in_doubt(1);
    answer(&mut harness, 1, settled);
    answer(&mut harness, 1, retryable);
    answer(&mut harness, 10, failed);
    assert_eq!(harness.engine.stats().dropped.total(), 0);
}

#[test]
fn an_event_with_none_behind_it_is_tried_on() {
    let mut harness = in_doubt(0);
    for _ in 0..100 {
        let sent = next(&mut harness);
        assert_eq!(sent.names(), ["poison"]);
        harness.settle(&sent, failed());
    }
    assert_eq!(harness.engine.stats().queued, 1);
}

#[test]
fn probes_pass_over_events_that_fail_too_and_all_of_them_are_dropped() {
    let mut harness = Harness::new(|options| {
        options.give_up = GiveUp::WhenFull;
        options.max_batch_size = 7;
    });
    harness.log_many(20);
    harness.flush();
    let is_poison = |name: &&str| ["e0", "e1", "e2", "e9", "e19"].contains(name);
    for _ in 0..400 {
        if harness.engine.stats().queued == 1 {
            // Behind the last one.
            harness.log("later");
            harness.flush();
        }
        if harness.engine.stats().queued == 0 {
            break;
        }
        let sent = next(&mut harness);
        let fails = sent.names().iter().any(is_poison);
        harness.settle(&sent, if fails { failed() } else { settled() });
    }
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.rejected, stats.queued), (5, 0), "{stats:?}");
    assert!(stats.is_balanced());
}

#[test]
fn a_driver_that_is_dropped_during_a_probe_is_followed_by_one_that_sends_the_event() {
    let mut harness = in_doubt(1);
    let probe = next(&mut harness);
    assert_eq!(probe.names(), ["e0"]);
    let changed = harness.engine.detach();
    harness.wake(changed);
    assert_eq!(harness.engine.attach(), Ok(()));
    assert_eq!(next(&mut harness).names(), ["poison"]);
}

#[test]
fn a_batch_that_breaks_is_halved_without_an_allowance_and_its_last_event_is_tried_on() {
    let mut harness = patient();
    harness.log_many(8);
    harness.flush();
    for size in [8, 8, 8, 8, 4, 2, 1, 1, 1] {
        let sent = next(&mut harness);
        assert_eq!(sent.events.len(), size);
        harness.settle(&sent, broke());
    }
    answer(&mut harness, 100, broke);
    while harness.engine.stats().queued > 0 {
        answer(&mut harness, 1, settled);
    }
    assert_eq!(harness.engine.stats().delivered, 8);
}
