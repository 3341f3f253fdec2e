//! The end of a session: `SESSION_END` and its place, a stop and its deadline.

use super::{Engine, Phase, Shape, Target, Wakers};
use crate::diagnostic::DiagnosticKind;
use crate::event::encode::{Front, SessionEnd};
use crate::stats::DropReason;
use crate::time::Instant;
use core::task::Waker;

/// `SESSION_END`: not a record of the ring, so that a full queue cannot refuse it, and one alone, so that there is never
/// a second.
#[derive(Debug)]
pub(super) enum End {
    Open,
    /// Its place among the accepted events.
    Queued {
        position: u64,
        index: u64,
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

    pub(super) fn index(&self) -> u64 {
        match self {
            Self::Queued { index, .. } => *index,
            Self::Open | Self::Settled => 0,
        }
    }
}

/// The most bytes that the JSON of `SESSION_END` has: 206 at the end of time.
pub(crate) const END_BYTES: usize = 208;

/// Where the JSON of `SESSION_END` is kept. It is there from the start, so that nothing can take its memory away.
pub(crate) struct EndSlot {
    #[cfg(feature = "alloc")]
    bytes: [u8; END_BYTES],
    /// Of the memory that the program gave for its queue.
    #[cfg(not(feature = "alloc"))]
    bytes: &'static mut [u8],
    len: usize,
}

#[cfg(feature = "alloc")]
impl EndSlot {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; END_BYTES],
            len: 0,
        }
    }

    pub(crate) fn within(_: &'static mut [u8]) -> Self {
        Self::new()
    }
}

#[cfg(not(feature = "alloc"))]
impl EndSlot {
    pub(crate) fn within(bytes: &'static mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }
}

impl EndSlot {
    fn write(&mut self, front: Front, tail: &SessionEnd) {
        let (front_len, len) = (front.len(), front.len() + tail.len());
        // It is as large as the longest of them.
        if let Some(json) = self.bytes.get_mut(..len)
            && let Some((front_space, tail_space)) = json.split_at_mut_checked(front_len)
        {
            front.write(front_space);
            tail_space.copy_from_slice(tail.as_bytes());
            self.len = len;
        }
    }
}

impl Engine {
    /// `SESSION_END` takes the next place in the queue, unless the session has ended already.
    pub(super) fn queue_end(&mut self, tail: &SessionEnd) {
        if !self.end.is_open() {
            return;
        }
        let index = self.next_index;
        self.next_index += 1;
        self.end_slot
            .write(Front::new(self.random.uuid(), index), tail);
        self.end = End::Queued {
            position: self.ledger.accepted,
            index,
        };
        self.ledger.accepted += 1;
    }

    /// The JSON of `SESSION_END` while it is queued.
    pub(super) fn end_json(&self) -> &[u8] {
        let slot = &self.end_slot;
        let json = slot.bytes.get(..slot.len).unwrap_or_default();
        if self.end.is_queued() { json } else { &[] }
    }

    /// What [`Kind::Fatal`](super::Kind) does, for an exception that is queued already. The waker, if any, is to be
    /// woken.
    pub(crate) fn end(&mut self, tail: &SessionEnd) -> Option<Waker> {
        if self.is_stopping {
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
        if !self.is_stopping {
            self.queue_end(tail);
            self.is_stopping = true;
            self.stop_deadline = deadline;
            self.make_all_due();
            wakers = self.hurry();
        }
        wakers.driver = wakers.driver.take().or_else(|| self.driver.wake());
        (Target(self.ledger.accepted), wakers)
    }

    /// Whether a stop has begun.
    #[cfg(feature = "std")]
    pub(crate) const fn is_stopping(&self) -> bool {
        self.is_stopping
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
        self.stop_deadline
    }

    pub(super) fn stop_is_over(&self, now: Instant) -> bool {
        self.stop_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Whether a stop gives up before an attempt that is to begin then.
    pub(super) fn stop_ends_before(&self, at: Instant) -> bool {
        self.stop_deadline().is_some_and(|deadline| deadline <= at)
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
