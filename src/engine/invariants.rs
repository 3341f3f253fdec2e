//! The invariants that hold between any two engine calls.
//!
//! With debug assertions they are checked after every access to a session's engine, and so in every test and every
//! simulated seed.

use super::Engine;
use super::batch::{InFlight, Phase};
use super::options::Place;
use super::stopping::End;

impl Engine {
    /// Panics if an invariant is violated. Does nothing without debug assertions.
    #[inline(always)]
    pub(crate) fn check(&self) {
        if cfg!(debug_assertions) {
            self.check_ledger();
            self.check_end();
            self.check_batch();
            self.check_stop();
        }
    }

    /// Every accepted event is settled or queued and has its own index; only accepted events are due.
    fn check_ledger(&self) {
        let stats = self.stats();
        debug_assert!(
            stats.is_balanced(),
            "the ledger does not balance: {stats:?}"
        );
        let queued = self.ring.records() as u64 + u64::from(self.end.is_queued());
        let accepted = self.ledger.accepted;
        debug_assert_eq!(
            accepted,
            self.settled().0 + queued,
            "positions do not balance"
        );
        debug_assert!(self.next_index >= stats.accepted, "an index was used twice");
        debug_assert!(
            self.flush_watermark.0 <= accepted,
            "more events are due than exist"
        );
        let (size, bytes) = self.options.limits(Place::Fatal);
        debug_assert!(self.ring.used() <= bytes);
        debug_assert!(self.ring.records() <= size);
        #[cfg(feature = "std")]
        self.ring
            .groups()
            .check(self.ring.records(), self.ring.used());
    }

    /// A queued `SESSION_END` has a position among the unsettled events, and JSON.
    fn check_end(&self) {
        if let End::Queued { position, index } = self.end {
            debug_assert!(self.settled().0 <= position && position < self.ledger.accepted);
            debug_assert!(index < self.next_index);
            debug_assert!(
                !self.end_json().is_empty(),
                "SESSION_END is queued without its JSON"
            );
        }
    }

    /// A batch in flight is at the head of the ring, and no other is being formed; sending needs a driver.
    fn check_batch(&self) {
        if let Some(in_flight) = &self.in_flight {
            let InFlight { extent, phase, .. } = in_flight;
            debug_assert!(extent.events() > 0, "an empty batch is in flight");
            debug_assert!(extent.records <= self.ring.records());
            debug_assert!(extent.ring_bytes <= self.ring.used());
            debug_assert!(extent.json_bytes <= self.options.batch_budget);
            debug_assert!(!extent.with_end || self.end.is_queued());
            debug_assert_eq!(
                self.forming.events(),
                0,
                "a batch is formed while another is in flight"
            );
            let is_sending = matches!(phase, Phase::Sending { .. });
            debug_assert!(
                !is_sending || self.driver.is_attached,
                "a batch is being sent without a driver"
            );
        }
        debug_assert!(self.forming.records <= self.ring.records());
        debug_assert!(self.forming.ring_bytes <= self.ring.used());
    }

    /// After a stop `SESSION_END` is queued or settled; there is a deadline only with a stop.
    fn check_stop(&self) {
        debug_assert!(
            !self.is_stopping || !self.end.is_open(),
            "a stop without SESSION_END"
        );
        debug_assert!(self.is_stopping || self.stop_deadline.is_none());
    }
}

#[cfg(all(test, feature = "std", debug_assertions))]
mod tests {
    use super::super::Watermark;
    use super::super::testing::Harness;
    use crate::sys::panics::catch;
    use crate::time::Instant;

    type Violate = fn(&mut Harness);

    /// A session with a batch in flight and more events behind it.
    fn sending() -> Harness {
        let mut harness = Harness::new(|options| options.max_batch_size = 2);
        for _ in 0..5 {
            harness.log("event");
        }
        harness.flush();
        let _ = harness.attempt();
        harness
    }

    #[test]
    fn each_violated_invariant_is_found() {
        let violations: [(&str, Violate); 9] = [
            ("balance", |h| h.engine.ledger.delivered += 1),
            ("indices", |h| h.engine.next_index = 4),
            ("watermark", |h| h.engine.flush_watermark = Watermark(6)),
            ("queue", |h| h.engine.options.max_queue_size = 3),
            ("batch", |h| h.engine.options.batch_budget = 1),
            ("head", |h| {
                h.engine.in_flight.as_mut().unwrap().extent.records = 6
            }),
            ("forming", |h| h.engine.forming.records = 1),
            ("driver", |h| h.engine.driver.is_attached = false),
            ("deadline", |h| {
                h.engine.stop_deadline = Some(Instant::ORIGIN)
            }),
        ];
        for (name, violate) in violations {
            let mut harness = sending();
            harness.engine.check();
            violate(&mut harness);
            let checked = catch(|| harness.engine.check());
            assert!(checked.is_none(), "{name}");
        }
    }

    #[test]
    fn a_stopped_session_violates_none_unless_its_end_is_open() {
        let mut harness = sending();
        harness.stop(core::time::Duration::from_secs(1));
        harness.engine.check();
        harness.advance(core::time::Duration::from_secs(2));
        let _ = harness.poll();
        harness.engine.check();
        harness.engine.is_stopping = true;
        harness.engine.end = super::End::Open;
        assert!(catch(|| harness.engine.check()).is_none());
    }
}
