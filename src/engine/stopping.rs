//! The end of a session: `SESSION_END` and its place, a stop and its deadline.

use super::{Engine, Phase, Shape, Target, Wakers};
use crate::diagnostic::DiagnosticKind;
use crate::encode::{Front, SessionEnd};
use crate::stats::DropReason;
use crate::time::Instant;
use core::task::Waker;

/// `SESSION_END`: a slot beside the ring, so that a full queue cannot refuse it, and one alone, so that there is never
/// a second.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the slot is there from the start, so that nothing can take its memory away"
)]
pub(super) enum End {
    Open,
    /// Its place among the accepted events.
    Queued {
        position: u64,
        index: u64,
        json: heapless::Vec<u8, 256>,
    },
    Settled,
}

impl End {
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) const fn is_queued(&self) -> bool {
        matches!(self, Self::Queued { .. })
    }

    pub(super) fn json(&self) -> &[u8] {
        match self {
            Self::Queued { json, .. } => json,
            Self::Open | Self::Settled => &[],
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.json().len()
    }

    pub(super) fn queued_bytes_on_wire(&self) -> Option<usize> {
        self.is_queued().then(|| self.json().len())
    }

    pub(super) fn index(&self) -> u64 {
        match self {
            Self::Queued { index, .. } => *index,
            Self::Open | Self::Settled => 0,
        }
    }
}

/// A stop that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) deadline: Option<Instant>,
}

impl Engine {
    /// `SESSION_END` takes the next place in the queue, unless the session has ended already.
    pub(super) fn queue_end(&mut self, tail: &SessionEnd) {
        if !self.end.is_open() {
            return;
        }
        let index = self.next_index;
        self.next_index += 1;
        let front = Front::new(self.random.uuid(), index);
        let mut json = heapless::Vec::new();
        // Front and tail are shorter than the slot, whatever they say.
        let _ = json.resize(front.len(), 0);
        front.write(&mut json);
        let _ = json.extend_from_slice(tail.as_bytes());
        self.end = End::Queued {
            position: self.ledger.accepted,
            index,
            json,
        };
        self.ledger.accepted += 1;
    }

    /// What [`Kind::Fatal`](super::Kind) does, for an exception that is queued already. The waker, if any, is to be
    /// woken.
    pub(crate) fn end(&mut self, tail: &SessionEnd) -> Option<Waker> {
        if self.stop.is_some() {
            return None;
        }
        self.notices.add(DiagnosticKind::ExceptionLogged, 1);
        self.queue_end(tail);
        self.make_all_due();
        self.driver.wake()
    }

    /// Ends the session: `SESSION_END` unless it was sent, everything due at once, nothing more accepted. A later call
    /// changes nothing about the first one's deadline. The wakers are to be woken.
    pub(crate) fn begin_stop(
        &mut self,
        deadline: Option<Instant>,
        tail: &SessionEnd,
    ) -> (Target, Wakers) {
        let mut wakers = Wakers::default();
        if self.stop.is_none() {
            self.queue_end(tail);
            self.stop = Some(Stop { deadline });
            self.make_all_due();
            wakers = self.hurry();
        }
        wakers.driver = wakers.driver.take().or_else(|| self.driver.wake());
        (Target(self.ledger.accepted), wakers)
    }

    /// Whether a stop has begun.
    #[cfg(feature = "std")]
    pub(crate) const fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// A backoff is cut short by a stop. What the server asked for is not, so it may be too late already.
    fn hurry(&mut self) -> Wakers {
        let Some(in_flight) = &mut self.in_flight else {
            return Wakers::default();
        };
        match &mut in_flight.phase {
            Phase::Sending { .. } => Wakers::default(),
            Phase::Retry {
                until,
                is_servers_wish: false,
            } => {
                *until = Instant::ORIGIN;
                Wakers::default()
            }
            Phase::Retry { until, .. } => {
                let until = *until;
                if self.stop_ends_before(until) {
                    self.abandon()
                } else {
                    Wakers::default()
                }
            }
        }
    }

    /// When a stop that has begun gives up.
    pub(crate) fn stop_deadline(&self) -> Option<Instant> {
        self.stop.and_then(|stop| stop.deadline)
    }

    pub(super) fn stop_is_over(&self, now: Instant) -> bool {
        self.stop_deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn stop_ends_before(&self, at: Instant) -> bool {
        self.stop_deadline().is_some_and(|deadline| deadline < at)
    }

    /// Drops what is left once a stop's deadline has come. Waiters call it too. The wakers, if any, are to be woken.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Wakers> {
        (self.stop_is_over(now) && self.queued() > 0).then(|| self.abandon())
    }

    pub(super) fn abandon(&mut self) -> Wakers {
        let left = self.queued();
        self.ledger.dropped.add(DropReason::Shutdown, left);
        self.notices.add(DiagnosticKind::Shutdown, left);
        self.ring.clear();
        self.end = End::Settled;
        self.in_flight = None;
        self.forming = Shape::default();
        self.split = None;
        let mut wakers = self.waiters.take();
        wakers.driver = self.driver.wake();
        wakers
    }
}
