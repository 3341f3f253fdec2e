//! Halving: a batch that the server refuses is sent in smaller pieces, until the events at fault stand alone.
//!
//! The cap on a piece halves with each refusal and doubles with each delivery, so that one invalid event costs a number
//! of requests that grows with the logarithm of the batch. If nothing is delivered within an allowance of requests, the
//! fault is taken to be the request's (a platform or a session that the server does not take), and the rest is dropped.

use super::batch::BatchExtent;
use super::{Engine, InFlight, Wakers};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::HEADER;
use crate::stats::DropReason;
use crate::text::Reason;
use core::num::NonZero;

/// Why a request was refused, where smaller ones may fare better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The server finds an event invalid.
    Invalid,
    TooLarge,
    /// The connection broke while the request was being sent, in every attempt.
    Broke,
}

impl Refused {
    const fn drop_reason(self) -> DropReason {
        match self {
            Self::Invalid => DropReason::Rejected,
            Self::TooLarge => DropReason::TooLarge,
            Self::Broke => DropReason::RetriesExhausted,
        }
    }
}

/// Whether the server is known to take this session's requests, whatever their events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Acceptance {
    #[default]
    Unknown,
    /// It took one.
    Proven,
    /// It refused all pieces of a batch. Later batches are not halved until one is delivered.
    Doubtful,
}

/// A refused batch that is being sent in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halving {
    /// Events per piece, at most.
    cap: NonZero<u32>,
    /// How many further requests may be refused before one is delivered; `u32::MAX` once one was.
    allowance: u32,
    /// The position of the batch's end.
    end: u64,
    why: Refused,
    /// An attempt at these events broke while it was being sent.
    broke: bool,
    /// The server has failed on these events again and again.
    #[cfg(has_arc)]
    failed: bool,
    is_spent: bool,
}

impl Halving {
    /// For a batch of `events` that begins at position `settled`, before its refusal is [noted](Self::refuse).
    fn new(settled: u64, events: u64, why: Refused) -> Self {
        let count = u32::try_from(events).unwrap_or(u32::MAX);
        Self {
            cap: NonZero::new(count).unwrap_or(NonZero::<u32>::MIN),
            allowance: 2 * events.next_power_of_two().ilog2() + 8,
            end: settled + events,
            why,
            broke: false,
            #[cfg(has_arc)]
            failed: false,
            is_spent: false,
        }
    }

    /// The maximum number of events of the next piece, which begins at position `settled`.
    pub(super) fn cap(&self, settled: u64) -> u64 {
        u64::from(self.cap.get()).min(self.end - settled)
    }

    fn refuse(&mut self, events: u64, why: Refused) {
        self.why = why;
        self.broke |= why == Refused::Broke;
        self.halve(events);
        if !self.has_delivered() {
            self.allowance = self.allowance.saturating_sub(1);
        }
    }

    /// Caps the next piece at half of the last one's events.
    fn halve(&mut self, events: u64) {
        let half = u32::try_from(events.div_ceil(2)).unwrap_or(u32::MAX);
        self.cap = NonZero::new(half).unwrap_or(NonZero::<u32>::MIN);
    }

    fn deliver(&mut self) {
        self.cap = self.cap.saturating_mul(NonZero::new(2).unwrap_or(self.cap));
        self.allowance = u32::MAX;
    }

    const fn has_delivered(&self) -> bool {
        self.allowance == u32::MAX
    }

    /// Whether an earlier attempt at these events broke while it was being sent.
    pub(super) const fn broke(&self) -> bool {
        self.broke
    }

    /// `SESSION_END`, the event at this position, is sent by itself.
    #[cfg(has_arc)]
    pub(super) fn leave_end(&mut self, position: u64) {
        self.end = self.end.min(position);
    }

    /// Whether the server has failed on these events again and again.
    #[cfg(has_arc)]
    pub(super) const fn failed(&self) -> bool {
        self.failed
    }
}

impl Engine {
    /// Drops a refused batch or, if it has several events, returns it to the queue to be sent in pieces.
    pub(super) fn refuse_batch(
        &mut self,
        in_flight: &InFlight,
        why: Refused,
        reason: Reason,
    ) -> Wakers {
        let extent = &in_flight.extent;
        let (events, settled) = (extent.events(), self.settled().0);
        // A size limit says nothing about the request itself.
        let is_whole = self.acceptance == Acceptance::Doubtful && why != Refused::TooLarge;
        if self.halving.is_none() && events > 1 && !is_whole {
            self.begin_halving(settled, events, why);
        }
        let may_go_on = match &mut self.halving {
            Some(halving) => {
                halving.refuse(events, why);
                halving.is_spent = halving.allowance == 0 && self.acceptance != Acceptance::Proven;
                !halving.is_spent
            }
            None => true,
        };
        if may_go_on && self.halving.is_some() && events > 1 {
            return Wakers::default();
        }
        let reason = if may_go_on {
            reason
        } else {
            Reason::new(format_args!("refused whatever its events: {reason}"))
        };
        self.drop_batch(extent, why.drop_reason(), reason);
        self.release(extent);
        Wakers::All(None)
    }

    /// Whether a piece of `events` events whose connection breaks has had its only attempt: what it is a piece of broke
    /// in all attempts. An event that stands alone while the server takes other pieces may have met an accident, such
    /// as a kept connection that the server has closed: it has all attempts.
    pub(super) fn is_halved_at_once(&self, events: u64) -> bool {
        self.halving
            .is_some_and(|halving| halving.broke && (events > 1 || !halving.has_delivered()))
    }

    fn begin_halving(&mut self, settled: u64, events: u64, why: Refused) {
        let halving = Halving::new(settled, events, why);
        // A loss report has no position.
        #[cfg(has_arc)]
        let halving = Halving {
            end: halving.end - u64::from(self.is_turn_of_report()),
            ..halving
        };
        // Forming the batch consumed what made it due; its pieces are still due for the same reason.
        self.flush_watermark.0 = self.flush_watermark.0.max(halving.end);
        self.halving = Some(halving);
    }

    /// Halves a batch or a piece that the session goes on trying: no allowance limits its pieces.
    #[cfg(has_arc)]
    pub(super) fn cut(&mut self, events: u64, broke: bool) {
        if self.halving.is_none() {
            self.begin_halving(self.settled().0, events, Refused::Broke);
        }
        if let Some(halving) = &mut self.halving {
            halving.broke |= broke;
            halving.failed |= !broke;
            halving.halve(events);
        }
    }

    /// Records that a batch or a piece was delivered.
    pub(super) fn note_delivered(&mut self) {
        self.acceptance = Acceptance::Proven;
        if let Some(halving) = &mut self.halving {
            halving.deliver();
        }
    }

    /// Whether the rest of a refused batch must be [dropped](Self::drop_refused).
    pub(super) fn is_allowance_spent(&self) -> bool {
        self.halving.is_some_and(|halving| halving.is_spent)
    }

    /// Ends the halving once all pieces are settled.
    pub(super) fn end_halving(&mut self) {
        let settled = self.settled().0;
        if let Some(halving) = self.halving.take_if(|halving| halving.end <= settled)
            && halving.allowance == 0
            && halving.why != Refused::TooLarge
        {
            self.acceptance = Acceptance::Doubtful;
        }
    }

    /// Drops the next events of a batch whose allowance is spent: not all at once, to hold the lock for a short time.
    pub(super) fn drop_refused(&mut self) -> Wakers {
        let Some(Halving {
            end,
            why,
            is_spent: true,
            ..
        }) = self.halving
        else {
            return Wakers::default();
        };
        let before_end = self.records_before_end();
        let left = end - self.settled().0;
        let mut extent = BatchExtent::default();
        while extent.events() < left.min(Self::FORM_STEP as u64) {
            if before_end == Some(extent.records as u64) {
                extent.with_end = true;
            } else if let Some(record) = self.ring.record(extent.ring_bytes) {
                extent.records += 1;
                extent.ring_bytes += HEADER + record.len;
            } else {
                break;
            }
        }
        let (reason, kind) = (why.drop_reason(), DiagnosticKind::of(why.drop_reason()));
        #[cfg(has_arc)]
        self.note_dropped(&extent, reason);
        self.ledger.dropped.add(reason, extent.events());
        // With the reason of the event dropped before.
        self.notices.add(kind, extent.events());
        self.release(&extent);
        Wakers::All(None)
    }
}
