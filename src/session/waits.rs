//! The waiting methods of a handle: for a flush, for a stop, and for a fatal exception.

use super::handle::Handle;
use super::wait::Wait;
use crate::event::exception::Loggable;
use crate::event::severity::Severity;
use crate::stats::Drain;
use core::future::Future;
use core::pin::pin;
use core::time::Duration;

#[cfg(feature = "std")]
use crate::spawner::WouldDeadlock;

/// # Waiting
///
/// Each method acts when it is called; its future only waits, so dropping it cancels only the wait.
impl Handle {
    /// Logs an error that ends the session: the error and `SESSION_END` are queued together, in space reserved for them
    /// even when the queue is full. The future waits until both are settled, at most `flush_timeout`.
    ///
    /// A user error stays a `user_error`, and still ends the session. A program that survives may continue to log. A
    /// session ends only once: later fatal errors and a stop do not add another `SESSION_END`.
    pub fn log_fatal_exception<E: Loggable<By> + ?Sized, By>(
        &self,
        error: &E,
        severity: Severity,
    ) -> impl Future<Output = Drain> + Send + use<E, By> {
        let wait = self.begin_fatal(&error.any(), severity);
        self.clone().finish(wait)
    }

    /// Requests a flush. The future waits until everything accepted before the call is settled, at most `timeout`. It
    /// resolves at once if there is no driver to make progress.
    pub fn wait_until_drained(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Drain> + Send + use<> {
        let wait = self
            .session()
            .map(|session| Wait::for_flush(session, timeout));
        self.clone().finish(wait)
    }

    /// Stops the session: queues `SESSION_END`, unless that was done before, and flushes. Later events are refused as
    /// [`SessionEnded`](crate::stats::Refusal::SessionEnded).
    ///
    /// The future waits until everything is settled, at most `timeout`; what is left then is dropped as
    /// [`Shutdown`](crate::stats::DropReason::Shutdown). [`Duration::MAX`] means no deadline.
    ///
    /// A stop cuts a backoff short, but respects a server's `Retry-After`; if the next attempt could not begin before
    /// the deadline, the wait ends at once. Calling `stop` again is harmless: the first call's deadline stands.
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
                Some(deadline) => session.deadline(deadline).await,
                None => core::future::pending().await,
            }
        });
        wait.wait(session, timer).await
    }
}

/// # Waiting on the calling thread
///
/// Each method acts before it waits, so the flush or stop happens even where waiting is refused.
///
/// On a thread where waiting would keep the driver from running they return [`WouldDeadlock`] at once; on a worker of
/// tokio's multi-thread runtime they wait in `block_in_place`.
#[cfg(feature = "std")]
impl Handle {
    /// [`log_fatal_exception`](Self::log_fatal_exception), blocking the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`]; see above.
    pub fn log_fatal_exception_blocking<E: Loggable<By> + ?Sized, By>(
        &self,
        error: &E,
        severity: Severity,
    ) -> Result<Drain, WouldDeadlock> {
        self.block(self.begin_fatal(&error.any(), severity))
    }

    /// [`wait_until_drained`](Self::wait_until_drained), blocking the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`]; see above.
    pub fn wait_until_drained_blocking(&self, timeout: Duration) -> Result<Drain, WouldDeadlock> {
        self.block(
            self.session()
                .map(|session| Wait::for_flush(session, timeout)),
        )
    }

    /// [`stop`](Self::stop), blocking the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`]; see above. The session still stops within `timeout`.
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
        let blocked = session
            .shared()
            .block_in_place(&mut || drain = wait.wait_blocking(session));
        match blocked {
            Ok(()) => Ok(drain),
            Err(would_deadlock) => wait.result_unreported(session).ok_or(would_deadlock),
        }
    }
}
