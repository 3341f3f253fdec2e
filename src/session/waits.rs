//! The operations of a handle that wait: for a flush, for the end, for a fatal exception to be settled.

use super::handle::Handle;
use super::wait::Wait;
use crate::event::exception::AnyError;
use crate::event::severity::Severity;
use crate::stats::Drain;
use core::future::Future;
use core::pin::pin;
use core::time::Duration;

#[cfg(feature = "std")]
use crate::spawner::WouldDeadlock;

/// Waits. What each asks for is asked for when it is called; the future only waits, so it may be dropped at any time.
impl Handle {
    /// Logs an error that ends the session: the error and `SESSION_END` enter the queue together, from a reserve that a
    /// full queue cannot take away. The future waits until both are settled, at most `flush_timeout`.
    ///
    /// A user error stays a `user_error`, and the session still ends. A program that survives may go on logging. A
    /// session ends once: later fatal errors, and a stop, add no second `SESSION_END`.
    pub fn log_fatal_exception<E: AnyError + ?Sized>(
        &self,
        error: &E,
        severity: Severity,
    ) -> impl Future<Output = Drain> + Send + use<E> {
        let wait = self.begin_fatal(error, severity);
        self.clone().finish(wait)
    }

    /// Asks for a flush; the future waits until everything accepted before the call has been settled, at most
    /// `timeout`, and at once when there is no driver to make progress.
    pub fn wait_until_drained(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Drain> + Send + use<> {
        let wait = self
            .session()
            .map(|session| Wait::for_flush(session, timeout));
        self.clone().finish(wait)
    }

    /// Ends the session: `SESSION_END` unless it was sent, and everything due at once. The future waits until all is
    /// settled, at most `timeout`; what is left then is dropped, with reason
    /// [`Shutdown`](crate::stats::DropReason::Shutdown). [`Duration::MAX`] is no deadline.
    ///
    /// A backoff is cut short, a server's `Retry-After` is not; when the next attempt would not come before the deadline
    /// the wait ends at once. Calling it again is harmless: the first call's deadline stands. Afterwards every event is
    /// refused, with reason [`SessionEnded`](crate::stats::Refusal::SessionEnded).
    ///
    /// ```
    /// # async fn example(telemetry: tinkex_telemetry::Handle) {
    /// let drain = telemetry.stop(core::time::Duration::from_secs(5)).await;
    /// if !drain.all_delivered() {
    ///     eprintln!("telemetry lost {} events", drain.dropped + drain.remaining);
    /// }
    /// # }
    /// ```
    pub fn stop(&self, timeout: Duration) -> impl Future<Output = Drain> + Send + use<> {
        let wait = self
            .session()
            .map(|session| Wait::for_stop(session, timeout));
        self.clone().finish(wait)
    }

    pub(crate) async fn finish(self, wait: Option<Wait>) -> Drain {
        let (Some(session), Some(wait)) = (self.session(), &wait) else {
            return Drain::default();
        };
        let timer = pin!(async {
            match wait.deadline {
                Some(deadline) => session.sleep_until(deadline).await,
                None => core::future::pending().await,
            }
        });
        wait.wait(session, timer).await
    }
}

/// The blocking twins. Each asks first for what its name says, so that happens even where waiting is refused.
///
/// On a thread where waiting would keep the driver from running they answer [`WouldDeadlock`] at once; on a worker of
/// tokio's multi-thread runtime they wait in `block_in_place`.
#[cfg(feature = "std")]
impl Handle {
    /// [`log_fatal_exception`](Self::log_fatal_exception), waiting on the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`], see above.
    pub fn log_fatal_exception_blocking<E: AnyError + ?Sized>(
        &self,
        error: &E,
        severity: Severity,
    ) -> Result<Drain, WouldDeadlock> {
        self.block(self.begin_fatal(error, severity))
    }

    /// [`wait_until_drained`](Self::wait_until_drained), waiting on the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`], see above.
    pub fn wait_until_drained_blocking(&self, timeout: Duration) -> Result<Drain, WouldDeadlock> {
        self.block(
            self.session()
                .map(|session| Wait::for_flush(session, timeout)),
        )
    }

    /// [`stop`](Self::stop), waiting on the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`], see above. The session stops all the same, within `timeout`.
    pub fn stop_blocking(&self, timeout: Duration) -> Result<Drain, WouldDeadlock> {
        self.block(
            self.session()
                .map(|session| Wait::for_stop(session, timeout)),
        )
    }

    pub(crate) fn block(&self, wait: Option<Wait>) -> Result<Drain, WouldDeadlock> {
        let (Some(session), Some(wait)) = (self.session(), &wait) else {
            return Ok(Drain::default());
        };
        if let Some(drain) = wait.result_now(session) {
            return Ok(drain);
        }
        let mut drain = Drain::default();
        session
            .shared()
            .block_in_place(&mut || drain = wait.wait_blocking(session))?;
        Ok(drain)
    }
}
