//! The seam to time.

use crate::time::{Instant, Timestamp};
use core::future::Future;

/// Where a session gets its time from.
///
/// What an implementer owes:
///
/// * [`now`](Clock::now) never goes back, and [`sleep_until`](Clock::sleep_until) is measured on it.
/// * `sleep_until` may be called and its future polled on any thread, inside an executor or outside, also after the
///   executor has gone. It is never early and never panics. Dropping the future cancels the timer.
/// * Nothing here blocks.
pub trait Clock: Send + Sync + 'static {
    /// The monotonic clock, in microseconds.
    fn now(&self) -> Instant;

    /// The wall clock. It may jump; nothing but the timestamps of events and a `Retry-After` date depends on it.
    fn utc(&self) -> Timestamp;

    /// Waits until the monotonic clock has reached `at`; at once when it already has.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;
}
