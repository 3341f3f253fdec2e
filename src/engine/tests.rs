//! The engine's promises, one by one, with hand-moved time.

use super::testing::{World, retryable};
use super::{AlreadyDriven, Kind, Outcome, Step, Target};
use crate::diagnostic::DiagnosticKind;
use crate::stats::Refusal;
use crate::text::Why;
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
    let mut world = World::new(|_| {});
    world.log("a");
    world.engine.request_flush();
    let attempt = world.attempt();
    let sent_at = world.now;
    world.log("b");
    world.advance(3 * SECOND);
    world.settle(&attempt, Outcome::Delivered);
    assert_eq!(world.poll(), Step::Wait(sent_at.checked_add(10 * SECOND)));
}

#[test]
fn the_end_of_a_session_takes_the_bytes_of_its_json_and_no_more() {
    let mut world = World::new(|_| {});
    world.stop(SECOND);
    let queued = world.engine.stats().queued_bytes;
    let attempt = world.attempt();
    assert_eq!(attempt.names(), ["SESSION_END"]);
    assert_eq!(queued, attempt.ticket.json_bytes);
    world.settle(&attempt, Outcome::Delivered);
    assert_eq!(world.engine.stats().queued_bytes, 0);
}

#[test]
fn the_threshold_makes_a_batch_due_and_wakes_the_driver_once() {
    let mut world = World::new(|options| options.flush_threshold = 3);
    let (woken, waker) = Woken::waker();
    let push = |world: &mut World| {
        let body = br#","event":"x"}"#;
        let (result, waker) = world.engine.push(body, Kind::Ordinary);
        assert_eq!(result, Ok(()));
        waker.into_iter().for_each(Waker::wake);
    };
    push(&mut world);
    assert!(matches!(world.poll(), Step::Wait(Some(_))));
    assert!(world.engine.park(waker).is_ok());
    push(&mut world);
    assert_eq!(woken.count(), 0);
    push(&mut world);
    push(&mut world);
    assert_eq!(woken.count(), 1);
    assert_eq!(world.deliver().events.len(), 4);
}

#[test]
fn a_request_made_before_the_driver_sleeps_is_not_lost() {
    let mut world = World::new(|_| {});
    world.log("fatal right after start");
    assert!(matches!(world.poll(), Step::Wait(Some(_))));
    assert!(world.engine.request_flush().1.is_none());
    let (_, waker) = Woken::waker();
    assert!(world.engine.park(waker).is_err());
    assert!(matches!(world.poll(), Step::Send(_)));
}

#[test]
fn batches_go_out_in_order_and_within_their_size() {
    let mut world = World::new(|_| {});
    world.log_many(250);
    world.engine.request_flush();
    let sizes: Vec<_> = (0..3).map(|_| world.deliver().events.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(world.poll(), Step::Wait(None));
    assert_eq!(world.engine.stats().delivered, 250);
}

#[test]
fn batches_stay_within_their_bytes() {
    let mut world = World::new(|options| {
        options.max_event_bytes = 512;
        options.max_batch_bytes = 700;
        options.max_queue_bytes = 100_000;
    });
    world.log_many(20);
    world.engine.request_flush();
    let mut delivered = 0;
    while delivered < 20 {
        let attempt = world.deliver();
        assert!((1..=4).contains(&attempt.events.len()));
        delivered += attempt.events.len();
    }
}

#[test]
fn a_queue_that_fills_a_request_by_bytes_is_due_before_its_threshold() {
    let mut world = World::new(|options| {
        options.flush_threshold = 10_000;
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    world.log_many(12);
    assert!(matches!(world.poll(), Step::Send(_)));
}

#[test]
fn retries_back_off_with_the_same_key_and_the_same_bytes() {
    let mut world = World::new(|_| {});
    world.log("b");
    world.engine.request_flush();
    let first = world.attempt();
    let mut last = first.clone();
    for (attempt, seconds) in [(1, 1), (2, 2), (3, 4)] {
        world.settle(&last, retryable());
        let Step::Wait(Some(until)) = world.poll() else {
            panic!("no backoff");
        };
        let delay = until.saturating_duration_since(world.now);
        assert!(delay >= seconds * SECOND && delay <= seconds * SECOND * 11 / 10);
        world.now = until;
        last = world.attempt();
        assert_eq!(last.ticket.attempt, attempt);
        assert_eq!(last.ticket.key, first.ticket.key);
        assert_eq!(last.events, first.events);
    }
    world.settle(&last, retryable());
    assert_eq!(world.engine.stats().dropped.retries_exhausted, 1);
    assert!(matches!(world.poll(), Step::Wait(_)));
}

#[test]
fn a_batch_after_the_next_one_has_another_key() {
    let mut world = World::new(|_| {});
    world.log_many(101);
    let first = world.deliver();
    world.engine.request_flush();
    assert_ne!(world.deliver().ticket.key, first.ticket.key);
}

#[test]
fn what_the_server_asks_for_is_waited_up_to_the_cap() {
    for (asked, waited) in [(0, 0), (30, 30), (3_600, 60)] {
        let mut world = World::new(|_| {});
        world.log("a");
        world.engine.request_flush();
        let attempt = world.attempt();
        let wish = Some(asked * SECOND);
        world.settle(&attempt, Outcome::Retryable(wish, Why::default()));
        let until = world.after(waited * SECOND);
        if waited > 0 {
            assert_eq!(world.poll(), Step::Wait(Some(until)));
        }
        world.now = until;
        assert!(matches!(world.poll(), Step::Send(_)));
    }
}

#[test]
fn a_rejected_batch_is_dropped_at_once_and_does_not_block_the_next() {
    let mut world = World::new(|_| {});
    world.log_many(200);
    let poisoned = world.attempt();
    world.settle(&poisoned, Outcome::Rejected(Why::new("HTTP status 401")));
    assert_eq!(world.deliver().events.len(), 100);
    let stats = world.engine.stats();
    assert_eq!((stats.dropped.rejected, stats.delivered), (100, 100));
}

#[test]
fn a_batch_that_is_too_large_is_halved_down_to_the_event_that_is() {
    let mut world = World::new(|_| {});
    world.log_many(100);
    let (mut keys, mut requests, mut last_index) = (vec![], 0, None);
    while world.engine.stats().queued > 0 {
        let attempt = world.attempt();
        requests += 1;
        assert!(!keys.contains(&attempt.ticket.key));
        keys.push(attempt.ticket.key);
        let holds_the_large_one = attempt.names().contains(&"e37");
        if holds_the_large_one {
            world.settle(&attempt, Outcome::TooLarge(Why::new("HTTP status 413")));
        } else {
            assert!(last_index < Some(attempt.ticket.first_index));
            last_index = Some(attempt.ticket.first_index);
            world.settle(&attempt, Outcome::Delivered);
        }
    }
    let stats = world.engine.stats();
    assert_eq!((stats.dropped.too_large, stats.delivered), (1, 99));
    assert!(requests < 120, "{requests}");
}

#[test]
fn a_full_queue_refuses_counts_and_says_so_once() {
    let mut world = World::new(|options| {
        options.max_queue_size = 10;
        options.flush_threshold = 10;
    });
    world.log_many(10);
    for _ in 0..10_000 {
        assert!(!world.log("one too many"));
    }
    let stats = world.engine.stats();
    assert_eq!((stats.queued, stats.refused.queue_full), (10, 10_000));
    world.tell(false);
    assert_eq!(world.told, [(DiagnosticKind::QueueFull, 10_000)]);
    // The loss is a gap in the sequence that the backend can see.
    world.deliver();
    assert!(world.log("next"));
    world.engine.request_flush();
    assert_eq!(world.deliver().ticket.first_index, 10_010);
}

#[test]
fn a_wait_is_over_when_what_came_before_it_is_settled() {
    let mut world = World::new(|_| {});
    world.log_many(150);
    let (target, _) = world.engine.request_flush();
    assert_eq!(target, Target(150));
    world.log("later");
    world.deliver();
    assert!(!world.engine.is_over(target));
    world.deliver();
    assert!(world.engine.is_over(target));
}

#[test]
fn a_settled_batch_wakes_those_who_wait() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.engine.request_flush();
    let (woken, waker) = Woken::waker();
    let waiter = world.engine.new_waiter();
    world.engine.register(waiter, waker.clone()).finish();
    world.engine.register(waiter, waker.clone()).finish();
    let (woken_in_vain, waker) = Woken::waker();
    let gone = world.engine.new_waiter();
    world.engine.register(gone, waker).finish();
    assert!(world.engine.unregister(gone).is_some());
    assert!(world.engine.unregister(gone).is_none());
    let attempt = world.attempt();
    world.settle(&attempt, retryable());
    assert_eq!(woken.count(), 0);
    world.advance(2 * SECOND);
    world.deliver();
    assert_eq!((woken.count(), woken_in_vain.count()), (1, 0));
}

#[test]
fn a_value_that_cannot_be_encoded_takes_an_index_and_one_that_was_scrubbed_does_not() {
    let mut world = World::new(|_| {});
    let _ = world.engine.refuse_because(Refusal::Scrubbed, None);
    let _ = world.engine.refuse_because(Refusal::Unencodable, None);
    let _ = world.engine.refuse_because(Refusal::ScrubPanicked, None);
    let _ = world.engine.refuse_because(Refusal::EventTooLarge, None);
    assert!(world.log("e"));
    world.engine.note_truncated();
    let refused = world.engine.stats().refused;
    assert_eq!((refused.scrubbed, refused.unencodable), (1, 1));
    assert_eq!((refused.scrub_panicked, refused.event_too_large), (1, 1));
    assert_eq!(world.engine.stats().truncated, 1);
    world.engine.request_flush();
    assert_eq!(world.deliver().ticket.first_index, 3);
}

#[test]
fn a_driver_that_is_dropped_in_mid_send_leaves_its_batch_for_another() {
    let mut world = World::new(|_| {});
    world.log("a");
    let (target, _) = world.engine.request_flush();
    let first = world.attempt();
    assert_eq!(world.engine.attach(), Err(AlreadyDriven));
    world.engine.detach().wake();
    assert!(world.engine.is_over(target));
    assert!(!world.engine.stats().driver_alive);
    assert_eq!(world.engine.stats().queued, 1);

    assert_eq!(world.engine.attach(), Ok(()));
    let second = world.attempt();
    assert_eq!(second.ticket.key, first.ticket.key);
    assert_eq!(second.ticket.attempt, 1);
    assert_eq!(second.events, first.events);
    world.settle(&first, Outcome::Delivered);
    assert_eq!(world.engine.stats().delivered, 0);
    world.settle(&second, Outcome::Delivered);
    assert_eq!(world.engine.stats().delivered, 1);
}

#[test]
fn a_copy_of_a_batch_that_is_gone_is_empty() {
    let mut world = World::new(|_| {});
    world.log("a");
    world.stop(SECOND);
    let attempt = world.attempt();
    world.advance(SECOND);
    world.poll();
    let mut out = [0; 16];
    assert_eq!(world.engine.copy(&mut attempt.ticket.cursor(), &mut out), 0);
}

#[test]
fn an_event_is_too_large_by_its_own_json_alone() {
    let mut world = World::new(|options| {
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    let body = |len: usize| {
        let mut body = br#","x":""#.to_vec();
        body.resize(len - 2, b'x');
        body.extend_from_slice(b"\"}");
        body
    };
    let fits = 512 - crate::event::encode::Front::MIN;
    assert_eq!(world.engine.push(&body(fits), Kind::Ordinary).0, Ok(()));
    let (result, _) = world.engine.push(&body(fits + 1), Kind::Ordinary);
    assert_eq!(result, Err(Refusal::EventTooLarge));
    assert!(world.log("next"));
    world.engine.request_flush();
    let indexes: Vec<_> = world
        .deliver()
        .events
        .iter()
        .map(|e| e["event_session_index"].clone())
        .collect();
    assert_eq!(indexes, [0, 2]);
}

#[test]
fn a_large_batch_is_put_together_in_steps() {
    let mut world = World::new(|options| {
        options.max_batch_size = 1_000;
        options.flush_threshold = 1_000;
    });
    world.log_many(1_000);
    let mut steps = 0;
    let ticket = loop {
        match world.engine.poll(world.now) {
            Step::Again => steps += 1,
            Step::Send(ticket) => break ticket,
            other => panic!("{other:?}"),
        }
    };
    assert!(steps >= 7, "{steps}");
    assert_eq!(world.read(ticket, 256).events.len(), 1_000);
}

#[test]
fn memory_comes_back_when_a_burst_is_over() {
    let mut world = World::new(|_| {});
    world.log_many(5_000);
    assert!(world.engine.ring.is_oversized());
    world.engine.request_flush();
    for _ in 0..50 {
        world.deliver();
    }
    assert_eq!(world.poll(), Step::Wait(Some(world.after(SECOND))));
    world.advance(SECOND);
    assert_eq!(world.poll(), Step::Wait(None));
    assert!(!world.engine.ring.is_oversized());
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test's");
        }
    }
    let mut world = World::new(|_| {});
    world.log("a");
    world.engine.request_flush();
    let (woken, good) = Woken::waker();
    for waker in [Waker::from(Arc::new(Bad)), good] {
        let waiter = world.engine.new_waiter();
        world.engine.register(waiter, waker).finish();
    }
    world.deliver();
    assert_eq!(woken.count(), 1);
}

#[test]
fn what_an_interval_has_sent_does_not_make_the_next_queue_due() {
    let mut world = World::new(|options| {
        options.flush_threshold = 10_000;
        options.max_event_bytes = 512;
        options.max_batch_bytes = 1_000;
    });
    for _ in 0..4 {
        world.log_many(2);
        assert!(matches!(world.poll(), Step::Wait(Some(_))));
        world.advance(10 * SECOND);
        assert_eq!(world.deliver().events.len(), 2);
    }
}

#[test]
fn the_first_event_arms_the_interval_and_the_interval_sends_it() {
    let mut world = World::new(|_| {});
    assert_eq!(world.poll(), Step::Wait(None));
    assert!(world.log("a"));
    let due = world.after(10 * SECOND);
    assert_eq!(world.poll(), Step::Wait(Some(due)));
    world.advance(4 * SECOND);
    assert!(world.log("b"));
    assert_eq!(world.poll(), Step::Wait(Some(due)));
    world.now = due;
    assert_eq!(world.deliver().names(), ["a", "b"]);
    assert_eq!(world.poll(), Step::Wait(None));
}

#[test]
fn a_zero_interval_sends_nothing_by_itself() {
    let mut world = World::new(|options| options.flush_interval = Duration::ZERO);
    world.log("a");
    assert_eq!(world.poll(), Step::Wait(None));
}

#[test]
fn pieces_of_a_split_batch_stop_at_its_original_end() {
    let mut world = World::new(|options| options.max_batch_size = 99);
    world.log_many(110);
    let attempt = world.attempt();
    assert_eq!(attempt.events.len(), 99);
    world.settle(&attempt, Outcome::TooLarge(Why::default()));
    world.engine.request_flush();
    let sizes: Vec<_> = (0..3).map(|_| world.deliver().events.len()).collect();
    assert_eq!(sizes, [50, 49, 11]);
}
