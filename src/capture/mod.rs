//! Capture: logs the failure of a block or a future, and passes it on unchanged.

use crate::event::severity::Severity;
use crate::session::{AsHandle, Handle};

#[cfg(feature = "std")]
mod frames;
mod macros;
pub(crate) mod outcome;
#[cfg(feature = "std")]
mod panic_hook;
#[cfg(feature = "std")]
mod panicked;
#[cfg(feature = "std")]
mod process_hook;
mod run;
#[cfg(has_arc)]
mod task;
#[cfg(feature = "std")]
mod unclaimed;

#[cfg(has_arc)]
use crate::spawner::LocalSpawner;
#[cfg(has_arc)]
use alloc::boxed::Box;
#[cfg(feature = "alloc")]
use core::future::Future;

pub use crate::event::exception::{ByBox, ByError, ByText};
pub use outcome::{ByNever, NoOutcome, OnError, Outcome, Probe, SomeOutcome};
#[cfg(feature = "std")]
pub use panic_hook::{PanicHook, install_panic_hook};
#[cfg(feature = "alloc")]
use run::Completion;
use run::Failure;
#[cfg(has_arc)]
pub use task::{LocalTask, Task};

/// Runs blocks and futures and logs their failures: an `Err`, or a panic.
///
/// The failure is passed on unchanged: the same `Err`, or a panic with the same payload. [`Handle::capture`] creates
/// one; [`capture!`](macro@crate::capture), [`async_capture!`](crate::async_capture) and
/// [`async_capture_local!`](crate::async_capture_local) are the same as macros, which also take blocks that return a
/// plain value.
///
/// | what happens | what is logged |
/// |---|---|
/// | a plain value, `Ok`, `None` | nothing |
/// | an `Err` of an [`Outcome`] | the error, as by [`log_exception`](Handle::log_exception); a text is its own message |
/// | an `Err` of any other type | nothing: it is a plain value |
/// | a panic that unwinds | an exception of type `panic` with its message; with the [panic hook](crate::install_panic_hook) also its location. Needs `std` |
/// | a panic that aborts | nothing |
/// | a future that is dropped before it completes | nothing |
///
/// Captures nest, also through [`Task`]s: of several captures for the same session, the innermost logs the failure
/// (with `std`; an error is recognized by its message, even as the source of another one).
///
/// Without a failure, capturing a block costs some twenty instructions and no allocation; with a `reporter` that has no
/// session, nothing. A failure costs what logging it costs, and with [`fatal`](Self::fatal) the wait.
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
#[must_use = "a capture does nothing until it runs something"]
pub struct Capture<'a> {
    /// `None` is the current session.
    handle: Option<&'a Handle>,
    severity: Severity,
    is_fatal: bool,
}

static OFF: Handle = Handle::off();

#[cfg(feature = "std")]
#[cold]
#[inline(never)]
fn current() -> Handle {
    Handle::current()
}

#[cfg(not(feature = "std"))]
const fn current() -> Handle {
    Handle::off()
}

impl Capture<'_> {
    /// Creates a capture that logs to the current session (`Handle::current`), as of when it is given something to run,
    /// unless it gets a [`reporter`](Self::reporter). Without `std` there is no current session, and nothing is logged.
    ///
    /// A future that it runs or spawns keeps the session that the thread had entered then: it is current while the future
    /// is polled, on whatever thread.
    pub const fn new() -> Self {
        Self {
            handle: None,
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
    /// Sets the session to log to: that of a [`Handle`], a [`Reporter`](crate::Reporter), or an `Option` of one. With
    /// `None`, nothing is logged.
    pub fn reporter<'b>(self, reporter: &'b (impl AsHandle + ?Sized)) -> Capture<'b> {
        Capture {
            handle: Some(reporter.as_handle().unwrap_or(&OFF)),
            severity: self.severity,
            is_fatal: self.is_fatal,
        }
    }

    /// Sets the severity of failures. Default: [`Severity::Error`]. User errors remain warnings.
    pub const fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets whether a failure ends the session, as by [`log_fatal_exception`](Handle::log_fatal_exception): before it
    /// is passed on, the queue is drained, for at most `flush_timeout`. Default: false.
    ///
    /// A block does not wait on a thread where that would deadlock, or without `std`: the drain is then only requested.
    pub const fn fatal(mut self, is_fatal: bool) -> Self {
        self.is_fatal = is_fatal;
        self
    }

    /// Runs a closure that returns a `Result`.
    ///
    /// # Panics
    /// If `work` does.
    #[inline]
    pub fn run<R: Outcome<By>, By>(self, work: impl FnOnce() -> R) -> R {
        self.run_with(work, |result, on_error| result.error(on_error))
    }

    /// Runs a closure that returns a plain value: only a panic is logged.
    ///
    /// # Panics
    /// If `work` does.
    #[inline]
    pub fn run_plain<R>(self, work: impl FnOnce() -> R) -> R {
        self.run_with(work, |_, _| {})
    }

    #[doc(hidden)]
    #[inline]
    pub fn run_with<R>(self, work: impl FnOnce() -> R, inspect: impl FnOnce(&R, OnError<'_>)) -> R {
        let of_thread;
        let handle = match self.handle {
            Some(handle) => handle,
            None => {
                of_thread = current();
                &of_thread
            }
        };
        if !handle.has_session() {
            return work();
        }
        run::run_block(handle, work, inspect, |failure, is_logged| {
            self.report(handle, failure, is_logged);
        })
    }

    /// Logs a failure, unless an inner capture or the panic hook already has.
    #[cold]
    fn report(&self, handle: &Handle, failure: &Failure<'_>, is_logged: bool) {
        if !self.is_fatal {
            if !is_logged {
                let _ = handle.log_exception(failure, self.severity);
            }
            return;
        }
        let wait = if is_logged {
            handle.begin_end()
        } else {
            handle.begin_fatal(failure, self.severity)
        };
        // Where waiting would deadlock, the drain has been requested all the same.
        #[cfg(feature = "std")]
        let _ = handle.block(wait);
        #[cfg(not(feature = "std"))]
        let _ = wait;
    }
}

/// # Futures
#[cfg(feature = "alloc")]
impl Capture<'_> {
    /// Runs a future that returns a `Result`, when awaited. It is `Send` if the future and its result are.
    ///
    /// # Panics
    /// If `future` does; in the same poll, unless the capture is [`fatal`](Self::fatal).
    ///
    /// # Cancel safety
    /// Dropping it drops `future` and logs nothing. In the wait of a [`fatal`](Self::fatal) capture the failure has
    /// already been logged; dropping it then loses only the result.
    pub fn future<F, By>(self, future: F) -> impl Future<Output = F::Output> + use<F, By>
    where
        F: Future,
        F::Output: Outcome<By>,
    {
        self.future_with(future, |result, on_error| result.error(on_error))
    }

    /// [`future`](Self::future) for a future that returns a plain value: only a panic is logged.
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
        inspect: L,
    ) -> impl Future<Output = F::Output> + use<F, L>
    where
        L: FnOnce(&F::Output, OnError<'_>),
    {
        let how = (self.severity, self.is_fatal);
        let (handle, scope) = self.resolve();
        async move {
            // Without a session there is nothing to catch a panic for.
            if !handle.has_session() && scope.is_none() {
                return future.await;
            }
            run_to_completion(how, handle, scope, future, inspect)
                .await
                .resume()
        }
    }

    /// The session to log to, and the one that the future's scope is of.
    fn resolve(&self) -> (Handle, run::Scope) {
        match self.handle {
            Some(handle) => (handle.clone(), None),
            #[cfg(feature = "std")]
            None => match Handle::entered() {
                Some(entered) => (entered.clone(), Some(entered)),
                None => (current(), None),
            },
            #[cfg(not(feature = "std"))]
            None => (current(), None),
        }
    }
}

/// Runs a future until it returns or panics, and catches the panic with or without a session: a task passes it on to
/// whatever awaits it. Failures are logged with this severity, and may be fatal.
#[cfg(feature = "alloc")]
async fn run_to_completion<F: Future>(
    (severity, is_fatal): (Severity, bool),
    handle: Handle,
    scope: run::Scope,
    future: F,
    inspect: impl FnOnce(&F::Output, OnError<'_>),
) -> Completion<F::Output> {
    let mut wait = None;
    let report = |failure: &Failure<'_>, is_logged| match (is_fatal, is_logged) {
        (false, false) => {
            let _ = handle.log_exception(failure, severity);
        }
        (false, true) => {}
        (true, false) => wait = handle.begin_fatal(failure, severity),
        (true, true) => wait = handle.begin_end(),
    };
    let completion = run::run_future(&handle, &scope, future, inspect, report).await;
    if wait.is_some() {
        let _ = handle.clone().finish(wait).await;
    }
    completion
}

/// # Tasks
#[cfg(has_arc)]
impl Capture<'_> {
    /// Spawns a future that returns a `Result` on the session's executor; see [`Task`].
    ///
    /// It is spawned even if telemetry is switched off; without a session, it runs when awaited.
    pub fn spawn<F, By>(self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Outcome<By> + Send + 'static,
    {
        self.spawn_with(future, |result, on_error| result.error(on_error))
    }

    /// [`spawn`](Self::spawn) for a future that returns a plain value: only a panic is logged.
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
        inspect: impl FnOnce(&F::Output, OnError<'_>) + Send + 'static,
    ) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (handle, scope) = self.resolve();
        let how = (self.severity, self.is_fatal);
        let completion = run_to_completion(how, handle.clone(), scope, future, inspect);
        Task::start(Box::pin(completion), |task| handle.spawn_boxed(task))
    }

    /// [`spawn`](Self::spawn) on an executor of the current thread, for a future that is not `Send`.
    pub fn spawn_local<F, By>(self, spawner: &impl LocalSpawner, future: F) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: Outcome<By> + 'static,
        By: 'static,
    {
        self.spawn_local_with(spawner, future, |result, on_error| result.error(on_error))
    }

    #[doc(hidden)]
    pub fn spawn_local_with<F>(
        self,
        spawner: &impl LocalSpawner,
        future: F,
        inspect: impl FnOnce(&F::Output, OnError<'_>) + 'static,
    ) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (handle, scope) = self.resolve();
        let how = (self.severity, self.is_fatal);
        let completion = run_to_completion(how, handle, scope, future, inspect);
        LocalTask::start(Box::pin(completion), |task| spawner.spawn_local(task))
    }
}

impl Handle {
    /// Creates a [`Capture`] that logs failures of blocks and futures to this session.
    #[inline]
    pub const fn capture(&self) -> Capture<'_> {
        Capture {
            handle: Some(self),
            severity: Severity::Error,
            is_fatal: false,
        }
    }
}
