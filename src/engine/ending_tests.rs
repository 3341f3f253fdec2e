//! What the engine promises about the end of a session, with manual time.

use super::testing::{Harness, retryable};
use super::{Priority, SendOutcome, Step, Wakers};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::HEADER;
use crate::stats::Refusal;
use crate::text::Reason;
#[cfg(feature = "std")]
use crate::{event::encode::session_end, time::Timestamp};
use alloc::format;
#[cfg(feature = "std")]
use core::task::Waker;
use core::time::Duration;

const MICROSECOND: Duration = Duration::from_micros(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_full_queue_accepts_one_fatal_exception_and_session_end() {
    let mut harness = Harness::new(|options| {
        options.max_queue_size = 10;
        options.flush_threshold = 10;
        options.reserve = Some(0);
    });
    harness.log_many(10);
    assert!(!harness.log("refused"));
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert_eq!(harness.fatal("second fatal"), Err(Refusal::QueueFull));
    let attempt = harness.deliver();
    assert_eq!(attempt.names()[9..], ["e9", "fatal", "SESSION_END"]);
}

#[test]
fn a_fatal_exception_refused_for_any_reason_leaves_a_gap_before_the_end_it_causes() {
    for refusal in [Refusal::Scrubbed, Refusal::OwnWork, Refusal::ScrubPanicked] {
        let mut harness = Harness::new(|_| {});
        let tail = session_end(Timestamp::from_unix_micros(0), SECOND);
        let refuse = |harness: &mut Harness| {
            let (result, wakers) = harness.engine.refuse_fatal(refusal, None, &tail);
            assert_eq!(result, Err(refusal));
            harness.wake(((), wakers));
        };
        assert!(harness.log("before"));
        refuse(&mut harness);
        assert!(harness.log("after"));
        // Once the session has ended, the reason alone decides.
        refuse(&mut harness);
        assert!(harness.log("last"));
        harness.flush();
        let sent = [harness.deliver(), harness.deliver()];
        let events = sent.iter().flat_map(|sent| &sent.events);
        let indices = events.filter_map(|event| event["event_session_index"].as_u64());
        let indices: alloc::vec::Vec<_> = indices.collect();
        let gap = u64::from(refusal == Refusal::ScrubPanicked);
        assert_eq!(indices, [0, 2, 3, 4 + gap], "{refusal:?}");
    }
}

#[test]
fn a_queue_full_of_bytes_accepts_one_fatal_exception() {
    let mut harness = Harness::new(|options| {
        options.max_event_bytes = 512;
        options.max_queue_bytes = 2_000;
        options.max_batch_bytes = 1_000;
    });
    while harness.log("filler") {}
    assert!(harness.engine.stats().queued_bytes <= 2_000);
    let long = "x".repeat(400 - 80);
    assert!(!harness.log(&long));
    assert_eq!(harness.fatal(&long), Ok(()));
}

#[test]
fn the_queue_fills_to_the_last_byte_and_the_reserve_fits_the_largest_exception() {
    const LARGEST: usize = 512;
    let mut probe = Harness::new(|_| {});
    assert!(probe.log("x"));
    let with_one_letter = probe.engine.stats().queued_bytes - HEADER;
    let name = "x".repeat(LARGEST - with_one_letter + 1);
    let mut harness = Harness::new(|options| {
        options.max_event_bytes = LARGEST;
        options.max_queue_bytes = 4 * (LARGEST + HEADER);
        options.reserve = Some(0);
    });
    for _ in 0..4 {
        assert_eq!(harness.push(&name, Priority::Ordinary), Ok(()));
    }
    assert_eq!(harness.engine.stats().queued_bytes, 4 * (LARGEST + HEADER));
    assert_eq!(
        harness.push("", Priority::Ordinary),
        Err(Refusal::QueueFull)
    );
    assert_eq!(harness.fatal(&name), Ok(()));
    assert_eq!(harness.fatal(""), Err(Refusal::QueueFull));
    assert_eq!(
        harness.fatal(&format!("{name}x")),
        Err(Refusal::EventTooLarge)
    );
}

#[test]
fn many_fatal_errors_end_the_session_once() {
    let mut harness = Harness::new(|_| {});
    for n in 0..20 {
        assert_eq!(harness.fatal(&format!("f{n}")), Ok(()));
    }
    harness.stop(SECOND);
    let mut ends = 0;
    while let Step::Send(attempt) = harness.poll() {
        let attempt = harness.read(attempt, 64);
        ends += attempt
            .names()
            .iter()
            .filter(|name| **name == "SESSION_END")
            .count();
        harness.settle(&attempt, SendOutcome::Delivered);
    }
    assert_eq!(ends, 1);
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn events_logged_after_a_survived_fatal_exception_follow_session_end() {
    let mut harness = Harness::new(|_| {});
    harness.log("before");
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert!(harness.log("after") && harness.log("after again"));
    assert_eq!(
        harness.deliver().names(),
        ["before", "fatal", "SESSION_END"]
    );
    harness.flush();
    assert_eq!(harness.deliver().names(), ["after", "after again"]);
    harness.report(true);
    let after_end = |(kind, _): &&_| *kind == DiagnosticKind::LoggedAfterEnd;
    assert_eq!(harness.reported.iter().filter(after_end).count(), 1);
}

#[test]
fn a_stop_sends_session_end_last_and_refuses_later_events() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.stop(SECOND);
    assert_eq!(
        harness.push("late", Priority::Ordinary),
        Err(Refusal::SessionEnded)
    );
    assert_eq!(harness.deliver().names(), ["a", "SESSION_END"]);
    assert_eq!(harness.poll(), Step::Done);
    let stats = harness.engine.stats();
    assert_eq!((stats.refused.session_ended, stats.accepted), (1, 2));
    assert!(stats.session_ended && stats.is_balanced());
}

#[test]
fn session_end_is_sent_alone_if_the_last_batch_is_full() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(100);
    harness.stop(SECOND);
    assert_eq!(harness.deliver().events.len(), 100);
    let end = harness.deliver();
    assert_eq!(end.names(), ["SESSION_END"]);
    assert_eq!(end.attempt.first_index, 100);
}

#[test]
fn a_stop_cuts_a_backoff_short() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.flush();
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    harness.stop(5 * SECOND);
    assert!(matches!(harness.poll(), Step::Send(_)));
}

#[test]
fn a_stop_waits_for_retry_after_if_its_deadline_allows() {
    for (timeout, is_in_time) in [(5 * SECOND, true), (SECOND, false)] {
        let mut harness = Harness::new(|_| {});
        harness.log("a");
        harness.flush();
        let attempt = harness.attempt();
        let retry_after = Some(3 * SECOND);
        harness.settle(
            &attempt,
            SendOutcome::Retryable(retry_after, Reason::default()),
        );
        let until = harness.after(3 * SECOND);
        harness.stop(timeout);
        if is_in_time {
            assert_eq!(harness.poll(), Step::Wait(Some(until)));
        } else {
            assert_eq!(harness.poll(), Step::Done);
            assert_eq!(harness.engine.stats().dropped.shutdown, 2);
        }
    }
}

#[test]
fn a_stop_gives_up_at_once_if_the_next_attempt_would_miss_its_deadline() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.stop(Duration::from_millis(500));
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert_eq!(harness.engine.stats().dropped.shutdown, 2);
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn an_attempt_at_the_deadline_of_a_stop_is_too_late() {
    for (retry_after, is_late) in [(SECOND, true), (SECOND - MICROSECOND, false)] {
        let mut harness = Harness::new(|options| options.retry_base_delay = MICROSECOND);
        harness.log("a");
        harness.stop(SECOND);
        let attempt = harness.attempt();
        harness.settle(
            &attempt,
            SendOutcome::Retryable(Some(retry_after), Reason::default()),
        );
        assert_eq!(harness.engine.stats().queued == 0, is_late);
    }
}

#[test]
fn a_deadline_that_passes_after_everything_is_settled_drops_nothing() {
    let mut harness = Harness::new(|_| {});
    harness.stop(SECOND);
    harness.deliver();
    harness.advance(SECOND);
    assert!(harness.engine.expire(harness.now).is_none());
    assert_eq!(harness.engine.stats().dropped.shutdown, 0);
}

#[test]
fn a_stop_drops_what_is_left_at_its_deadline_and_ignores_a_late_result() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.stop(2 * SECOND);
    let attempt = harness.attempt();
    assert_eq!(
        harness.engine.send_deadline(),
        Some(harness.after(2 * SECOND))
    );
    harness.advance(2 * SECOND);
    assert_eq!(harness.poll(), Step::Done);
    harness.settle(&attempt, SendOutcome::Delivered);
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.shutdown, stats.delivered), (2, 0));
    assert!(stats.is_balanced());
}

#[test]
fn a_second_stop_does_not_change_the_deadline() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.stop(3 * SECOND);
    harness.attempt();
    let deadline = harness.after(3 * SECOND);
    for timeout in [SECOND, MINUTE] {
        harness.stop(timeout);
        assert_eq!(harness.engine.send_deadline(), Some(deadline));
    }
    assert_eq!(harness.engine.stats().accepted, 2);
}

#[test]
fn a_clock_near_its_end_does_not_overflow() {
    let mut harness = Harness::new(|_| {});
    harness.now = crate::time::Instant::from_micros(u64::MAX - 2);
    harness.log("a");
    assert_eq!(harness.poll(), Step::Wait(None));
    harness.flush();
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    harness.stop(SECOND);
    assert_eq!(harness.deliver().names(), ["a"]);
    assert_eq!(harness.deliver().names(), ["SESSION_END"]);
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn an_unlimited_queue_has_room_for_a_fatal_exception() {
    let mut harness = Harness::new(|options| options.max_queue_size = usize::MAX);
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert_eq!(harness.deliver().names(), ["fatal", "SESSION_END"]);
}

#[test]
fn a_last_attempt_that_fails_at_the_deadline_counts_as_shutdown() {
    let mut harness = Harness::new(|options| options.max_retries = 0);
    harness.log("a");
    harness.stop(2 * SECOND);
    let attempt = harness.attempt();
    harness.advance(2 * SECOND);
    harness.settle(&attempt, retryable());
    let dropped = harness.engine.stats().dropped;
    assert_eq!((dropped.shutdown, dropped.retries_exhausted), (2, 0));
}

#[cfg(feature = "std")]
#[test]
fn a_refused_fatal_exception_still_ends_the_session_and_wakes_the_driver() {
    for refusal in [Refusal::Scrubbed, Refusal::ScrubPanicked] {
        let mut harness = Harness::new(|_| {});
        assert!(matches!(harness.engine.poll(harness.now), Step::Wait(_)));
        let parked = harness.engine.park(Waker::noop().clone());
        assert!(harness.wake(parked));
        let tail = session_end(Timestamp::from_unix_micros(0), SECOND);
        let (result, waker) = harness.engine.refuse_fatal(refusal, None, &tail);
        assert_eq!(result, Err(refusal));
        assert!(matches!(waker, Wakers::One(_)), "{refusal:?}");
        assert!(harness.engine.stats().session_ended);
        assert_eq!(harness.deliver().names(), ["SESSION_END"]);
    }
}
