//! Progress: what is accepted, settled and left, and when a wait for it is over.

use super::{Engine, Watermark};
use crate::stats::Stats;

/// What a wait waits for: how many events are settled, and how many loss reports, which have no position, besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) events: u64,
    #[cfg(has_arc)]
    pub(crate) reports: u64,
}

impl Goal {
    /// So many events, whatever kind they are of.
    pub(crate) const fn events(events: u64) -> Self {
        Self {
            events,
            #[cfg(has_arc)]
            reports: 0,
        }
    }

    /// How many events and reports are left to this goal from `settled`.
    pub(crate) const fn left(&self, settled: &Self) -> u64 {
        let left = self.events.saturating_sub(settled.events);
        #[cfg(has_arc)]
        let left = left + self.reports.saturating_sub(settled.reports);
        left
    }
}

impl Engine {
    /// The ledger, and the state of the session.
    pub(crate) fn stats(&self) -> Stats {
        #[cfg(has_arc)]
        let (reports, report_bytes) = (self.report.made(), self.report.json().len());
        #[cfg(not(has_arc))]
        let (reports, report_bytes) = (0, 0);
        Stats {
            accepted: self.ledger.accepted + reports,
            delivered: self.ledger.delivered,
            handed_over: self.ledger.handed_over,
            dropped: self.ledger.dropped,
            refused: self.ledger.refused.all(),
            truncated: self.ledger.truncated,
            reports,
            queued: self.queued(),
            queued_bytes: self.ring.used() + self.end_json().len() + report_bytes,
            session_ended: !self.end.is_open(),
            driver_alive: self.driver.is_attached,
        }
    }

    /// All that is accepted.
    pub(super) fn accepted_goal(&self) -> Goal {
        Goal {
            #[cfg(has_arc)]
            reports: self.report.made(),
            ..Goal::events(self.ledger.accepted)
        }
    }

    /// All that is settled.
    pub(crate) fn settled_goal(&self) -> Goal {
        Goal {
            #[cfg(has_arc)]
            reports: self.report.settled(),
            ..Goal::events(self.settled().0)
        }
    }

    /// Whether a wait for `goal` is over: its events are settled, or there is no driver to settle them.
    pub(crate) fn is_reached(&self, goal: Goal) -> bool {
        if !self.driver.is_attached {
            return true;
        }
        // Nothing is accepted after a stop, so whatever waits then waits for the report, too.
        #[cfg(has_arc)]
        if self.is_stopping && self.report.unsettled() > 0 {
            return false;
        }
        goal.left(&self.settled_goal()) == 0
    }

    /// How many events are settled, loss reports not included.
    pub(super) fn settled(&self) -> Watermark {
        let settled = self.ledger.settled();
        #[cfg(has_arc)]
        let settled = settled - self.report.settled();
        Watermark(settled)
    }

    pub(super) fn queued(&self) -> u64 {
        let queued = self.ring.records() as u64 + u64::from(self.end.is_queued());
        #[cfg(has_arc)]
        let queued = queued + self.report.unsettled();
        queued
    }
}
