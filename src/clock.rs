//! Clocks: where a session gets its time.

use crate::time::{Instant, Timestamp};
use core::future::Future;

/// A monotonic clock, a wall clock and timers.
///
/// What an implementer owes:
///
/// * [`now`](Clock::now) never goes back, and [`sleep_until`](Clock::sleep_until) uses the same clock.
/// * `sleep_until` may be called, and its future polled, on any thread, inside or outside an executor, even after the
///   executor has shut down. It never completes early and never panics. Dropping the future cancels the timer.
/// * No method blocks.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no clock",
    label = "not a `Clock`",
    note = "set one with `.runtime(…)`, as `Thread`, `Tokio`, `Smol` or `Embassy`, or with `.clock(…)`: `Thread` is one for any executor"
)]
pub trait Clock: Send + Sync + 'static {
    /// The time of the monotonic clock.
    fn now(&self) -> Instant;

    /// The time of the wall clock. It may jump: only event timestamps and `Retry-After` dates depend on it.
    fn utc(&self) -> Timestamp;

    /// Completes when the monotonic clock has reached `at`, at once if it already has.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;

    /// [`sleep_until`](Clock::sleep_until) for the deadline of a wait, which must come even while the executor that
    /// fires the clock's timers runs nothing: while its only thread is blocked, perhaps on this very wait.
    ///
    /// Override it if `sleep_until` depends on such an executor. Default: `sleep_until`.
    fn deadline(&self, at: Instant) -> impl Future<Output = ()> + Send {
        self.sleep_until(at)
    }

    /// Whether its time is simulated, and so is the backend: sessions in different simulations do not collide.
    #[doc(hidden)]
    fn is_simulated(&self) -> bool {
        false
    }
}
