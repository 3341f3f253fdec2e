//! The ledger: counters that account for every event, delivered, dropped, queued or refused.

mod counts;

use core::fmt;

/// A snapshot of a session's ledger and state.
///
/// In every snapshot, `accepted = delivered + handed_over + dropped.total() + queued`, which
/// [`is_balanced`](Self::is_balanced) checks. Events that were never accepted are counted separately, in `refused`.
///
/// In the child of a `fork()`, the ledger is frozen at the fork and only [`refused.forked`](Refused::forked) still
/// counts: the parent sends the queued events, and `driver_alive` is false. If another thread was changing the ledger
/// at the fork, it is unreadable and everything but `refused.forked` is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events that entered the queue, `SESSION_START`, `SESSION_END` and `reports` included.
    pub accepted: u64,
    /// Events that the backend has confirmed.
    pub delivered: u64,
    /// Events that a transport has handed over to another system; see
    /// [`Receipt::handed_over`](crate::Receipt::handed_over).
    pub handed_over: u64,
    /// Accepted events that were dropped, by reason.
    pub dropped: Dropped,
    /// Events that were not accepted, by reason.
    pub refused: Refused,
    /// Accepted events that were truncated: by the limits on their data or, in an exception, to fit `max_event_bytes`.
    pub truncated: u64,
    /// Loss reports, of which each counts in `accepted` as well; see
    /// [`Options::loss_report`](crate::Options::loss_report).
    pub reports: u64,
    /// Events in the queue, those in flight included.
    pub queued: u64,
    /// The memory of the queued events in bytes: for each its JSON plus 12.
    pub queued_bytes: usize,
    /// Whether the session has ended: its `SESSION_END` has been queued, or a stop found it
    /// [switched off](crate::Handle::set_enabled), without one.
    pub session_ended: bool,
    /// Whether the session has a driver to make progress.
    pub driver_alive: bool,
}

impl Stats {
    /// Whether every accepted event is accounted for. Always true.
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

/// The reason an accepted event was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Every attempt failed.
    RetriesExhausted,
    /// The backend rejected the batch permanently.
    Rejected,
    /// The backend found a single event too large.
    TooLarge,
    /// A stop reached its deadline.
    Shutdown,
    /// The program [discarded](crate::Handle::discard) it.
    Discarded,
}

impl DropReason {
    /// The name of its count, as `retries_exhausted`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "retries_exhausted",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::Shutdown => "shutdown",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Counts of dropped events, by [`DropReason`].
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
    /// See [`DropReason::Discarded`].
    pub discarded: u64,
}

impl Dropped {
    /// The sum of all counts.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.retries_exhausted + self.rejected + self.too_large + self.shutdown + self.discarded
    }

    pub(crate) fn add(&mut self, reason: DropReason, events: u64) {
        *match reason {
            DropReason::RetriesExhausted => &mut self.retries_exhausted,
            DropReason::Rejected => &mut self.rejected,
            DropReason::TooLarge => &mut self.too_large,
            DropReason::Shutdown => &mut self.shutdown,
            DropReason::Discarded => &mut self.discarded,
        } += events;
    }
}

/// The reason an event was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue has reached its limit in events or bytes, or cannot allocate. Takes an index.
    QueueFull,
    /// The event is larger than `max_event_bytes`. Takes an index.
    EventTooLarge,
    /// The data cannot be encoded as a JSON object. Takes an index.
    Unencodable,
    /// The session has been stopped.
    SessionEnded,
    /// Telemetry is disabled, or [switched off](crate::Handle::set_enabled) at run time. Not a loss; no index.
    Disabled,
    /// It is milder than the session takes; see [`Handle::set_min_severity`](crate::Handle::set_min_severity). Not a
    /// loss; no index.
    BelowMinSeverity,
    /// The process is the child of a `fork()`, and the session belongs to its parent.
    Forked,
    /// The [scrub hook](crate::session::Builder::scrub) dropped the event, or logged it itself. Not a loss; no index.
    Scrubbed,
    /// The scrub hook panicked. Takes an index.
    ScrubPanicked,
    /// It came from the session's own work: logged while the session's driver was polled, a call of its client was made
    /// or its observer was called. Sending it would cause more. Not a loss; no index.
    OwnWork,
}

impl Refusal {
    /// The name of its count, as `queue_full`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::EventTooLarge => "event_too_large",
            Self::Unencodable => "unencodable",
            Self::SessionEnded => "session_ended",
            Self::Disabled => "disabled",
            Self::BelowMinSeverity => "below_min_severity",
            Self::Forked => "forked",
            Self::Scrubbed => "scrubbed",
            Self::ScrubPanicked => "scrub_panicked",
            Self::OwnWork => "own_work",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Counts of refused events, by [`Refusal`].
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
    /// See [`Refusal::Disabled`]. Without a session counted only where handles are shared (`alloc` and pointer-sized
    /// atomics).
    pub disabled: u64,
    /// See [`Refusal::BelowMinSeverity`].
    pub below_min_severity: u64,
    /// See [`Refusal::Forked`]; counted in the child.
    pub forked: u64,
    /// See [`Refusal::Scrubbed`].
    pub scrubbed: u64,
    /// See [`Refusal::ScrubPanicked`].
    pub scrub_panicked: u64,
    /// See [`Refusal::OwnWork`].
    pub own_work: u64,
}

impl Refused {
    /// The sum of all counts.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.queue_full
            + self.event_too_large
            + self.unencodable
            + self.session_ended
            + self.disabled
            + self.below_min_severity
            + self.forked
            + self.scrubbed
            + self.scrub_panicked
            + self.own_work
    }
}

/// The result of waiting for the queue to drain.
///
/// A drained queue does not mean that every event was delivered: check [`all_delivered`](Self::all_delivered) where it
/// matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events may have been dropped, or may remain"]
#[non_exhaustive]
pub struct Drain {
    /// Events that the backend has confirmed since the call.
    pub delivered: u64,
    /// Events that a transport has [handed over](crate::Receipt::handed_over) since the call, to a spool, say: the
    /// backend does not have them yet.
    pub handed_over: u64,
    /// Events dropped since the call, except those that a stop's deadline dropped.
    pub dropped: u64,
    /// Events accepted before the call and not settled in time. After a wait they are still queued. A stop has dropped
    /// them: the ledger counts them with reason [`Shutdown`](DropReason::Shutdown), and this is the only field here that
    /// does. Without a driver they stay queued after a stop, too. In the child of a `fork()`, which sends nothing,
    /// the events that were queued at the fork, which the parent sends; at least 1.
    pub remaining: u64,
}

impl Drain {
    /// Whether nothing remains: every event accepted before the call was delivered, handed over or dropped, and none by
    /// this stop's deadline.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.remaining == 0
    }

    /// Whether the backend has everything: nothing remains, and nothing was dropped or only handed over.
    #[must_use]
    pub const fn all_delivered(&self) -> bool {
        self.all_safe() && self.handed_over == 0
    }

    /// Whether nothing remains and nothing was dropped: the backend has it, or what the transport hands over to.
    #[must_use]
    pub const fn all_safe(&self) -> bool {
        self.remaining == 0 && self.dropped == 0
    }
}
