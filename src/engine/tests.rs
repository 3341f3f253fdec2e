//! What the engine promises, one test each, with manual time.

use super::testing::{Harness, retryable};
use super::{AlreadyDriven, Goal, Priority, SendOutcome, Step, Wakers};
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

/// Counts its wake-ups.
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
fn an_event_logged_during_a_send_waits_no_longer_than_the_flush_interval() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.flush();
    let attempt = harness.attempt();
    let sent_at = harness.now;
    harness.log("b");
    harness.advance(3 * SECOND);
    harness.settle(&attempt, SendOutcome::Delivered);
    assert_eq!(harness.poll(), Step::Wait(sent_at.checked_add(10 * SECOND)));
}

#[test]
fn session_end_counts_only_its_json_in_queued_bytes() {
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
fn reaching_the_threshold_makes_a_batch_due_and_wakes_the_driver_once() {
    let mut harness = Harness::new(|options| options.flush_threshold = 3);
    let (woken, waker) = Woken::waker();
    let push = |harness: &mut Harness| {
        let body = br#","event":"x"}"#;
        let (result, waker) = harness.engine.push(body, Priority::Ordinary);
        assert_eq!(result, Ok(()));
        harness.wake(waker);
    };
    push(&mut harness);
    assert!(matches!(harness.poll(), Step::Wait(Some(_))));
    let parked = harness.engine.park(waker);
    assert!(harness.wake(parked));
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
    let parked = harness.engine.park(waker);
    assert!(!harness.wake(parked));
    assert!(matches!(harness.poll(), Step::Send(_)));
}

#[test]
fn batches_are_sent_in_order_and_within_max_batch_size() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(250);
    harness.flush();
    let sizes: Vec<_> = (0..3).map(|_| harness.deliver().events.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(harness.engine.stats().delivered, 250);
}

#[test]
fn batches_stay_within_max_batch_bytes() {
    let mut harness = Harness::new(|options| {
        options.max_event_bytes = 512;
        options.max_batch_bytes = 700;
        options.max_queue_bytes = 100_000;
    });
    harness.log_many(20);
    harness.flush();
    let mut delivered = 0;
    while delivered < 20 {
        let attempt = harness.deliver();
        assert!((1..=4).contains(&attempt.events.len()));
        delivered += attempt.events.len();
    }
}

#[test]
fn a_full_batch_of_bytes_is_due_before_the_threshold() {
    let mut harness = Harness::new(|options| {
        options.flush_threshold = 10_000;
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    harness.log_many(12);
    assert!(matches!(harness.poll(), Step::Send(_)));
}

#[test]
fn retries_back_off_and_keep_the_key_and_the_body() {
    let mut harness = Harness::new(|_| {});
    harness.log("b");
    harness.flush();
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
fn each_batch_has_its_own_key() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(101);
    let first = harness.deliver();
    harness.flush();
    assert_ne!(harness.deliver().attempt.key, first.attempt.key);
}

#[test]
fn retry_after_is_respected_up_to_the_cap() {
    for (requested, waited) in [(30, 30), (3_600, 60)] {
        let mut harness = Harness::new(|_| {});
        harness.log("a");
        harness.flush();
        let attempt = harness.attempt();
        let retry_after = Some(requested * SECOND);
        harness.settle(
            &attempt,
            SendOutcome::Retryable(retry_after, Reason::default()),
        );
        let until = harness.after(waited * SECOND);
        assert_eq!(harness.poll(), Step::Wait(Some(until)));
        harness.now = until;
        assert!(matches!(harness.poll(), Step::Send(_)));
    }
}

#[test]
fn a_retry_after_never_shortens_the_sessions_own_backoff() {
    for requested in [Duration::ZERO, Duration::from_millis(300)] {
        let mut harness = Harness::new(|_| {});
        harness.log("a");
        harness.flush();
        let attempt = harness.attempt();
        let busy = SendOutcome::Retryable(Some(requested), Reason::default());
        harness.settle(&attempt, busy);
        let Step::Wait(Some(until)) = harness.poll() else {
            panic!("an attempt at once");
        };
        assert!(until >= harness.after(SECOND), "{requested:?}");
        // A stop cuts the session's own delay short, but not the server's.
        let not_before = harness.after(requested);
        harness.stop(10 * SECOND);
        if !requested.is_zero() {
            assert_eq!(harness.poll(), Step::Wait(Some(not_before)));
        }
        harness.now = not_before;
        assert!(matches!(harness.poll(), Step::Send(_)));
    }
}

#[test]
fn errors_and_critical_events_go_an_eighth_beyond_the_limits_of_a_full_queue() {
    let mut harness = Harness::new(|options| {
        options.max_queue_size = 16;
        options.flush_threshold = 16;
    });
    harness.log_many(16);
    assert_eq!(
        harness.push("ordinary", Priority::Ordinary),
        Err(Refusal::QueueFull)
    );
    let urgent = |is_important| Priority::Urgent { is_important };
    assert_eq!(
        harness.push("warning", urgent(false)),
        Err(Refusal::QueueFull)
    );
    // Again and again, not just once.
    for _ in 0..3 {
        assert_eq!(harness.push("error", Priority::Important), Ok(()));
        assert_eq!(harness.push("exception", urgent(true)), Ok(()));
        assert_eq!(
            harness.push("one too many", Priority::Important),
            Err(Refusal::QueueFull)
        );
        assert_eq!(
            harness.push("ordinary", Priority::Ordinary),
            Err(Refusal::QueueFull)
        );
        while harness.engine.stats().queued > 0 {
            harness.deliver();
        }
        harness.log_many(16);
    }
    // The place of a fatal exception is beside the reserve.
    assert_eq!(harness.push("error", Priority::Important), Ok(()));
    assert_eq!(harness.push("error", Priority::Important), Ok(()));
    assert_eq!(harness.fatal("fatal"), Ok(()));
    assert_eq!(harness.fatal("another"), Err(Refusal::QueueFull));
}

#[test]
fn a_queue_that_cannot_be_given_more_memory_names_no_option() {
    let mut harness = Harness::with_memory(8_000, |_| {});
    while harness.log("ordinary") {}
    let used = harness.engine.stats().queued_bytes;
    let notice = harness.engine.next_notice(harness.now, false);
    let notice = notice.expect("the queue is full");
    assert_eq!(notice.kind, DiagnosticKind::QueueFull);
    assert_eq!((notice.limit, notice.limit_name), (Some(used), None));
    assert!((7_000..=8_000).contains(&used));
}

#[test]
fn the_reserve_for_errors_also_counts_in_bytes_and_can_be_switched_off() {
    let fill = |reserve| {
        let mut harness = Harness::new(|options| {
            options.max_event_bytes = 512;
            options.max_batch_bytes = 1_000;
            options.max_queue_bytes = 8_000;
            options.reserve = reserve;
        });
        while harness.log("ordinary") {}
        let before = harness.engine.stats().queued_bytes;
        while harness.push("error", Priority::Important).is_ok() {}
        let after = harness.engine.stats().queued_bytes;
        assert!(before <= 8_000);
        after.saturating_sub(8_000)
    };
    assert!((700..=1_000).contains(&fill(None)), "{}", fill(None));
    assert!((1_700..=2_000).contains(&fill(Some(4))));
    assert_eq!(fill(Some(0)), 0);
}

#[test]
fn a_rejected_batch_is_dropped_immediately_and_does_not_block_the_next() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(200);
    let rejected = harness.attempt();
    harness.settle(
        &rejected,
        SendOutcome::Rejected(Reason::new("HTTP status 401")),
    );
    assert_eq!(harness.deliver().events.len(), 100);
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.rejected, stats.delivered), (100, 100));
}

#[test]
fn a_batch_that_is_too_large_is_halved_down_to_the_oversized_event() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(100);
    let (mut keys, mut requests, mut last_index) = (vec![], 0, None);
    while harness.engine.stats().queued > 0 {
        let attempt = harness.attempt();
        requests += 1;
        assert!(!keys.contains(&attempt.attempt.key));
        keys.push(attempt.attempt.key);
        let has_oversized_event = attempt.names().contains(&"e37");
        if has_oversized_event {
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
    assert!(requests <= 22, "{requests}");
}

#[test]
fn a_full_queue_refuses_counts_and_reports_once() {
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
    harness.report(false);
    assert_eq!(harness.reported, [(DiagnosticKind::QueueFull, 10_000)]);
    // The backend can see the loss as a gap in the indexes.
    harness.deliver();
    assert!(harness.log("next"));
    harness.flush();
    assert_eq!(harness.deliver().attempt.first_index, 10_010);
}

#[test]
fn a_watermark_is_reached_when_everything_before_it_is_settled() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(150);
    let (watermark, _) = harness.engine.request_flush();
    assert_eq!(watermark, Goal::events(150));
    harness.log("later");
    harness.deliver();
    assert!(!harness.engine.is_reached(watermark));
    harness.deliver();
    assert!(harness.engine.is_reached(watermark));
}

#[test]
fn a_settled_batch_wakes_the_waiters() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.flush();
    let (woken, waker) = Woken::waker();
    let waiter = harness.engine.new_waiter();
    let changed = harness.engine.register(waiter, waker.clone());
    harness.wake(changed);
    let changed = harness.engine.register(waiter, waker.clone());
    harness.wake(changed);
    let (woken_after_removal, waker) = Woken::waker();
    let gone = harness.engine.new_waiter();
    let changed = harness.engine.register(gone, waker);
    harness.wake(changed);
    assert!(matches!(
        harness.engine.unregister(gone),
        Wakers::Retired(_)
    ));
    assert!(harness.engine.unregister(gone).is_none());
    let attempt = harness.attempt();
    harness.settle(&attempt, retryable());
    assert_eq!(woken.count(), 0);
    harness.advance(2 * SECOND);
    harness.deliver();
    assert_eq!((woken.count(), woken_after_removal.count()), (1, 0));
}

#[test]
fn an_unencodable_event_takes_an_index_and_a_scrubbed_one_does_not() {
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
    harness.flush();
    assert_eq!(harness.deliver().attempt.first_index, 3);
}

#[test]
fn a_driver_dropped_in_mid_send_leaves_its_batch_to_the_next_driver() {
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    let (watermark, _) = harness.engine.request_flush();
    let first = harness.attempt();
    assert_eq!(harness.engine.attach(), Err(AlreadyDriven));
    let changed = harness.engine.detach();
    harness.wake(changed);
    assert!(harness.engine.is_reached(watermark));
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
fn copying_a_dropped_batch_yields_nothing() {
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
fn only_the_json_of_an_event_counts_against_max_event_bytes() {
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
    harness.flush();
    let indexes: Vec<_> = harness
        .deliver()
        .events
        .iter()
        .map(|e| e["event_session_index"].clone())
        .collect();
    assert_eq!(indexes, [0, 2]);
}

#[test]
fn a_large_batch_is_formed_in_steps() {
    let mut harness = Harness::new(|options| {
        options.max_batch_size = 1_000;
        options.flush_threshold = 1_000;
    });
    harness.log_many(999);
    let mut steps = 0;
    // It was not counted as its events came in, because it ends with another one.
    harness.stop(SECOND);
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
fn memory_is_returned_after_a_burst() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(5_000);
    assert!(harness.engine.ring.is_oversized());
    harness.flush();
    for _ in 0..50 {
        harness.deliver();
    }
    assert_eq!(harness.poll(), Step::Wait(Some(harness.after(SECOND))));
    harness.advance(SECOND);
    // The flush interval, for the next event.
    assert_eq!(harness.poll(), Step::Wait(Some(harness.after(9 * SECOND))));
    assert!(!harness.engine.ring.is_oversized());
}

#[test]
fn a_panicking_waker_does_not_keep_the_others_from_waking() {
    struct Panicking;
    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("from the test's waker");
        }
    }
    let mut harness = Harness::new(|_| {});
    harness.log("a");
    harness.flush();
    let (woken, good) = Woken::waker();
    for waker in [Waker::from(Arc::new(Panicking)), good] {
        let waiter = harness.engine.new_waiter();
        let changed = harness.engine.register(waiter, waker);
        harness.wake(changed);
    }
    harness.deliver();
    assert_eq!(woken.count(), 1);
}

#[test]
fn bytes_already_sent_do_not_make_the_next_batch_due() {
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
fn the_first_event_arms_the_flush_interval() {
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
    // The driver keeps its timer for one interval, in which an event need not wake it.
    let kept = harness.after(10 * SECOND);
    assert_eq!(harness.poll(), Step::Wait(Some(kept)));
    harness.now = kept;
    assert_eq!(harness.poll(), Step::Wait(None));
}

#[test]
fn a_zero_flush_interval_switches_the_timer_off() {
    let mut harness = Harness::new(|options| options.flush_interval = Duration::ZERO);
    harness.log("a");
    assert_eq!(harness.poll(), Step::Wait(None));
}

#[test]
fn halving_ends_at_the_original_end_of_the_batch() {
    let mut harness = Harness::new(|options| options.max_batch_size = 99);
    harness.log_many(110);
    let attempt = harness.attempt();
    assert_eq!(attempt.events.len(), 99);
    harness.settle(&attempt, SendOutcome::TooLarge(Reason::default()));
    harness.flush();
    let sizes: Vec<_> = (0..3).map(|_| harness.deliver().events.len()).collect();
    assert_eq!(sizes, [50, 49, 11]);
    assert_eq!(harness.engine.stats().queued, 0);
}
