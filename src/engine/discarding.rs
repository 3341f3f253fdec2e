//! Withdrawn consent: a session that is switched off at run time, and a queue that is discarded.

use super::{BatchExtent, Engine, Wakers};
use crate::stats::DropReason;

impl Engine {
    /// Switches the session off or on. While it is off it accepts nothing, not even its own `SESSION_END`.
    pub(crate) fn set_enabled(&mut self, is_enabled: bool) {
        self.is_disabled = !is_enabled;
    }

    /// Drops everything that is queued, an attempt under way included. Returns how many events these were.
    pub(crate) fn discard(&mut self) -> (u64, Wakers) {
        let discarded = self.queued();
        #[cfg(has_arc)]
        self.note_discarded();
        self.ledger.dropped.add(DropReason::Discarded, discarded);
        self.empty_queue();
        self.bytes_since_flush = 0;
        self.awaits_writer = false;
        (discarded, Wakers::All(self.driver.take_waker()))
    }

    /// Removes everything that is queued; the caller has counted it.
    pub(super) fn empty_queue(&mut self) {
        self.ring.clear();
        self.settle_end();
        #[cfg(has_arc)]
        self.report.drop_all();
        self.in_flight = None;
        self.forming = BatchExtent::default();
        self.halving = None;
    }
}
