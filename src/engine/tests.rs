//! The engine's promises, one by one, with hand-moved time.

use super::testing::{Harness, retryable};
use super::{AlreadyDriven, Priority, SendOutcome, Step, Watermark};
use crate::diagnostic::DiagnosticKind;
use crate::stats::Refusal;
use crate::text::Reason;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Waker;
use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn waker() -> (Arc<Self>, Waker) {
        let woken = Arc::<Self>::default();
        (Arc::clone(&woken), Waker::from(woken))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn an_event_that_comes_while_a_batch_is_sent_waits_no_longer_than_the_interval() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.engine.request_flush();
    let attempt = harness.attempt();
    let sent_at = harness.now;
    harness.log("b");
    harness.advance(3 * SECOND);
    harness.settle(&attempt, SendOutcome::Delivered);
    assert_eq!(harness.poll(), Step::Wait(sent_at.checked_add(10 * SECOND)));
}

#[test]
fn the_end_of_a_session_takes_the_bytes_of_its_json_and_no_more() {
    let mut harness = Harness::new(|_| {});
    harness.stop(SECOND);
    let queued = harness.engine.stats().queued_bytes;
    let attempt = harness.attempt();
    assert_eq!(attempt.names(), ["SESSION_END"]);
    assert_eq!(queued, attempt.attempt.json_bytes);
    harness.settle(&attempt, SendOutcome::Delivered);
    assert_eq!(harness.engine.stats().queued_bytes, 0);
}

#[test]
fn the_threshold_makes_a_batch_due_and_wakes_the_driver_once() {
    let mut harness = Harness::new(|options| options.flush_threshold = 3);
    let (woken, waker) = Woken::waker();
    let push = |harness: &mut Harness| {
        let body = br#","event":"x"}"#;
        let (result, waker) = harness.engine.push(body, Priority::Ordinary);
        assert_eq!(result, Ok(()));
        waker.into_iter().for_each(Waker::wake);
    };
    push(&mut harness);
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    assert!(harness.engine.park(waker).is_ok());
    push(&mut harness);
    assert_eq!(woken.count(), 0);
    push(&mut harness);
    push(&mut harness);
    assert_eq!(woken.count(), 1);
    assert_eq!(harness.deliver().events.len(), 4);
}

#[test]
fn a_request_made_before_the_driver_sleeps_is_not_lost() {
    let mut harness = Harness::new(|_| {});
    harness.log("fatal right after start");
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    assert!(harness.engine.request_flush().1.is_none());
    let (_, waker) = Woken::waker();
    assert!(harness.engine.park(waker).is_err());
    assert!(matches!(harness.poll(), Step::Send(_)));
}

#[test]
fn batches_go_out_in_order_and_within_their_size() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(250);
    harness.engine.request_flush();
    let sizes: Vec<_> = (0..3).map(|_| harness.deliver().events.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(harness.poll(), Step::Wait(None));
    assert_eq!(harness.engine.stats().delivered, 250);
}

#[test]
fn batches_stay_within_their_bytes() {
    let mut harness = Harness::new(|options| {
        options.max_event_bytes = 512;
        options.max_batch_bytes = 700;
        options.max_queue_bytes = 100_000;
    });
    harness.log_many(20);
    harness.engine.request_flush();
    let mut delivered = 0;
    while delivered < 20 {
        let attempt = harness.deliver();
        assert!((1..=4).contains(&attempt.events.len()));
        delivered += attempt.events.len();
    }
}

#[test]
fn a_queue_that_fills_a_request_by_bytes_is_due_before_its_threshold() {
    let mut harness = Harness::new(|options| {
        options.flush_threshold = 10_000;
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    harness.log_many(12);
    assert!(matches!(harness.poll(), Step::Send(_)));
}

#[test]
fn retries_back_off_with_the_same_key_and_the_same_bytes() {
    let mut harness = Harness::new(|_| {});
    harness.log("b");
    harness.engine.request_flush();
    let first = harness.attempt();
    let mut last = first.clone();
    for (attempt, seconds) in [(1, 1), (2, 2), (3, 4)] {
        harness.settle(&last, retryable());
        let Step::Wait(Some(until)) = harness.poll() else {
            panic!("no backoff");
        };
        let delay = until.saturating_duration_since(harness.now);
        assert!(delay >= seconds * SECOND && delay <= seconds * SECOND * 11 / 10);
        harness.now = until;
        last = harness.attempt();
        assert_eq!(last.attempt.attempt, attempt);
        assert_eq!(last.attempt.key, first.attempt.key);
        assert_eq!(last.events, first.events);
    }
    harness.settle(&last, retryable());
    assert_eq!(harness.engine.stats().dropped.retries_exhausted, 1);
    assert!(matches!(harness.poll(), Step::Wait(_)));
}

#[test]
fn a_batch_after_the_next_one_has_another_key() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(101);
    let first = harness.deliver();
    harness.engine.request_flush();
    assert_ne!(harness.deliver().attempt.key, first.attempt.key);
}

#[test]
fn what_the_server_asks_for_is_waited_up_to_the_cap() {
    for (asked, waited) in [(0, 0), (30, 30), (3_600, 60)] {
        let mut harness = Harness::new(|_| {});
        harness.log("a");
        harness.engine.request_flush();
        let attempt = harness.attempt();
        let retry_after = Some(asked * SECOND);
        harness.settle(
            &attempt,
            SendOutcome::Retryable(retry_after, Reason::default()),
        );
        let until = harness.after(waited * SECOND);
        if waited > 0 {
            assert_eq!(harness.poll(), Step::Wait(Some(until)));
        }
        harness.now = until;
        assert!(matches!(harness.poll(), Step::Send(_)));
    }
}

#[test]
fn a_rejected_batch_is_dropped_at_once_and_does_not_block_the_next() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(200);
    let poisoned = harness.attempt();
    harness.settle(
        &poisoned,
        SendOutcome::Rejected(Reason::new("HTTP status 401")),
    );
    assert_eq!(harness.deliver().events.len(), 100);
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.rejected, stats.delivered), (100, 100));
}

#[test]
fn a_batch_that_is_too_large_is_halved_down_to_the_event_that_is() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(100);
    let (mut keys, mut requests, mut last_index) = (vec![], 0, None);
    while harness.engine.stats().queued > 0 {
        let attempt = harness.attempt();
        requests += 1;
        assert!(!keys.contains(&attempt.attempt.key));
        keys.push(attempt.attempt.key);
        let holds_the_large_one = attempt.names().contains(&"e37");
        if holds_the_large_one {
            harness.settle(
                &attempt,
                SendOutcome::TooLarge(Reason::new("HTTP status 413")),
            );
        } else {
            assert!(last_index < Some(attempt.attempt.first_index));
            last_index = Some(attempt.attempt.first_index);
            harness.settle(&attempt, SendOutcome::Delivered);
        }
    }
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.too_large, stats.delivered), (1, 99));
    assert!(requests < 120, "{requests}");
}

#[test]
fn a_full_queue_refuses_counts_and_says_so_once() {
    let mut harness = Harness::new(|options| {
        options.max_queue_size = 10;
        options.flush_threshold = 10;
    });
    harness.log_many(10);
    for _ in 0..10_000 {
        assert!(!harness.log("one too many"));
    }
    let stats = harness.engine.stats();
    assert_eq!((stats.queued, stats.refused.queue_full), (10, 10_000));
    harness.tell(false);
    assert_eq!(harness.reported, [(DiagnosticKind::QueueFull, 10_000)]);
    // The loss is a gap in the sequence that the backend can see.
    harness.deliver();
    assert!(harness.log("next"));
    harness.engine.request_flush();
    assert_eq!(harness.deliver().attempt.first_index, 10_010);
}

#[test]
fn a_wait_is_over_when_what_came_before_it_is_settled() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(150);
    let (watermark, _) = harness.engine.request_flush();
    assert_eq!(watermark, Watermark(150));
    harness.log("later");
    harness.deliver();
    assert!(!harness.engine.is_over(watermark));
    harness.deliver();
    assert!(harness.engine.is_over(watermark));
}

#[test]
fn a_settled_batch_wakes_those_who_wait() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.engine.request_flush();
    let (woken, waker) = Woken::waker();
    let waiter = harness.engine.new_waiter();
    harness.engine.register(waiter, waker.clone()).finish();
    harness.engine.register(waiter, waker.clone()).finish();
    let (woken_in_vain, waker) = Woken::waker();
    let gone = harness.engine.new_waiter();
    harness.engine.register(gone, waker).finish();
    assert!(harness.engine.unregister(gone).is_some());
    assert!(harness.engine.unregister(gone).is_none());
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert_eq!(woken.count(), 0);
    harness.advance(2 * SECOND);
    harness.deliver();
    assert_eq!((woken.count(), woken_in_vain.count()), (1, 0));
}

#[test]
fn a_value_that_cannot_be_encoded_takes_an_index_and_one_that_was_scrubbed_does_not() {
    let mut harness = Harness::new(|_| {});
    let _ = harness.engine.refuse_with_reason(Refusal::Scrubbed, None);
    let _ = harness
        .engine
        .refuse_with_reason(Refusal::Unencodable, None);
    let _ = harness
        .engine
        .refuse_with_reason(Refusal::ScrubPanicked, None);
    let _ = harness
        .engine
        .refuse_with_reason(Refusal::EventTooLarge, None);
    assert!(harness.log("e"));
    harness.engine.note_truncated();
    let refused = harness.engine.stats().refused;
    assert_eq!((refused.scrubbed, refused.unencodable), (1, 1));
    assert_eq!((refused.scrub_panicked, refused.event_too_large), (1, 1));
    assert_eq!(harness.engine.stats().truncated, 1);
    harness.engine.request_flush();
    assert_eq!(harness.deliver().attempt.first_index, 3);
}

#[test]
fn a_driver_that_is_dropped_in_mid_send_leaves_its_batch_for_another() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    let (watermark, _) = harness.engine.request_flush();
    let first = harness.attempt();
    assert_eq!(harness.engine.attach(), Err(AlreadyDriven));
    harness.engine.detach().wake();
    assert!(harness.engine.is_over(watermark));
    assert!(!harness.engine.stats().driver_alive);
    assert_eq!(harness.engine.stats().queued, 1);

    assert_eq!(harness.engine.attach(), Ok(()));
    let second = harness.attempt();
    assert_eq!(second.attempt.key, first.attempt.key);
    assert_eq!(second.attempt.attempt, 1);
    assert_eq!(second.events, first.events);
    harness.settle(&first, SendOutcome::Delivered);
    assert_eq!(harness.engine.stats().delivered, 0);
    harness.settle(&second, SendOutcome::Delivered);
    assert_eq!(harness.engine.stats().delivered, 1);
}

#[test]
fn a_copy_of_a_batch_that_is_gone_is_empty() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.stop(SECOND);
    let attempt = harness.attempt();
    harness.advance(SECOND);
    harness.poll();
    let mut out = [0; 16];
    assert_eq!(
        harness.engine.copy(&mut attempt.attempt.cursor(), &mut out),
        0
    );
}

#[test]
fn an_event_is_too_large_by_its_own_json_alone() {
    let mut harness = Harness::new(|options| {
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    let body = |len: usize| {
        let mut body = br#","x":""#.to_vec();
        body.resize(len - 2, b'x');
        body.extend_from_slice(b"\"}");
        body
    };
    let fits = 512 - crate::event::encode::EventPrefix::MIN;
    assert_eq!(
        harness.engine.push(&body(fits), Priority::Ordinary).0,
        Ok(())
    );
    let (result, _) = harness.engine.push(&body(fits + 1), Priority::Ordinary);
    assert_eq!(result, Err(Refusal::EventTooLarge));
    assert!(harness.log("next"));
    harness.engine.request_flush();
    let indexes: Vec<_> = harness
        .deliver()
        .events
        .iter()
        .map(|e| e["event_session_index"].clone())
        .collect();
    assert_eq!(indexes, [0, 2]);
}

#[test]
fn a_large_batch_is_put_together_in_steps() {
    let mut harness = Harness::new(|options| {
        options.max_batch_size = 1_000;
        options.flush_threshold = 1_000;
    });
    harness.log_many(1_000);
    let mut steps = 0;
    let attempt = loop {
        match harness.engine.poll(harness.now) {
            Step::Again => steps += 1,
            Step::Send(attempt) => break attempt,
            other => panic!("{other:?}"),
        }
    };
    assert!(steps >= 7, "{steps}");
    assert_eq!(harness.read(attempt, 256).events.len(), 1_000);
}

#[test]
fn memory_comes_back_when_a_burst_is_over() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(5_000);
    assert!(harness.engine.ring.is_oversized());
    harness.engine.request_flush();
    for _ in 0..50 {
        harness.deliver();
    }
    assert_eq!(harness.poll(), Step::Wait(Some(harness.after(SECOND))));
    harness.advance(SECOND);
    assert_eq!(harness.poll(), Step::Wait(None));
    assert!(!harness.engine.ring.is_oversized());
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test's");
        }
    }
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.engine.request_flush();
    let (woken, good) = Woken::waker();
    for waker in [Waker::from(Arc::new(Bad)), good] {
        let waiter = harness.engine.new_waiter();
        harness.engine.register(waiter, waker).finish();
    }
    harness.deliver();
    assert_eq!(woken.count(), 1);
}

#[test]
fn what_an_interval_has_sent_does_not_make_the_next_queue_due() {
    let mut harness = Harness::new(|options| {
        options.flush_threshold = 10_000;
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    for _ in 0..4 {
        harness.log_many(2);
        assert!(matches!(harness.poll(), Step::Wait(Some(_))));
        harness.advance(10 * SECOND);
        assert_eq!(harness.deliver().events.len(), 2);
    }
}

#[test]
fn the_first_event_arms_the_interval_and_the_interval_sends_it() {
    let mut harness = Harness::new(|_| {});
    assert_eq!(harness.poll(), Step::Wait(None));
    assert!(harness.log("a"));
    let due = harness.after(10 * SECOND);
    assert_eq!(harness.poll(), Step::Wait(Some(due)));
    harness.advance(4 * SECOND);
    assert!(harness.log("b"));
    assert_eq!(harness.poll(), Step::Wait(Some(due)));
    harness.now = due;
    assert_eq!(harness.deliver().names(), ["a", "b"]);
    assert_eq!(harness.poll(), Step::Wait(None));
}

#[test]
fn a_zero_interval_sends_nothing_by_itself() {
    let mut harness = Harness::new(|options| options.flush_interval = Duration::ZERO);
    harness.log("a");
    assert_eq!(harness.poll(), Step::Wait(None));
}

#[test]
fn pieces_of_a_split_batch_stop_at_its_original_end() {
    let mut harness = Harness::new(|options| options.max_batch_size = 99);
    harness.log_many(110);
    let attempt = harness.attempt();
    assert_eq!(attempt.events.len(), 99);
    harness.settle(&attempt, SendOutcome::TooLarge(Reason::default()));
    harness.engine.request_flush();
    let sizes: Vec<_> = (0..3).map(|_| harness.deliver().events.len()).collect();
    assert_eq!(sizes, [50, 49, 11]);
}
