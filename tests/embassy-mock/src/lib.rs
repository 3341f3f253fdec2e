//! The embassy runtime in simulated time: every interval, exact to the tick.
#![cfg(test)]

mod support;

use crate::support::{Memory, SECOND, elapsed, in_mock_time, pass, start};
use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::runtime::{Clock, Embassy};
use tinkex_telemetry::sim::ManualTransport;
use tinkex_telemetry::time::Instant;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, fields};

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn queued_events_are_sent_after_the_flush_interval() {
    in_mock_time(async |pool, _| {
        let memory = Memory::default();
        let reporter = start(pool, memory.clone());
        pass(3 * SECOND).await;
        reporter.log("x", fields! { n: 1 });
        pass(7 * SECOND - MILLISECOND).await;
        assert_eq!(memory.attempts(), []);
        pass(MILLISECOND).await;
        assert_eq!(memory.attempts(), [10 * SECOND]);
        assert_eq!(reporter.stats().delivered, 2);

        pass(60 * SECOND).await;
        assert_eq!(memory.attempts().len(), 1);
        reporter.log("x", fields! { n: 2 });
        pass(10 * SECOND).await;
        assert_eq!(memory.attempts()[1..], [80 * SECOND]);
    });
}

#[test]
fn attempts_back_off_by_one_two_and_four_seconds_plus_at_most_a_tenth() {
    in_mock_time(async |pool, _| {
        let memory = Memory::failing(3);
        let reporter = start(pool, memory.clone());
        reporter.flush();
        pass(Duration::ZERO).await;
        for (n, delay) in [1, 2, 4].into_iter().enumerate() {
            let delay = delay * SECOND;
            assert_eq!(memory.attempts().len(), n + 1);
            pass(delay - MILLISECOND).await;
            assert_eq!(memory.attempts().len(), n + 1, "{delay:?}");
            // Advance to the start of the next delay.
            while memory.attempts().len() == n + 1 {
                pass(Duration::from_micros(100)).await;
                let gap = elapsed() - memory.attempts()[n];
                assert!(gap <= delay + delay / 10 + MILLISECOND, "{gap:?}");
            }
            assert!(memory.attempts()[n + 1] - memory.attempts()[n] >= delay);
        }
        assert_eq!(reporter.stats().delivered, 1);
    });
}

#[test]
fn an_attempt_without_a_response_is_abandoned_at_http_timeout() {
    in_mock_time(async |pool, _| {
        let memory = Memory::silent();
        let reporter = start(pool, memory.clone());
        reporter.flush();
        pass(5 * SECOND - MILLISECOND).await;
        assert_eq!((memory.attempts().len(), memory.abandoned()), (1, vec![]));
        pass(MILLISECOND).await;
        assert_eq!(memory.abandoned(), [5 * SECOND]);
        pass(Duration::from_millis(1_100)).await;
        assert_eq!(memory.attempts().len(), 2);
    });
}

#[test]
fn a_stop_ends_at_its_deadline_whatever_the_transport_does() {
    in_mock_time(async |pool, tasks| {
        let memory = Memory::silent();
        let reporter = start(pool, memory.clone());
        let (drain, has_ended) = tasks.watch(reporter.stop(2 * SECOND));
        pass(2 * SECOND - MILLISECOND).await;
        assert!(!has_ended());
        pass(MILLISECOND).await;
        assert!(has_ended());
        let drain = drain.take().expect("it has ended");
        assert_eq!((drain.delivered, drain.remaining), (0, 2));
        assert_eq!(memory.abandoned(), [2 * SECOND]);
        assert_eq!(reporter.stats().dropped.shutdown, 2);
    });
}

#[test]
fn a_test_can_reply_to_sends() {
    in_mock_time(async |pool, _| {
        let transport = ManualTransport::new();
        let reporter = start(pool, transport.clone());
        pass(10 * SECOND - MILLISECOND).await;
        assert!(transport.next().is_none());
        pass(MILLISECOND).await;
        let send = transport.next().expect("the interval is over");
        assert_eq!((send.event_count(), send.attempt()), (1, 0));
        send.complete(Err(SendError::rejected("no")));
        pass(Duration::ZERO).await;
        assert_eq!(reporter.stats().dropped.rejected, 1);
    });
}

#[test]
fn sessions_in_one_pool_have_their_own_timers() {
    in_mock_time(async |pool, _| {
        let memories = [Memory::default(), Memory::default()];
        let early = start(pool, memories[0].clone());
        pass(4 * SECOND).await;
        let late = start(pool, memories[1].clone());
        pass(6 * SECOND).await;
        assert_eq!(memories[0].attempts(), [10 * SECOND]);
        assert_eq!(memories[1].attempts(), []);
        pass(4 * SECOND).await;
        assert_eq!(memories[1].attempts(), [14 * SECOND]);
        assert_eq!(early.stats().delivered + late.stats().delivered, 2);
    });
}

#[test]
fn a_driver_in_the_programs_own_task_flushes_on_time_too() {
    /// Counts in an `Rc`, which cannot leave its thread.
    struct Local(Memory, Rc<Cell<usize>>);

    impl LocalTransport for Local {
        async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
            self.1.set(self.0.note_attempt());
            Ok(Receipt::delivered())
        }
    }

    in_mock_time(async |_, tasks| {
        let memory = Memory::default();
        let count = Rc::new(Cell::new(0));
        let builder = Reporter::builder("s").transport(Local(memory.clone(), Rc::clone(&count)));
        let builder = builder.clock(Embassy).enabled(true);
        let (_reporter, driver) = builder.build().expect("it builds");
        tasks.spawn(driver.run_local());
        pass(10 * SECOND - MILLISECOND).await;
        assert_eq!(memory.attempts(), []);
        pass(MILLISECOND).await;
        assert_eq!(memory.attempts(), [10 * SECOND]);
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn a_sleep_ends_at_its_tick_and_not_before() {
    in_mock_time(async |_, tasks| {
        let at = Embassy
            .now()
            .checked_add(Duration::from_micros(1_500))
            .expect("it is near");
        let (_, has_ended) = tasks.watch(Embassy.sleep_until(at));
        let (_, has_reached_the_end_of_time) =
            tasks.watch(Embassy.sleep_until(Instant::from_micros(u64::MAX)));
        pass(Duration::from_micros(1_499)).await;
        assert!(!has_ended());
        pass(Duration::from_micros(1)).await;
        assert!(has_ended());
        pass(1_000_000 * SECOND).await;
        assert!(!has_reached_the_end_of_time());
        assert!(elapsed() > 1_000_000 * SECOND);
    });
}
