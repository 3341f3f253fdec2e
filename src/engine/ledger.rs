//! The ledger: counts what happened to every event.

use crate::stats::{Dropped, Refusal, Refused};

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) handed_over: u64,
    pub(super) dropped: Dropped,
    pub(super) refused: Counted,
    pub(super) truncated: u64,
}

impl Ledger {
    pub(super) fn settled(&self) -> u64 {
        self.delivered + self.handed_over + self.dropped.total()
    }
}

/// Counts of the refusals that reach the engine; the others are counted elsewhere.
#[derive(Default)]
pub(super) struct Counted {
    queue_full: u64,
    event_too_large: u64,
    unencodable: u64,
    session_ended: u64,
    disabled: u64,
    below_min_severity: u64,
    #[cfg(feature = "std")]
    scrubbed: u64,
    #[cfg(feature = "std")]
    scrub_panicked: u64,
    #[cfg(feature = "std")]
    own_work: u64,
}

impl Counted {
    pub(super) fn of(&mut self, refusal: Refusal) -> &mut u64 {
        match refusal {
            Refusal::QueueFull => &mut self.queue_full,
            Refusal::EventTooLarge => &mut self.event_too_large,
            Refusal::Unencodable => &mut self.unencodable,
            Refusal::Disabled => &mut self.disabled,
            Refusal::BelowMinSeverity => &mut self.below_min_severity,
            #[cfg(feature = "std")]
            Refusal::Scrubbed => &mut self.scrubbed,
            #[cfg(feature = "std")]
            Refusal::ScrubPanicked => &mut self.scrub_panicked,
            #[cfg(feature = "std")]
            Refusal::OwnWork => &mut self.own_work,
            _ => &mut self.session_ended,
        }
    }

    pub(super) fn all(&self) -> Refused {
        Refused {
            queue_full: self.queue_full,
            event_too_large: self.event_too_large,
            unencodable: self.unencodable,
            session_ended: self.session_ended,
            disabled: self.disabled,
            below_min_severity: self.below_min_severity,
            #[cfg(feature = "std")]
            scrubbed: self.scrubbed,
            #[cfg(feature = "std")]
            scrub_panicked: self.scrub_panicked,
            #[cfg(feature = "std")]
            own_work: self.own_work,
            ..Refused::default()
        }
    }
}
