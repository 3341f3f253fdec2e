//! The handle on a session that applications pass around, without type parameters.

use super::off::Off;
use super::session_ref::{AnySession, Session, SessionRef};
use super::shared::Shared;
use super::wait::{Baseline, Wait};
use crate::clock::Clock;
use crate::engine::{Engine, Priority};
use crate::event::encode::Heading;
use crate::event::exception::{AnyError, Loggable};
use crate::event::severity::Severity;
use crate::stats::Stats;
use crate::sys::fork::Forked;
use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use serde::Serialize;

#[cfg(has_arc)]
use super::{session_ref::WeakSession, shared::SessionCore, spawning::AnySpawner};
#[cfg(has_arc)]
use crate::bus::{Bus, QueueStateTracker};
#[cfg(feature = "alloc")]
use crate::{session::spawning::BoxFuture, spawner::SpawnError};
#[cfg(has_arc)]
use alloc::sync::Arc;
#[cfg(feature = "alloc")]
use core::future::Future;

/// A handle on a session: cheap to clone, and the same type for every transport, clock and executor.
///
/// A handle does not keep a session alive, and dropping it does nothing. If telemetry is switched off, every call is a
/// no-op. All methods may be called from any thread, inside or outside an executor, and in panic hooks and destructors.
/// None panics; only the returned futures and the `_blocking` methods wait.
///
/// In the child of a `fork()` nothing is logged or sent, and nothing waits: events are refused as
/// [`Forked`](crate::stats::Refusal::Forked), waits end at once with at least one event remaining, and the parent sends
/// what was queued. Sessions that the child starts itself are not affected.
#[derive(Clone)]
pub struct Handle(Inner);

#[derive(Clone)]
enum Inner {
    Off(Off),
    /// A session, or one with the handle's context.
    On(Session),
}

/// [`Handle::off`].
impl Default for Handle {
    fn default() -> Self {
        Self::off()
    }
}

impl Handle {
    /// Creates a handle without a session: every call is a no-op.
    #[must_use]
    pub const fn off() -> Self {
        Self(Inner::Off(Off::new()))
    }

    /// Creates a handle on a session that is switched off, which counts refused events.
    #[cfg(has_arc)]
    pub(crate) fn disabled(spawner: Option<alloc::boxed::Box<dyn AnySpawner>>) -> Self {
        Self(Inner::Off(Off::counting(spawner)))
    }

    pub(crate) fn fixed(session: &'static dyn AnySession) -> Self {
        Self(Inner::On(Session::Static(session)))
    }

    #[cfg(has_arc)]
    pub(crate) fn shared(session: Arc<dyn AnySession>) -> Self {
        Self(Inner::On(Session::Shared(session)))
    }

    /// The session without the handle's context.
    pub(super) fn base(&self) -> Option<Session> {
        match &self.0 {
            Inner::Off(_) => None,
            Inner::On(session) => Some(session.base().unwrap_or(session).clone()),
        }
    }

    pub(crate) fn session(&self) -> Option<&dyn AnySession> {
        match &self.0 {
            Inner::Off(_) => None,
            Inner::On(session) => Some(&**session),
        }
    }

    fn as_off(&self) -> Option<&Off> {
        match &self.0 {
            Inner::Off(off) => Some(off),
            _ => None,
        }
    }

    /// Whether this handle has a session; `false` if telemetry was off when it was built.
    pub(crate) const fn has_session(&self) -> bool {
        !matches!(self.0, Inner::Off(_))
    }

    /// The session's id; `None` if telemetry is switched off.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.session().map(|session| session.shared().identity.id())
    }

    /// The session's bus; `None` if it has none or telemetry is switched off.
    #[cfg(has_arc)]
    #[must_use]
    pub fn bus(&self) -> Option<&Bus> {
        self.session()
            .and_then(|session| session.shared().on_bus.bus())
    }

    /// Logs an event with severity [`Info`](Severity::Info); see [`log_with`](Self::log_with).
    pub fn log(&self, name: &str, data: impl Serialize) -> bool {
        self.log_with(name, data, Severity::Info)
    }

    /// Logs an event: encodes and queues it. Returns whether it was accepted.
    ///
    /// `data` is a struct, a map, or [`fields!`](crate::fields); `()` and `None` are the empty object, a text becomes
    /// `{"message": …}`, any other value `{"value": …}`. It is encoded before the call returns. NaN and infinities
    /// become null. What nests deeper than `max_data_depth` is cut, for which the data is serialized a second time. A key
    /// that a map or `#[serde(flatten)]` gives twice is sent twice; most readers take the last.
    ///
    /// The event is refused if `data`'s `Serialize` fails, panics or breaks its contract (a key without a value, another
    /// entry after an error), if raw JSON in it is not what every JSON reader takes (half of a surrogate pair, a number
    /// beyond the range of `f64`), or if the event is larger than `max_event_bytes`.
    ///
    /// Never waits for the network, never panics, and in the steady state allocates nothing itself. Refused events are
    /// counted by reason in [`stats`](Self::stats) and reported as diagnostics.
    pub fn log_with(&self, name: &str, data: impl Serialize, severity: Severity) -> bool {
        let priority = Priority::Important.of_severity(severity);
        self.log_as(name, data, severity, priority)
    }

    /// [`log_with`](Self::log_with) for events that the application does not log itself: they never use the reserve
    /// for errors.
    #[cfg(has_arc)]
    pub(crate) fn log_automatic(
        &self,
        name: &str,
        data: impl Serialize,
        severity: Severity,
    ) -> bool {
        self.log_as(name, data, severity, Priority::Ordinary)
    }

    #[inline]
    fn log_as(
        &self,
        name: &str,
        data: impl Serialize,
        severity: Severity,
        priority: Priority<'_>,
    ) -> bool {
        match self.session() {
            Some(session) => {
                let (shared, context) = session.parts();
                let heading = Heading {
                    name,
                    severity,
                    context,
                    is_cut: false,
                };
                let logged = shared.log(|| session.utc(), heading, data, priority);
                logged.is_ok()
            }
            None => self.refuse(),
        }
    }

    /// Logs an error and requests a flush, without waiting for it. Returns whether it was accepted.
    ///
    /// The error becomes an `UNHANDLED_EXCEPTION`, whose traceback is its chain of sources and, with `std` and
    /// `RUST_BACKTRACE` set, the calling thread's stack. If the caller is to blame
    /// ([`Blame::is_callers`](crate::event::Blame::is_callers)), it becomes a `user_error` of severity WARNING instead.
    /// Texts are cut to fit into `max_event_bytes`.
    ///
    /// Besides errors, [`Loggable`] has boxed ones, texts, and the reports of anyhow, eyre and surf:
    ///
    /// ```
    /// # let telemetry = tinkex_telemetry::Handle::off();
    /// # use tinkex_telemetry::Severity;
    /// fn train() -> Result<(), Box<dyn std::error::Error>> {
    ///     Err("no data")?
    /// }
    ///
    /// if let Err(error) = train() {
    ///     telemetry.log_exception(&error, Severity::Error);
    /// }
    /// telemetry.log_exception("the loss is NaN", Severity::Warning);
    /// ```
    pub fn log_exception<E: Loggable<By> + ?Sized, By>(
        &self,
        error: &E,
        severity: Severity,
    ) -> bool {
        let priority = Priority::Urgent { is_important: true }.of_severity(severity);
        match self.session() {
            Some(session) => {
                let (shared, heading) = failure(session, severity);
                let logged = shared.log_error(session.utc(), &error.any(), heading, priority);
                logged.is_ok()
            }
            None => self.refuse(),
        }
    }

    /// Queues the error and `SESSION_END`, and requests a flush. The wait counts from before they are queued, because
    /// the driver may settle them at once.
    pub(crate) fn begin_fatal<E: AnyError + ?Sized>(
        &self,
        error: &E,
        severity: Severity,
    ) -> Option<Wait> {
        let Some(session) = self.session() else {
            self.refuse();
            return None;
        };
        let ((shared, heading), at) = (failure(session, severity), session.utc());
        let before = shared.with(|engine| Baseline::of(engine));
        let tail = shared.session_end(session.now(), at);
        // Refused only after a stop or when the reserve is used up, and then counted.
        let _ = shared.log_error(at, error, heading, Priority::Fatal(&tail));
        let wait = Wait::for_flush(session, shared.flush_timeout());
        Some(before.map_or(wait, |before| wait.since(before)))
    }

    /// Queues `SESSION_END` for a fatal exception that was already logged, and requests a flush.
    pub(crate) fn begin_end(&self) -> Option<Wait> {
        let session = self.session()?;
        let shared = session.shared();
        let tail = shared.session_end(session.now(), session.utc());
        let before = shared
            .update(|engine| (Baseline::of(engine), engine.end(&tail)))
            .ok()?;
        Some(Wait::for_flush(session, shared.flush_timeout()).since(before))
    }

    /// Requests that everything accepted so far be sent now. Returns at once.
    pub fn flush(&self) {
        if let Some(session) = self.session() {
            let _ = session.shared().update(Engine::request_flush);
        }
    }

    /// A snapshot of the session's ledger and state. If telemetry is switched off, only refusals are counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match self.session() {
            Some(session) => {
                let now = session.now();
                let stats = session.shared().update(|engine| {
                    let wakers = engine.expire(now);
                    (engine.stats(), wakers)
                });
                stats.unwrap_or_else(|Forked| session.shared().stats_in_child())
            }
            None => self.as_off().map(Off::stats).unwrap_or_default(),
        }
    }

    /// Whether the session accepts no more events.
    #[cfg(feature = "std")]
    pub(crate) fn has_ended(&self) -> bool {
        let is_stopping =
            |session: &dyn AnySession| session.shared().with(|engine| engine.is_stopping());
        self.session()
            .is_none_or(|session| is_stopping(session).unwrap_or(true))
    }

    /// Whether both are handles on one session.
    #[cfg(feature = "std")]
    pub(crate) fn is_same_session(&self, other: &Self) -> bool {
        match (self.session(), other.session()) {
            (Some(one), Some(other)) => core::ptr::eq(one.shared(), other.shared()),
            _ => false,
        }
    }

    fn refuse(&self) -> bool {
        if let Some(off) = self.as_off() {
            off.refuse();
        }
        false
    }
}

#[cfg(feature = "alloc")]
impl Handle {
    /// Starts a task on the session's executor.
    ///
    /// # Errors
    /// When telemetry is switched off, when the session was built without a spawner, or when its executor no longer
    /// runs, as in the child of a `fork()`.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        if !self.has_session() {
            return Err(SpawnError::new("telemetry is switched off"));
        }
        self.spawn_boxed(alloc::boxed::Box::pin(task))
    }

    /// Starts a task of the application on the session's executor, even if telemetry is switched off.
    pub(crate) fn spawn_boxed(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        match &self.0 {
            Inner::Off(off) => off.spawn(task),
            Inner::On(session) => session.shared().spawn(task),
        }
    }
}

/// Where an error is logged to, and the heading of what is logged if it cannot be described.
fn failure(session: &dyn AnySession, severity: Severity) -> (&Shared, Heading<'_>) {
    let (shared, context) = session.parts();
    let heading = Heading {
        name: "exception",
        severity,
        context,
        is_cut: false,
    };
    (shared, heading)
}

impl<C: Clock> SessionRef<C> {
    /// Returns a handle on this session.
    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Static(core) => Handle::fixed(*core),
            #[cfg(has_arc)]
            Self::Shared(core) => Handle::shared(Arc::<SessionCore<C>>::clone(core)),
        }
    }
}

#[cfg(has_arc)]
impl WeakSession {
    /// Whether it can still be upgraded.
    #[cfg(feature = "std")]
    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::Static(_) => true,
            Self::Shared(session) => session.strong_count() > 0,
        }
    }

    /// Returns a handle, if the session still exists.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        match self {
            Self::Static(session) => Some(Handle::fixed(*session)),
            Self::Shared(session) => session.upgrade().map(Handle::shared),
        }
    }
}

#[cfg(has_arc)]
impl QueueStateTracker {
    /// Creates a tracker for a session's requests, on the session's bus. If telemetry is switched off, it reports to
    /// its observer only.
    #[must_use]
    pub fn new(session: &Handle) -> Self {
        Self::with(
            session.bus().cloned(),
            session.session_id().unwrap_or_default(),
        )
    }
}

// Nothing that the program passes in runs under a session's lock, so a panic of it leaves every session consistent.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("session_id", &self.session_id())
            .finish_non_exhaustive()
    }
}
