//! The engine's promises about the end of a session, with hand-moved time.

use super::testing::{World, retryable};
use super::{Kind, Outcome, Step};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::HEADER;
use crate::stats::Refusal;
use crate::text::Why;
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
    let mut world = World::new(|options| {
        options.max_queue_size = 10;
        options.flush_threshold = 10;
    });
    world.log_many(10);
    assert!(!world.log("refused"));
    assert_eq!(world.fatal("fatal"), Ok(()));
    assert_eq!(world.fatal("second fatal"), Err(Refusal::QueueFull));
    let attempt = world.deliver();
    assert_eq!(attempt.names()[9..], ["e9", "fatal", "SESSION_END"]);
}

#[test]
fn the_byte_limit_leaves_a_reserve_for_one_fatal_exception() {
    let mut world = World::new(|options| {
        options.max_event_bytes = 512;
        options.max_queue_bytes = 2_000;
        options.max_batch_bytes = 1_000;
    });
    while world.log("filler") {}
    assert!(world.engine.stats().queued_bytes <= 2_000);
    let long = "x".repeat(400 - 80);
    assert!(!world.log(&long));
    assert_eq!(world.fatal(&long), Ok(()));
}

#[test]
fn the_queue_is_full_at_its_last_byte_and_the_reserve_holds_the_largest_exception() {
    const LARGEST: usize = 512;
    let mut probe = World::new(|_| {});
    assert!(probe.log("x"));
    let with_one_letter = probe.engine.stats().queued_bytes - HEADER;
    let name = "x".repeat(LARGEST - with_one_letter + 1);
    let mut world = World::new(|options| {
        options.max_event_bytes = LARGEST;
        options.max_queue_bytes = 4 * (LARGEST + HEADER);
    });
    for _ in 0..4 {
        assert_eq!(world.push(&name, Kind::Ordinary), Ok(()));
    }
    assert_eq!(world.engine.stats().queued_bytes, 4 * (LARGEST + HEADER));
    assert_eq!(world.push("", Kind::Ordinary), Err(Refusal::QueueFull));
    assert_eq!(world.fatal(&name), Ok(()));
    assert_eq!(world.fatal(""), Err(Refusal::QueueFull));
    assert_eq!(
        world.fatal(&format!("{name}x")),
        Err(Refusal::EventTooLarge)
    );
}

#[test]
fn many_fatal_errors_end_the_session_once() {
    let mut world = World::new(|_| {});
    for n in 0..20 {
        assert_eq!(world.fatal(&format!("f{n}")), Ok(()));
    }
    world.stop(SECOND);
    let mut ends = 0;
    while let Step::Send(ticket) = world.poll() {
        let attempt = world.read(ticket, 64);
        ends += attempt
            .names()
            .iter()
            .filter(|name| **name == "SESSION_END")
            .count();
        world.settle(&attempt, Outcome::Delivered);
    }
    assert_eq!(ends, 1);
    assert_eq!(world.poll(), Step::Done);
}

#[test]
fn what_is_logged_after_a_survived_fatal_exception_follows_the_end() {
    let mut world = World::new(|_| {});
    world.log("before");
    assert_eq!(world.fatal("fatal"), Ok(()));
    assert!(world.log("after") && world.log("after again"));
    assert_eq!(world.deliver().names(), ["before", "fatal", "SESSION_END"]);
    world.engine.request_flush();
    assert_eq!(world.deliver().names(), ["after", "after again"]);
    world.tell(true);
    let after_end = |(kind, _): &&_| *kind == DiagnosticKind::LoggedAfterEnd;
    assert_eq!(world.told.iter().filter(after_end).count(), 1);
}

#[test]
fn a_stop_sends_the_end_last_and_refuses_what_comes_after() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.stop(SECOND);
    assert_eq!(
        world.push("late", Kind::Ordinary),
        Err(Refusal::SessionEnded)
    );
    assert_eq!(world.deliver().names(), ["a", "SESSION_END"]);
    assert_eq!(world.poll(), Step::Done);
    let stats = world.engine.stats();
    assert_eq!((stats.refused.session_ended, stats.accepted), (1, 2));
    assert!(stats.session_ended && stats.is_balanced());
}

#[test]
fn an_end_that_fits_no_more_into_a_batch_goes_alone() {
    let mut world = World::new(|_| {});
    world.log_many(100);
    world.stop(SECOND);
    assert_eq!(world.deliver().events.len(), 100);
    let end = world.deliver();
    assert_eq!(end.names(), ["SESSION_END"]);
    assert_eq!(end.ticket.first_index, 100);
}

#[test]
fn a_stop_cuts_a_backoff_short() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.engine.request_flush();
    let attempt = world.attempt();
    world.settle(&attempt, retryable());
    assert!(matches!(world.poll(), Step::Wait(Some(_))));
    world.stop(5 * SECOND);
    assert!(matches!(world.poll(), Step::Send(_)));
}

#[test]
fn a_stop_waits_for_what_the_server_asked_for_if_there_is_time() {
    for (timeout, is_waited_for) in [(5 * SECOND, true), (SECOND, false)] {
        let mut world = World::new(|_| {});
        world.log("a");
        world.engine.request_flush();
        let attempt = world.attempt();
        let wish = Some(3 * SECOND);
        world.settle(&attempt, Outcome::Retryable(wish, Why::default()));
        let until = world.after(3 * SECOND);
        world.stop(timeout);
        if is_waited_for {
            assert_eq!(world.poll(), Step::Wait(Some(until)));
        } else {
            assert_eq!(world.poll(), Step::Done);
            assert_eq!(world.engine.stats().dropped.shutdown, 2);
        }
    }
}

#[test]
fn a_stop_gives_up_at_once_when_the_next_attempt_lies_beyond_its_deadline() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.stop(Duration::from_millis(500));
    let attempt = world.attempt();
    world.settle(&attempt, retryable());
    assert_eq!(world.engine.stats().dropped.shutdown, 2);
    assert_eq!(world.poll(), Step::Done);
}

#[test]
fn an_attempt_at_a_stops_deadline_is_one_too_late() {
    for (wish, is_late) in [(SECOND, true), (SECOND - MICROSECOND, false)] {
        let mut world = World::new(|_| {});
        world.log("a");
        world.stop(SECOND);
        let attempt = world.attempt();
        world.settle(&attempt, Outcome::Retryable(Some(wish), Why::default()));
        assert_eq!(world.engine.stats().queued == 0, is_late);
    }
}

#[test]
fn a_deadline_after_the_end_has_nothing_to_drop() {
    let mut world = World::new(|_| {});
    world.stop(SECOND);
    world.deliver();
    world.advance(SECOND);
    assert!(world.engine.expire(world.now).is_none());
    assert_eq!(world.engine.stats().dropped.shutdown, 0);
}

#[test]
fn a_stop_that_meets_its_deadline_drops_what_is_left_and_ignores_a_late_answer() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.stop(2 * SECOND);
    let attempt = world.attempt();
    assert_eq!(world.engine.send_deadline(), Some(world.after(2 * SECOND)));
    world.advance(2 * SECOND);
    assert_eq!(world.poll(), Step::Done);
    world.settle(&attempt, Outcome::Delivered);
    let stats = world.engine.stats();
    assert_eq!((stats.dropped.shutdown, stats.delivered), (2, 0));
    assert!(stats.is_balanced());
}

#[test]
fn a_later_stop_neither_extends_nor_shortens_the_first_ones_deadline() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.stop(3 * SECOND);
    world.attempt();
    let deadline = world.after(3 * SECOND);
    for timeout in [SECOND, MINUTE] {
        world.stop(timeout);
        assert_eq!(world.engine.send_deadline(), Some(deadline));
    }
    assert_eq!(world.engine.stats().accepted, 2);
}

#[test]
fn a_clock_near_its_end_does_not_overflow() {
    let mut world = World::new(|_| {});
    world.now = crate::time::Instant::from_micros(u64::MAX - 2);
    world.log("a");
    assert_eq!(world.poll(), Step::Wait(None));
    world.engine.request_flush();
    let attempt = world.attempt();
    world.settle(&attempt, retryable());
    assert!(matches!(world.poll(), Step::Wait(Some(_))));
    world.stop(SECOND);
    assert_eq!(world.deliver().names(), ["a"]);
    assert_eq!(world.deliver().names(), ["SESSION_END"]);
    assert_eq!(world.poll(), Step::Done);
}

#[test]
fn an_unlimited_queue_has_room_for_a_fatal_exception() {
    let mut world = World::new(|options| options.max_queue_size = usize::MAX);
    assert_eq!(world.fatal("fatal"), Ok(()));
    assert_eq!(world.deliver().names(), ["fatal", "SESSION_END"]);
}

#[test]
fn a_last_attempt_that_ends_with_the_stop_is_dropped_by_the_stop() {
    let mut world = World::new(|options| options.max_retries = 0);
    world.log("a");
    world.stop(2 * SECOND);
    let attempt = world.attempt();
    world.advance(2 * SECOND);
    world.settle(&attempt, retryable());
    let dropped = world.engine.stats().dropped;
    assert_eq!((dropped.shutdown, dropped.retries_exhausted), (2, 0));
}

#[cfg(feature = "std")]
#[test]
fn a_fatal_exception_that_is_not_sent_ends_the_session_and_wakes_the_driver() {
    for reason in [Refusal::Scrubbed, Refusal::ScrubPanicked] {
        let mut world = World::new(|_| {});
        assert!(matches!(world.engine.poll(world.now), Step::Wait(_)));
        assert!(world.engine.park(Waker::noop().clone()).is_ok());
        let tail = session_end(Timestamp::from_unix_micros(0), SECOND);
        let (result, waker) = world.engine.refuse_fatal(reason, None, &tail);
        assert_eq!(result, Err(reason));
        assert!(waker.is_some(), "{reason:?}");
        assert!(world.engine.stats().session_ended);
        assert_eq!(world.deliver().names(), ["SESSION_END"]);
    }
}
