//! The options that the engine needs.

use super::ring::HEADER;

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
    pub(crate) max_retries: u32,
}

impl EngineOptions {
    /// The bytes that the ring reserves beyond `max_queue_bytes`, for one fatal exception.
    pub(super) const fn reserve(&self) -> usize {
        self.max_event_bytes + HEADER
    }
}
