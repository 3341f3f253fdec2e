//! What applications pass around: a handle on a session, without type parameters.

use crate::clock::Clock;
use crate::engine::{Kind, Wakers, wake};
use crate::event::exception::AnyError;
use crate::event::severity::Severity;
use crate::session::shared::{CoreRef, Sink};
use crate::session::wait::Wait;
use crate::stats::Stats;
use crate::sys::fork::Forked;
use core::fmt;
use serde::Serialize;

#[cfg(has_arc)]
use crate::{
    bus::Bus,
    bus::QueueStateTracker,
    session::shared::{AnySpawner, Core, WeakSink},
};
#[cfg(feature = "alloc")]
use crate::{session::shared::BoxFuture, spawner::SpawnError, stats::Drain};
#[cfg(has_arc)]
use alloc::sync::Arc;
#[cfg(has_arc)]
use core::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "alloc")]
use core::{future::Future, pin::pin, time::Duration};

/// A handle on a session: cheap to clone, the same type whatever transport, clock and executor the session has.
///
/// A handle never keeps a session alive, and dropping it does nothing. A handle on a session that is switched off takes
/// every call and does nothing. Everything here may be called from any thread, in any executor and in none, in a panic
/// hook and in a destructor; nothing here panics, and nothing but what is `async` or says `_blocking` ever waits.
///
/// In the child of a `fork()` nothing is logged or sent and nothing waits: events are refused with reason
/// [`Forked`](crate::Refusal::Forked), waits end at once with at least one event remaining, and what was queued is sent
/// by the parent, where all goes on as before. A session that the child opens is its own.
#[derive(Clone)]
pub struct Handle(Inner);

#[derive(Clone)]
enum Inner {
    Off(Off),
    Static(&'static dyn Sink),
    #[cfg(has_arc)]
    Shared(Arc<dyn Sink>),
}

/// A session that is switched off counts what it refuses, where it can.
#[derive(Clone, Default)]
struct Off {
    #[cfg(has_arc)]
    counted: Option<Arc<Disabled>>,
}

/// What is left of a session that is switched off.
#[cfg(has_arc)]
struct Disabled {
    refused: AtomicUsize,
    /// The application's own tasks run all the same.
    spawner: Option<alloc::boxed::Box<dyn AnySpawner>>,
}

impl Off {
    fn refuse(&self) {
        #[cfg(has_arc)]
        if let Some(disabled) = &self.counted {
            disabled.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn stats(&self) -> Stats {
        #[cfg_attr(
            not(has_arc),
            expect(unused_mut, reason = "counted where handles are shared")
        )]
        let mut stats = Stats::default();
        #[cfg(has_arc)]
        if let Some(disabled) = &self.counted {
            stats.refused.disabled = disabled.refused.load(Ordering::Relaxed) as u64;
        }
        stats
    }
}

impl Handle {
    /// A handle on no session: every call is a no-op.
    #[must_use]
    pub const fn off() -> Self {
        Self(Inner::Off(Off {
            #[cfg(has_arc)]
            counted: None,
        }))
    }

    /// A handle on a session that is switched off, which counts what it refuses.
    #[cfg(has_arc)]
    pub(crate) fn disabled(spawner: Option<alloc::boxed::Box<dyn AnySpawner>>) -> Self {
        Self(Inner::Off(Off {
            counted: Some(Arc::new(Disabled {
                refused: AtomicUsize::new(0),
                spawner,
            })),
        }))
    }

    pub(crate) fn fixed(sink: &'static dyn Sink) -> Self {
        Self(Inner::Static(sink))
    }

    #[cfg(has_arc)]
    pub(crate) fn shared(sink: Arc<dyn Sink>) -> Self {
        Self(Inner::Shared(sink))
    }

    pub(crate) fn sink(&self) -> Option<&dyn Sink> {
        match &self.0 {
            Inner::Off(_) => None,
            Inner::Static(sink) => Some(*sink),
            #[cfg(has_arc)]
            Inner::Shared(sink) => Some(&**sink),
        }
    }

    fn off_sink(&self) -> Option<&Off> {
        match &self.0 {
            Inner::Off(off) => Some(off),
            _ => None,
        }
    }

    /// Whether there is a session behind this handle. `false` when telemetry is switched off.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        !matches!(self.0, Inner::Off(_))
    }

    /// The session's id; `None` when telemetry is switched off.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.sink().map(|sink| sink.shared().session.id())
    }

    /// The bus that the session belongs to; `None` when it has none or telemetry is switched off.
    #[cfg(has_arc)]
    #[must_use]
    pub fn bus(&self) -> Option<&Bus> {
        self.sink().and_then(|sink| sink.shared().on_bus.bus())
    }

    /// Logs an event with severity [`Info`](Severity::Info); see [`log_with`](Self::log_with).
    pub fn log(&self, name: &str, data: impl Serialize) -> bool {
        self.log_with(name, data, Severity::Info)
    }

    /// Logs an event: encodes it, queues it, and says whether it was accepted.
    ///
    /// `data` is a struct, a map, or [`fields!`](crate::event::fields); `()` and `None` are the empty object. It is encoded
    /// here and now: what changes later changes nothing. NaN and infinities become null. A value that is not an object,
    /// whose `Serialize` fails or panics, or that is larger than `max_event_bytes` refuses this one event.
    ///
    /// Never waits for the network, never panics, and in the steady state allocates nothing of its own. `false` means
    /// that the event was refused: [`stats`](Self::stats) counts why, and a diagnostic tells it.
    pub fn log_with(&self, name: &str, data: impl Serialize, severity: Severity) -> bool {
        match self.sink() {
            Some(sink) => sink
                .shared()
                .log(|| sink.utc(), name, data, severity)
                .is_ok(),
            None => self.refuse(),
        }
    }

    /// Logs an error and asks for a flush, without waiting for it. Says whether it was accepted.
    ///
    /// It becomes an `UNHANDLED_EXCEPTION` with its chain of sources as traceback, and with `std` the calling thread's
    /// stack if `RUST_BACKTRACE` is set; or a `user_error` of severity WARNING, when it is the caller's own fault
    /// ([`Fault::is_callers`](crate::Fault::is_callers)). Texts that do not fit into `max_event_bytes` are cut.
    pub fn log_exception<E: AnyError + ?Sized>(&self, error: &E, severity: Severity) -> bool {
        match self.sink() {
            Some(sink) => sink
                .shared()
                .log_error(sink.utc(), error, severity, Kind::Urgent)
                .is_ok(),
            None => self.refuse(),
        }
    }

    /// Queues the error and `SESSION_END` behind it, and asks for a flush. What the wait counts, it counts from before:
    /// the driver may settle both at once.
    pub(crate) fn begin_fatal<E: AnyError + ?Sized>(
        &self,
        error: &E,
        severity: Severity,
    ) -> Option<Wait> {
        let Some(sink) = self.sink() else {
            self.refuse();
            return None;
        };
        let (shared, at) = (sink.shared(), sink.utc());
        let before = shared.with(|engine| engine.stats());
        let tail = shared.session_end(sink.now(), at);
        // Refused only after a stop or when the reserve is used up; counted either way.
        let _ = shared.log_error(at, error, severity, Kind::Fatal(&tail));
        let wait = Wait::for_flush(sink, shared.flush_timeout());
        Some(before.map_or(wait, |before| wait.since(before)))
    }

    /// Queues `SESSION_END` for a fatal exception that has been logged already, and asks for a flush.
    pub(crate) fn begin_end(&self) -> Option<Wait> {
        let sink = self.sink()?;
        let shared = sink.shared();
        let tail = shared.session_end(sink.now(), sink.utc());
        let ended = shared.with(|engine| (engine.stats(), engine.end(&tail)));
        let (before, waker) = ended.ok()?;
        waker.into_iter().for_each(wake);
        Some(Wait::for_flush(sink, shared.flush_timeout()).since(before))
    }

    /// Asks for everything accepted so far to be sent now. Returns at once.
    pub fn flush(&self) {
        if let Some(sink) = self.sink() {
            let asked = sink.shared().with(|engine| engine.request_flush());
            asked
                .into_iter()
                .filter_map(|(_, waker)| waker)
                .for_each(wake);
        }
    }

    /// The ledger, and the state of the session. All zeros when telemetry is switched off, but for what it refused.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match self.sink() {
            Some(sink) => {
                let now = sink.now();
                let looked = sink.shared().with(|engine| {
                    let wakers = engine.expire(now);
                    (engine.stats(), wakers)
                });
                match looked {
                    Ok((stats, wakers)) => {
                        wakers.into_iter().for_each(Wakers::wake);
                        stats
                    }
                    Err(Forked) => sink.shared().stats_in_child(),
                }
            }
            None => self.off_sink().map(Off::stats).unwrap_or_default(),
        }
    }

    /// Tells the session's observer something, or the `log` facade where there is no session.
    #[cfg(feature = "std")]
    #[allow(dead_code, reason = "a client may have something to tell")]
    pub(crate) fn tell(&self, kind: DiagnosticKind, why: &str, session_id: &str) {
        let observer = self.sink().map(|sink| sink.shared().observer());
        observer.unwrap_or(&Observer::Log).tell(&Diagnostic {
            kind,
            count: 1,
            why,
            session_id,
            limit: 0,
        });
    }

    /// Whether nothing can be logged any more.
    #[cfg(feature = "std")]
    pub(crate) fn is_over(&self) -> bool {
        let is_stopping = |sink: &dyn Sink| sink.shared().with(|engine| engine.is_stopping());
        self.sink()
            .is_none_or(|sink| is_stopping(sink).unwrap_or(true))
    }

    fn refuse(&self) -> bool {
        if let Some(off) = self.off_sink() {
            off.refuse();
        }
        false
    }
}

/// Waits. What each asks for is asked for when it is called; the future only waits, so it may be dropped at any time.
#[cfg(feature = "alloc")]
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
        let wait = self.sink().map(|sink| Wait::for_flush(sink, timeout));
        self.clone().finish(wait)
    }

    /// Ends the session: `SESSION_END` unless it was sent, and everything due at once. The future waits until all is
    /// settled, at most `timeout`; what is left then is dropped, with reason
    /// [`Shutdown`](crate::DropReason::Shutdown). [`Duration::MAX`] is no deadline.
    ///
    /// A backoff is cut short, a server's `Retry-After` is not; when the next attempt would not come before the deadline
    /// the wait ends at once. Calling it again is harmless: the first call's deadline stands. Afterwards every event is
    /// refused, with reason [`SessionEnded`](crate::Refusal::SessionEnded).
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
        let wait = self.sink().map(|sink| Wait::for_stop(sink, timeout));
        self.clone().finish(wait)
    }

    pub(crate) async fn finish(self, wait: Option<Wait>) -> Drain {
        let (Some(sink), Some(wait)) = (self.sink(), &wait) else {
            return Drain::default();
        };
        let timer = pin!(async {
            match wait.deadline {
                Some(deadline) => sink.sleep_until(deadline).await,
                None => core::future::pending().await,
            }
        });
        wait.wait(sink, timer).await
    }

    /// Starts a task on the session's executor.
    ///
    /// # Errors
    /// When telemetry is switched off, when the session was built without a spawner, or when its executor is gone, as it
    /// is in the child of a `fork()`.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        if !self.is_enabled() {
            return Err(SpawnError::new("telemetry is switched off"));
        }
        self.spawn_boxed(alloc::boxed::Box::pin(task))
    }

    /// Starts a task of the application's own: on the session's executor, also when telemetry is switched off.
    pub(crate) fn spawn_boxed(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        if let Some(sink) = self.sink() {
            return sink.shared().spawn(task);
        }
        #[cfg(has_arc)]
        if let Inner::Off(Off {
            counted: Some(disabled),
        }) = &self.0
            && let Some(spawner) = &disabled.spawner
        {
            return spawner.spawn(task);
        }
        drop(task);
        Err(SpawnError::new(
            "telemetry is switched off, and there is no spawner",
        ))
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
        self.block(self.sink().map(|sink| Wait::for_flush(sink, timeout)))
    }

    /// [`stop`](Self::stop), waiting on the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`], see above. The session stops all the same, within `timeout`.
    pub fn stop_blocking(&self, timeout: Duration) -> Result<Drain, WouldDeadlock> {
        self.block(self.sink().map(|sink| Wait::for_stop(sink, timeout)))
    }

    pub(crate) fn block(&self, wait: Option<Wait>) -> Result<Drain, WouldDeadlock> {
        let (Some(sink), Some(wait)) = (self.sink(), &wait) else {
            return Ok(Drain::default());
        };
        if let Some(drain) = wait.result_now(sink) {
            return Ok(drain);
        }
        let mut drain = Drain::default();
        sink.shared()
            .block_in_place(&mut || drain = wait.wait_blocking(sink))?;
        Ok(drain)
    }
}

#[cfg(feature = "std")]
use crate::diagnostic::{Diagnostic, DiagnosticKind, Observer};
#[cfg(feature = "std")]
use crate::spawner::WouldDeadlock;

impl<C: Clock> CoreRef<C> {
    /// A handle on this session.
    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Static(core) => Handle::fixed(*core),
            #[cfg(has_arc)]
            Self::Shared(core) => Handle::shared(Arc::<Core<C>>::clone(core)),
        }
    }
}

#[cfg(has_arc)]
impl WeakSink {
    /// A handle, while there is the session.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        match self {
            Self::Static(sink) => Some(Handle::fixed(*sink)),
            Self::Shared(sink) => sink.upgrade().map(Handle::shared),
        }
    }
}

#[cfg(has_arc)]
impl QueueStateTracker {
    /// A tracker for the requests of a session, on its bus. With a handle on a session that is switched off, only the
    /// observer is told.
    #[must_use]
    pub fn new(session: &Handle) -> Self {
        Self::with(
            session.bus().cloned(),
            session.session_id().unwrap_or_default(),
        )
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("session_id", &self.session_id())
            .finish_non_exhaustive()
    }
}
