//! The end of a session: `SESSION_END`, stops and their deadline.

use super::{Engine, Goal, Phase, Unsent, Wakers};
use crate::diagnostic::DiagnosticKind;
use crate::event::encode::{EventPrefix, SessionEnd};
use crate::stats::DropReason;
use crate::time::Instant;

/// The state of `SESSION_END`. It is not a record in the ring, so a full queue cannot refuse it, and there is only one
/// slot, so there is never a second.
#[derive(Debug)]
pub(super) enum End {
    Open,
    /// `position` counts the accepted events before it.
    Queued {
        position: u64,
        index: u64,
    },
    /// Also if it was withheld: then it was never accepted.
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

/// The maximum length of the JSON of `SESSION_END` in bytes: 206 at the end of time, rounded up.
pub(crate) const END_BYTES: usize = 208;

/// Holds the JSON of `SESSION_END`. Allocated with the engine, so that a stop never lacks memory for it.
pub(crate) struct EndSlot {
    #[cfg(feature = "alloc")]
    bytes: [u8; END_BYTES],
    /// Part of the memory that the program provides for the queue.
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
    fn write(&mut self, prefix: EventPrefix, tail: &SessionEnd) {
        let (prefix_len, len) = (prefix.len(), prefix.len() + tail.len());
        // Always fits: the slot has the maximum length.
        if let Some(json) = self.bytes.get_mut(..len)
            && let Some((prefix_space, tail_space)) = json.split_at_mut_checked(prefix_len)
        {
            prefix.write(prefix_space);
            tail_space.copy_from_slice(tail.as_bytes());
            self.len = len;
        } else {
            debug_assert!(false, "SESSION_END has {len} bytes, more than its slot");
        }
    }

    /// Replaces the beginning of the event, which is `old` bytes long.
    #[cfg(has_arc)]
    pub(super) fn replace_prefix(&mut self, old: usize, prefix: EventPrefix) {
        let (new, tail) = (prefix.len(), self.len.saturating_sub(old));
        if new + tail > self.bytes.len() || old + tail > self.bytes.len() {
            debug_assert!(false, "SESSION_END is longer than its slot");
            return;
        }
        self.bytes.copy_within(old..old + tail, new);
        if let Some(space) = self.bytes.get_mut(..new) {
            prefix.write(space);
        }
        self.len = new + tail;
    }
}

impl Engine {
    /// Queues `SESSION_END` behind everything accepted so far, unless the session has already ended.
    pub(super) fn queue_end(&mut self, tail: &SessionEnd) {
        if !self.end.is_open() {
            return;
        }
        #[cfg(has_arc)]
        self.reserve_report_before_end();
        let index = self.next_index;
        self.next_index += 1;
        self.end_slot
            .write(EventPrefix::new(self.random.uuid(), index), tail);
        self.end = End::Queued {
            position: self.ledger.accepted,
            index,
        };
        self.ledger.accepted += 1;
    }

    /// Ends the session without `SESSION_END`, unless it has already ended.
    fn withhold_end(&mut self) {
        if self.end.is_open() {
            self.end = End::Settled;
        }
    }

    /// Removes a queued `SESSION_END`, whose fate the caller has counted.
    pub(super) fn settle_end(&mut self) {
        if self.end.is_queued() {
            self.end = End::Settled;
        }
    }

    /// The JSON of `SESSION_END` while it is queued, else empty.
    pub(super) fn end_json(&self) -> &[u8] {
        let slot = &self.end_slot;
        let json = slot.bytes.get(..slot.len).unwrap_or_default();
        if self.end.is_queued() { json } else { &[] }
    }

    /// Does what [`Priority::Fatal`](super::Priority) does, for an exception that is already queued.
    pub(crate) fn end(&mut self, tail: &SessionEnd) -> Wakers {
        if self.is_stopping || self.is_disabled {
            return Wakers::default();
        }
        self.notices.add(DiagnosticKind::ExceptionLogged, 1);
        self.queue_end(tail);
        self.make_all_due();
        self.driver.wake()
    }

    /// Stops the session: queues `SESSION_END` unless that has been done or the session is switched off, makes everything due at once and accepts no
    /// more events. A later call does not change the first one's deadline.
    pub(crate) fn begin_stop(
        &mut self,
        deadline: Option<Instant>,
        tail: &SessionEnd,
    ) -> (Goal, Wakers) {
        let mut wakers = Wakers::default();
        if !self.is_stopping {
            if self.is_disabled {
                self.withhold_end();
            } else {
                #[cfg(has_arc)]
                if !self.end.is_open() {
                    self.report.owe_last();
                }
                self.queue_end(tail);
            }
            self.is_stopping = true;
            self.stop_deadline = deadline;
            self.make_all_due();
            wakers = self.cut_backoff_short();
            #[cfg(has_arc)]
            self.queue_last_report();
        }
        let wakers = wakers.and_driver(&mut self.driver);
        (self.accepted_goal(), wakers)
    }

    /// Whether a stop has begun.
    #[cfg(feature = "std")]
    pub(crate) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Ends a backoff now. A server's `Retry-After` stands; if it ends past the stop's deadline, the rest is dropped.
    fn cut_backoff_short(&mut self) -> Wakers {
        let Some(in_flight) = &mut self.in_flight else {
            return Wakers::default();
        };
        match &mut in_flight.phase {
            Phase::Sending { .. } => Wakers::default(),
            Phase::Retry { until, not_before } => {
                let not_before = *not_before;
                *until = not_before;
                if self.stop_ends_before(not_before) {
                    self.drop_remaining()
                } else {
                    Wakers::default()
                }
            }
        }
    }

    /// The deadline of the stop that has begun, if any.
    pub(crate) fn stop_deadline(&self) -> Option<Instant> {
        self.stop_deadline
    }

    pub(super) fn stop_deadline_passed(&self, now: Instant) -> bool {
        self.stop_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Whether the stop gives up before an attempt could begin at `at`.
    pub(super) fn stop_ends_before(&self, at: Instant) -> bool {
        self.stop_deadline().is_some_and(|deadline| deadline <= at)
    }

    /// Drops what is left once the stop's deadline has passed, or what is left of a refused batch. Called by the driver and by waiters.
    pub(crate) fn expire(&mut self, now: Instant) -> Wakers {
        if self.stop_deadline_passed(now) && self.queued() > 0 {
            self.drop_remaining()
        } else {
            self.drop_refused()
        }
    }

    pub(super) fn drop_remaining(&mut self) -> Wakers {
        let unsent = match &self.in_flight {
            _ if self.is_unattended() => Unsent::NoDriver,
            Some(in_flight) if in_flight.attempt > 0 => Unsent::Failed,
            Some(_) => Unsent::NoResponse,
            None => Unsent::NoTime,
        };
        self.drop_remaining_because(unsent)
    }

    pub(super) fn drop_remaining_because(&mut self, unsent: Unsent) -> Wakers {
        let left = self.queued();
        self.ledger.dropped.add(DropReason::Shutdown, left);
        self.notices.add_unsent(left, unsent);
        self.empty_queue();
        Wakers::All(self.driver.take_waker())
    }
}
