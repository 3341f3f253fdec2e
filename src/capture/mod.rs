//! Capture: what a block or a future fails with is logged, and goes on as if nobody had looked.

use crate::event::severity::Severity;
use crate::session::{AsHandle, Handle};

#[cfg(feature = "std")]
mod frames;
mod macros;
mod outcome;
#[cfg(feature = "std")]
mod panic_hook;
#[cfg(feature = "std")]
mod panicked;
#[cfg(has_arc)]
mod task;
#[cfg(feature = "std")]
mod unclaimed;
mod watch;

#[cfg(has_arc)]
use crate::spawner::LocalSpawner;
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(feature = "alloc")]
use core::future::Future;

pub use outcome::{ByBox, ByError, ByNever, Found, NoOutcome, Outcome, Probe, SomeOutcome};
#[cfg(feature = "std")]
pub use panic_hook::{PanicHook, install_panic_hook};
#[cfg(has_arc)]
pub use task::{LocalTask, Task};
#[cfg(feature = "alloc")]
use watch::Ended;
use watch::Failure;

/// Runs a block or a future, logs what it fails with, and gives back what it came to: the value, the `Err`, or the
/// panic with its own payload. [`Handle::capture`] makes one; [`capture!`](crate::capture),
/// [`async_capture!`](crate::async_capture) and [`async_capture_local!`](crate::async_capture_local) are the same as
/// macros, which also take blocks that come to a plain value.
///
/// | what happens | what is logged |
/// |---|---|
/// | a plain value, `Ok`, `None` | nothing |
/// | an `Err` that is an [`Outcome`]'s | the error, as by [`log_exception`](Handle::log_exception) |
/// | an `Err` of any other type | nothing: it is a plain value |
/// | a panic that unwinds | an exception of type `panic` with its message; with the [panic hook](crate::install_panic_hook) also where it happened. Needs `std` |
/// | a panic that aborts | nothing |
/// | a future that is dropped half way | nothing |
///
/// Captures nest, also through [`Task`]s: a failure that passes through several of them for the same session is logged
/// by the innermost (with `std`; an error is recognized by its message, also as another one's source).
///
/// Where nothing goes wrong capturing a block costs some twenty instructions and allocates nothing; without a session,
/// nothing. A failure costs what logging it costs; with [`fatal`](Self::fatal) also the wait.
///
/// ```
/// # fn example(telemetry: &tinkex_telemetry::Handle) -> Result<(), std::num::ParseIntError> {
/// let batch: usize = telemetry.capture().run(|| "32".parse())?;
/// # assert_eq!(batch, 32);
/// # Ok(())
/// # }
/// # example(&tinkex_telemetry::Handle::off()).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "it captures what it runs"]
pub struct Capture<'a> {
    handle: &'a Handle,
    severity: Severity,
    is_fatal: bool,
}

static NOBODY: Handle = Handle::off();

impl Capture<'_> {
    /// A capture that logs nothing, until it has a [`reporter`](Self::reporter).
    pub const fn new() -> Self {
        Self {
            handle: &NOBODY,
            severity: Severity::Error,
            is_fatal: false,
        }
    }
}

impl Default for Capture<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Capture<'a> {
    /// Whose session it logs to: a [`Handle`], a [`Reporter`], or an `Option` of one.
    pub fn reporter<'b>(self, reporter: &'b (impl AsHandle + ?Sized)) -> Capture<'b> {
        Capture {
            handle: reporter.as_handle().unwrap_or(&NOBODY),
            severity: self.severity,
            is_fatal: self.is_fatal,
        }
    }

    /// The severity of what is logged. Default: [`Severity::Error`]. A user error is a warning all the same.
    pub const fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Whether a failure ends the session, as by [`log_fatal_exception`](Handle::log_fatal_exception): what is queued
    /// is waited for, at most `flush_timeout`, before the failure goes on. Default: no.
    ///
    /// A block does not wait on a thread where that would deadlock, and not without `std`: there it only asks.
    pub const fn fatal(mut self, is_fatal: bool) -> Self {
        self.is_fatal = is_fatal;
        self
    }

    /// Runs a closure that comes to a `Result`.
    ///
    /// # Panics
    /// When `work` does.
    #[inline]
    pub fn run<R: Outcome<By>, By>(self, work: impl FnOnce() -> R) -> R {
        self.run_with(work, |result, found| result.error(found))
    }

    /// Runs a closure that comes to a plain value: only a panic is logged.
    ///
    /// # Panics
    /// When `work` does.
    #[inline]
    pub fn run_plain<R>(self, work: impl FnOnce() -> R) -> R {
        self.run_with(work, |_, _| {})
    }

    #[doc(hidden)]
    #[inline]
    pub fn run_with<R>(self, work: impl FnOnce() -> R, look: impl FnOnce(&R, Found<'_>)) -> R {
        if !self.handle.is_enabled() {
            return work();
        }
        watch::run(self.handle, work, look, |failure, is_logged| {
            self.fail(failure, is_logged);
        })
    }

    /// Logs a failure, unless a capture inside or the panic hook has.
    #[cold]
    fn fail(&self, failure: &Failure<'_>, is_logged: bool) {
        if !self.is_fatal {
            if !is_logged {
                let _ = self.handle.log_exception(failure, self.severity);
            }
            return;
        }
        let wait = if is_logged {
            self.handle.begin_end()
        } else {
            self.handle.begin_fatal(failure, self.severity)
        };
        // Where waiting would deadlock it has been asked for all the same.
        #[cfg(feature = "std")]
        let _ = self.handle.block(wait);
        #[cfg(not(feature = "std"))]
        let _ = wait;
    }
}

/// # Futures
#[cfg(feature = "alloc")]
impl Capture<'_> {
    /// Runs a future that comes to a `Result`, where it is awaited. It is `Send` if the future and its result are.
    ///
    /// # Panics
    /// When `future` does, in the same poll unless it is [`fatal`](Self::fatal).
    ///
    /// # Cancel safety
    /// Dropping it drops `future`, and logs nothing.
    pub fn future<F, By>(self, future: F) -> impl Future<Output = F::Output> + use<F, By>
    where
        F: Future,
        F::Output: Outcome<By>,
    {
        self.future_with(future, |result, found| result.error(found))
    }

    /// Runs a future that comes to a plain value, as [`future`](Self::future) does: only a panic is logged.
    ///
    /// # Panics
    /// As there.
    pub fn future_plain<F: Future>(self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.future_with(future, |_, _| {})
    }

    #[doc(hidden)]
    pub fn future_with<F: Future, L>(
        self,
        future: F,
        look: L,
    ) -> impl Future<Output = F::Output> + use<F, L>
    where
        L: FnOnce(&F::Output, Found<'_>),
    {
        let watched = self.watch(future, look);
        async { watched.await.resume() }
    }

    /// Runs a future to its end, panic or not.
    fn watch<F: Future, L>(
        self,
        future: F,
        look: L,
    ) -> impl Future<Output = Ended<F::Output>> + use<F, L>
    where
        L: FnOnce(&F::Output, Found<'_>),
    {
        let (handle, severity, is_fatal) = (self.handle.clone(), self.severity, self.is_fatal);
        async move {
            if !handle.is_enabled() {
                return Ended::value(future.await);
            }
            let mut wait = None;
            let fail = |failure: &Failure<'_>, is_logged| match (is_fatal, is_logged) {
                (false, false) => {
                    let _ = handle.log_exception(failure, severity);
                }
                (false, true) => {}
                (true, false) => wait = handle.begin_fatal(failure, severity),
                (true, true) => wait = handle.begin_end(),
            };
            let ended = watch::watch(&handle, future, look, fail).await;
            if wait.is_some() {
                let _ = handle.clone().finish(wait).await;
            }
            ended
        }
    }
}

/// # Tasks
#[cfg(has_arc)]
impl Capture<'_> {
    /// Starts a future that comes to a `Result` on the session's executor; see [`Task`].
    ///
    /// It is started as well when telemetry is switched off; without a reporter it runs when it is awaited.
    pub fn spawn<F, By>(self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Outcome<By> + Send + 'static,
    {
        self.spawn_with(future, |result, found| result.error(found))
    }

    /// Starts a future that comes to a plain value, as [`spawn`](Self::spawn) does: only a panic is logged.
    pub fn spawn_plain<F>(self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_with(future, |_, _| {})
    }

    #[doc(hidden)]
    pub fn spawn_with<F>(
        self,
        future: F,
        look: impl FnOnce(&F::Output, Found<'_>) + Send + 'static,
    ) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::start(Box::pin(self.watch(future, look)), |task| {
            self.handle.spawn_boxed(task)
        })
    }

    /// Starts a future that comes to a `Result` on an executor of this thread, as [`spawn`](Self::spawn) does.
    pub fn spawn_local<F, By>(self, spawner: &impl LocalSpawner, future: F) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: Outcome<By> + 'static,
        By: 'static,
    {
        self.spawn_local_with(spawner, future, |result, found| result.error(found))
    }

    #[doc(hidden)]
    pub fn spawn_local_with<F>(
        self,
        spawner: &impl LocalSpawner,
        future: F,
        look: impl FnOnce(&F::Output, Found<'_>) + 'static,
    ) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        LocalTask::start(Box::pin(self.watch(future, look)), |task| {
            spawner.spawn_local(task)
        })
    }
}

impl Handle {
    /// Captures what blocks and futures fail with, for this session.
    #[inline]
    pub const fn capture(&self) -> Capture<'_> {
        Capture {
            handle: self,
            severity: Severity::Error,
            is_fatal: false,
        }
    }
}
