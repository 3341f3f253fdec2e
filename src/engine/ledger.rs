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

/// A firmware that refuses four thousand million events for one reason counts no further.
#[cfg(feature = "std")]
type Count = u64;
#[cfg(not(feature = "std"))]
type Count = u32;

/// Counts of the refusals that reach the engine; the others are counted elsewhere.
#[derive(Default)]
pub(super) struct Counted {
    queue_full: Count,
    event_too_large: Count,
    unencodable: Count,
    session_ended: Count,
    disabled: Count,
    below_min_severity: Count,
    #[cfg(feature = "std")]
    scrubbed: Count,
    #[cfg(feature = "std")]
    scrub_panicked: Count,
    #[cfg(feature = "std")]
    own_work: Count,
}

impl Counted {
    pub(super) fn add(&mut self, refusal: Refusal) {
        let count = self.of(refusal);
        *count = count.saturating_add(1);
    }

    fn of(&mut self, refusal: Refusal) -> &mut Count {
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

    #[cfg_attr(
        feature = "std",
        expect(clippy::useless_conversion, reason = "no conversion where it is wide")
    )]
    fn wide(count: Count) -> u64 {
        u64::from(count)
    }

    pub(super) fn all(&self) -> Refused {
        Refused {
            queue_full: Self::wide(self.queue_full),
            event_too_large: Self::wide(self.event_too_large),
            unencodable: Self::wide(self.unencodable),
            session_ended: Self::wide(self.session_ended),
            disabled: Self::wide(self.disabled),
            below_min_severity: Self::wide(self.below_min_severity),
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
