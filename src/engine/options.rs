//! The options that the engine needs.

use super::ring::HEADER;

/// How far beyond the limits of the queue an event may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Ordinary,
    /// The reserve for errors.
    Reserved,
    /// The reserve for errors, and the place of one fatal exception.
    Fatal,
}

/// When a session gives up a batch that the backend does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUp {
    /// After `max_retries` + 1 failed attempts. The events behind the batch get their turn, and a long outage costs
    /// events.
    #[default]
    AfterRetries,
    /// Never: the batch is tried until it is settled, and events are refused once the queue is full. Delays grow up to
    /// `retry_max_delay` less up to a tenth, so that a fleet does not knock in step. The deadline of a stop ends it as
    /// ever.
    ///
    /// One batch does not block the others for good. One that the server has answered eight times with a failure of
    /// its own ([`SendError::failed`](crate::SendError::failed); over HTTP a 5xx other than 503) is halved at each
    /// further one, down to a single event. An event that alone is so answered eight times over at least ten minutes
    /// is held against the events behind it: one of them is sent first. If the backend takes that one, and at once
    /// afterwards fails on the event again, the event is dropped as `rejected`. The backend gets the other one again
    /// with its own batch. No response, 429 and 503 never count. Without an allocator or atomics no batch is halved for
    /// such answers, and none is dropped for them.
    WhenFull,
}

/// The engine's part of a session's options, already checked. Times are in microseconds, to halve their size.
pub(crate) struct EngineOptions {
    pub(crate) flush_interval: u64,
    pub(crate) http_timeout: u64,
    pub(crate) retry_base_delay: u64,
    pub(crate) retry_max_delay: u64,
    pub(crate) flush_threshold: usize,
    pub(crate) max_queue_size: usize,
    pub(crate) max_queue_bytes: usize,
    pub(crate) max_batch_size: usize,
    /// The bytes of a request's body that are left for events and the commas between them.
    pub(crate) batch_budget: usize,
    pub(crate) max_event_bytes: usize,
    /// `u32::MAX` with [`GiveUp::WhenFull`].
    pub(crate) max_retries: u32,
    /// Whether a batch is tried until it is settled.
    pub(crate) is_patient: bool,
    #[cfg(has_arc)]
    pub(crate) loss_report: bool,
    /// The reserve for errors is one part in this many of each limit of the queue; 0 is none.
    pub(crate) reserve: u32,
}

impl EngineOptions {
    /// The limits of the queue for an event, in events and bytes.
    pub(super) fn limits(&self, place: Place) -> (usize, usize) {
        let (mut size, mut bytes) = (self.max_queue_size, self.max_queue_bytes);
        if place > Place::Ordinary {
            size = size.saturating_add(reserve(size, self.reserve));
            bytes = bytes.saturating_add(reserve(bytes, self.reserve));
        }
        if place == Place::Fatal {
            size = size.saturating_add(1);
            bytes = bytes.saturating_add(self.max_event_bytes + HEADER);
        }
        (size, bytes)
    }
}

/// The reserve for errors beyond a limit of the queue: one part in `one_in`, or none if that is 0.
pub(crate) const fn reserve(limit: usize, one_in: u32) -> usize {
    match limit.checked_div(one_in as usize) {
        Some(reserve) => reserve,
        None => 0,
    }
}
