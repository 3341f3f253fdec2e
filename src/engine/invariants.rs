//! What holds between any two calls of the engine, whatever came before.
//!
//! Builds with debug assertions check the list after each turn with a session's engine, so every test and every
//! simulated seed does.

use super::Engine;
use super::batch::{InFlight, Phase};
use super::stopping::End;

impl Engine {
    /// Panics in builds with debug assertions when an invariant is violated; otherwise it is empty.
    #[inline(always)]
    pub(crate) fn check(&self) {
        if cfg!(debug_assertions) {
            self.check_ledger();
            self.check_end();
            self.check_batch();
            self.check_stop();
        }
    }

    /// Every accepted event is settled or queued; each has an index of its own, and is due only if it was accepted.
    fn check_ledger(&self) {
        let (accepted, settled) = (self.ledger.accepted, self.ledger.settled());
        debug_assert_eq!(
            accepted,
            settled + self.queued(),
            "the ledger does not balance"
        );
        debug_assert!(self.next_index >= accepted, "an index was given twice");
        debug_assert!(
            self.flush_watermark.0 <= accepted,
            "events are due that do not exist"
        );
        debug_assert!(self.ring.used() <= self.options.max_queue_bytes + self.options.reserve());
        debug_assert!(self.ring.records() <= self.options.max_queue_size.saturating_add(1));
    }

    /// `SESSION_END` has a place among the accepted events that are not settled, and its JSON is there.
    fn check_end(&self) {
        if let End::Queued { position, index } = self.end {
            debug_assert!(self.ledger.settled() <= position && position < self.ledger.accepted);
            debug_assert!(index < self.next_index);
            debug_assert!(
                !self.end_json().is_empty(),
                "SESSION_END is queued without its JSON"
            );
        }
    }

    /// What is in flight is at the ring's head; while it is, no other batch is formed; only a driver sends.
    fn check_batch(&self) {
        if let Some(in_flight) = &self.in_flight {
            let InFlight { extent, phase, .. } = in_flight;
            debug_assert!(extent.events() > 0, "an empty batch is in flight");
            debug_assert!(extent.records <= self.ring.records());
            debug_assert!(extent.ring_bytes <= self.ring.used());
            debug_assert!(extent.json_bytes <= self.options.batch_budget);
            debug_assert!(!extent.with_end || self.end.is_queued());
            debug_assert_eq!(self.forming.events(), 0, "two batches at once");
            let is_sending = matches!(phase, Phase::Sending { .. });
            debug_assert!(
                !is_sending || self.driver.is_attached,
                "no driver sends this"
            );
        }
        debug_assert!(self.forming.records <= self.ring.records());
        debug_assert!(self.forming.ring_bytes <= self.ring.used());
    }

    /// Nothing follows a stop: `SESSION_END` is queued or settled, and only a stop has a deadline.
    fn check_stop(&self) {
        debug_assert!(
            !self.is_stopping || !self.end.is_open(),
            "a stop without SESSION_END"
        );
        debug_assert!(self.is_stopping || self.stop_deadline.is_none());
    }
}
