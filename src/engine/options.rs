//! The options that the engine goes by.

/// Some of a session's options, after they were checked. Times are microseconds, which take half the memory.
pub(crate) struct EngineOptions {
    pub(crate) flush_interval: u64,
    pub(crate) http_timeout: u64,
    pub(crate) retry_base_delay: u64,
    pub(crate) retry_max_delay: u64,
    pub(crate) flush_threshold: usize,
    pub(crate) max_queue_size: usize,
    pub(crate) max_queue_bytes: usize,
    pub(crate) max_batch_size: usize,
    /// What a request's body may spend on events and the commas between them.
    pub(crate) batch_budget: usize,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_retries: u32,
}
