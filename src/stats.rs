//! The ledger, as users read it: what became of every event.

/// A session's ledger and state at one instant.
///
/// From the start and at every instant
/// `accepted = delivered + handed_over + dropped.total() + queued`; [`is_balanced`](Self::is_balanced) checks it.
/// Events that were never accepted are counted apart, in `refused`.
///
/// In the child of a `fork()` it is the ledger as it was then, and [`refused.forked`](Refused::forked) is what goes on:
/// the queued events are the parent's to send, and `driver_alive` is false. Where another thread was just changing the
/// ledger it cannot be read any more; all but `refused.forked` is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events taken into the queue, `SESSION_START` and `SESSION_END` included.
    pub accepted: u64,
    /// Events the backend has confirmed.
    pub delivered: u64,
    /// Events that a transport has handed to something else; see
    /// [`Receipt::handed_over`](crate::Receipt::handed_over).
    pub handed_over: u64,
    /// Events given up, by reason.
    pub dropped: Dropped,
    /// Events that never entered the queue, by reason.
    pub refused: Refused,
    /// Accepted events of which something was left out: to keep the limits on their data, or, of an exception's texts,
    /// to fit.
    pub truncated: u64,
    /// Events in the queue, those in flight included.
    pub queued: u64,
    /// The memory the queued events take, in bytes: for each its JSON and 12 more.
    pub queued_bytes: usize,
    /// Whether `SESSION_END` has been queued, or more.
    pub session_ended: bool,
    /// Whether there is a driver to make progress.
    pub driver_alive: bool,
}

impl Stats {
    /// Whether every accepted event is accounted for. It always is.
    #[must_use]
    pub const fn is_balanced(&self) -> bool {
        self.accepted == self.settled() + self.queued
    }

    /// Events that have left the queue: delivered, handed over or dropped.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.delivered + self.handed_over + self.dropped.total()
    }
}

/// Why accepted events were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The last attempt failed like the ones before it.
    RetriesExhausted,
    /// The backend refused the batch for good.
    Rejected,
    /// The backend found a single event too large.
    TooLarge,
    /// A stop met its deadline.
    Shutdown,
}

/// Events given up, by [`DropReason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// See [`DropReason::RetriesExhausted`].
    pub retries_exhausted: u64,
    /// See [`DropReason::Rejected`].
    pub rejected: u64,
    /// See [`DropReason::TooLarge`].
    pub too_large: u64,
    /// See [`DropReason::Shutdown`].
    pub shutdown: u64,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.retries_exhausted + self.rejected + self.too_large + self.shutdown
    }

    pub(crate) fn add(&mut self, reason: DropReason, events: u64) {
        *match reason {
            DropReason::RetriesExhausted => &mut self.retries_exhausted,
            DropReason::Rejected => &mut self.rejected,
            DropReason::TooLarge => &mut self.too_large,
            DropReason::Shutdown => &mut self.shutdown,
        } += events;
    }
}

/// Why an event was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue's limit in events or in bytes is reached, or there is no memory for it to grow. Takes an index.
    QueueFull,
    /// The event is larger than `max_event_bytes`. Takes an index.
    EventTooLarge,
    /// The data cannot be encoded as a JSON object. Takes an index.
    Unencodable,
    /// The session has been stopped.
    SessionEnded,
    /// Telemetry is switched off.
    Disabled,
    /// The process is the child of a fork, and the session its parent's.
    Forked,
    /// The [scrub hook](crate::session::Builder::scrub) has dropped it, or has logged it itself. No loss, and no index.
    Scrubbed,
    /// The scrub hook has panicked over it. Takes an index.
    ScrubPanicked,
}

/// Events not accepted, by [`Refusal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// See [`Refusal::QueueFull`].
    pub queue_full: u64,
    /// See [`Refusal::EventTooLarge`].
    pub event_too_large: u64,
    /// See [`Refusal::Unencodable`].
    pub unencodable: u64,
    /// See [`Refusal::SessionEnded`].
    pub session_ended: u64,
    /// See [`Refusal::Disabled`]; counted where handles are shared (`alloc`).
    pub disabled: u64,
    /// See [`Refusal::Forked`]; counted in the child.
    pub forked: u64,
    /// See [`Refusal::Scrubbed`].
    pub scrubbed: u64,
    /// See [`Refusal::ScrubPanicked`].
    pub scrub_panicked: u64,
}

impl Refused {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.queue_full
            + self.event_too_large
            + self.unencodable
            + self.session_ended
            + self.disabled
            + self.forked
            + self.scrubbed
            + self.scrub_panicked
    }
}

/// What a wait or a stop came to.
///
/// A dropped event is never dressed up as a delivered one: check [`all_delivered`](Self::all_delivered) where it
/// matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events may have been dropped, or may remain"]
#[non_exhaustive]
pub struct Drain {
    /// Events delivered (or handed over) since the call.
    pub delivered: u64,
    /// Events given up since the call, those that a stop's deadline caught excepted.
    pub dropped: u64,
    /// Events accepted before the call that had not been settled when it ended. A stop has dropped them then, with
    /// reason [`Shutdown`](DropReason::Shutdown), unless there was no driver. In the child of a `fork()`, where nothing
    /// is sent, it is what was queued then, which the parent sends, and never less than 1.
    pub remaining: u64,
}

impl Drain {
    /// Nothing remains: everything accepted before the call was delivered or dropped for a reason of its own.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.remaining == 0
    }

    /// Nothing remains, and nothing was dropped.
    #[must_use]
    pub const fn all_delivered(&self) -> bool {
        self.remaining == 0 && self.dropped == 0
    }
}
