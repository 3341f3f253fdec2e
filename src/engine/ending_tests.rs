//! The engine's promises about the end of a session, with hand-moved time.

use super::testing::{Harness, retryable};
use super::{Priority, SendOutcome, Step};
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
fn a_full_queue_cannot_take_the_end_of_the_session_away() {
    let mut harness = Harness::new(|options| {
        options.max_queue_size = 10;
        options.flush_threshold = 10;
    });
    harness.log_many(10);
    assert!(!harness.log("refused"));
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert_eq!(harness.fatal("second fatal"), Err(Refusal::QueueFull));
    let attempt = harness.deliver();
    assert_eq!(attempt.names()[9..], ["e9", "fatal", "SESSION_END"]);
}

#[test]
fn the_byte_limit_leaves_a_reserve_for_one_fatal_exception() {
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
fn the_queue_is_full_at_its_last_byte_and_the_reserve_holds_the_largest_exception() {
    const LARGEST: usize = 512;
    let mut probe = Harness::new(|_| {});
    assert!(probe.log("x"));
    let with_one_letter = probe.engine.stats().queued_bytes - HEADER;
    let name = "x".repeat(LARGEST - with_one_letter + 1);
    let mut harness = Harness::new(|options| {
        options.max_event_bytes = LARGEST;
        options.max_queue_bytes = 4 * (LARGEST + HEADER);
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
fn what_is_logged_after_a_survived_fatal_exception_follows_the_end() {
    let mut harness = Harness::new(|_| {});
    harness.log("before");
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert!(harness.log("after") && harness.log("after again"));
    assert_eq!(
        harness.deliver().names(),
        ["before", "fatal", "SESSION_END"]
    );
    harness.engine.request_flush();
    assert_eq!(harness.deliver().names(), ["after", "after again"]);
    harness.tell(true);
    let after_end = |(kind, _): &&_| *kind == DiagnosticKind::LoggedAfterEnd;
    assert_eq!(harness.reported.iter().filter(after_end).count(), 1);
}

#[test]
fn a_stop_sends_the_end_last_and_refuses_what_comes_after() {
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
fn an_end_that_fits_no_more_into_a_batch_goes_alone() {
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
    harness.engine.request_flush();
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    harness.stop(5 * SECOND);
    assert!(matches!(harness.poll(), Step::Send(_)));
}

#[test]
fn a_stop_waits_for_what_the_server_asked_for_if_there_is_time() {
    for (timeout, is_waited_for) in [(5 * SECOND, true), (SECOND, false)] {
        let mut harness = Harness::new(|_| {});
        harness.log("a");
        harness.engine.request_flush();
        let attempt = harness.attempt();
        let retry_after = Some(3 * SECOND);
        harness.settle(
            &attempt,
            SendOutcome::Retryable(retry_after, Reason::default()),
        );
        let until = harness.after(3 * SECOND);
        harness.stop(timeout);
        if is_waited_for {
            assert_eq!(harness.poll(), Step::Wait(Some(until)));
        } else {
            assert_eq!(harness.poll(), Step::Done);
            assert_eq!(harness.engine.stats().dropped.shutdown, 2);
        }
    }
}

#[test]
fn a_stop_gives_up_at_once_when_the_next_attempt_lies_beyond_its_deadline() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.stop(Duration::from_millis(500));
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert_eq!(harness.engine.stats().dropped.shutdown, 2);
    assert_eq!(harness.poll(), Step::Done);
}

#[test]
fn an_attempt_at_a_stops_deadline_is_one_too_late() {
    for (retry_after, is_late) in [(SECOND, true), (SECOND - MICROSECOND, false)] {
        let mut harness = Harness::new(|_| {});
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
fn a_deadline_after_the_end_has_nothing_to_drop() {
    let mut harness = Harness::new(|_| {});
    harness.stop(SECOND);
    harness.deliver();
    harness.advance(SECOND);
    assert!(harness.engine.expire(harness.now).is_none());
    assert_eq!(harness.engine.stats().dropped.shutdown, 0);
}

#[test]
fn a_stop_that_meets_its_deadline_drops_what_is_left_and_ignores_a_late_answer() {
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
fn a_later_stop_neither_extends_nor_shortens_the_first_ones_deadline() {
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
    harness.engine.request_flush();
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
fn a_last_attempt_that_ends_with_the_stop_is_dropped_by_the_stop() {
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
fn a_fatal_exception_that_is_not_sent_ends_the_session_and_wakes_the_driver() {
    for refusal in [Refusal::Scrubbed, Refusal::ScrubPanicked] {
        let mut harness = Harness::new(|_| {});
        assert!(matches!(harness.engine.poll(harness.now), Step::Wait(_)));
        assert!(harness.engine.park(Waker::noop().clone()).is_ok());
        let tail = session_end(Timestamp::from_unix_micros(0), SECOND);
        let (result, waker) = harness.engine.refuse_fatal(refusal, None, &tail);
        assert_eq!(result, Err(refusal));
        assert!(waker.is_some(), "{refusal:?}");
        assert!(harness.engine.stats().session_ended);
        assert_eq!(harness.deliver().names(), ["SESSION_END"]);
    }
}
