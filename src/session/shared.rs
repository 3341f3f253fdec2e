//! What a driver, a reporter and its handles share.

use crate::clock::Clock;
use crate::diagnostic::{Diagnostic, Observer};
use crate::engine::Engine;
use crate::event::encode::{self, SessionEnd};
use crate::event::exception::ErrorRules;
use crate::event::limits::DataLimits;
use crate::session::identity::Session;
use crate::session::options::Options;
use crate::stats::{Refusal, Stats};
use crate::sys::fork::{Fork, Forked};
use crate::sys::lock::Lock;
use crate::time::{self, Instant, Timestamp};
use core::ops::Deref;
use core::time::Duration;

#[cfg(has_arc)]
use crate::bus::Bus;
#[cfg(has_arc)]
use crate::session::on_bus::OnBus;
#[cfg(feature = "alloc")]
use crate::spawner::SpawnError;
#[cfg(has_arc)]
use crate::spawner::Spawner;
#[cfg(feature = "std")]
use crate::{
    event::scrub::Scrub,
    spawner::{Placement, WouldDeadlock},
};
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(has_arc)]
use alloc::sync::{Arc, Weak};
#[cfg(feature = "std")]
use core::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "alloc")]
use core::{future::Future, pin::Pin};

/// A boxed future, where there is no other way to name one.
#[cfg(feature = "alloc")]
pub(crate) type BoxFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One session, whatever its clock.
pub(crate) struct Core<C> {
    pub(crate) clock: C,
    pub(crate) shared: Shared,
}

/// The part of a session that no type parameter reaches.
pub(crate) struct Shared {
    pub(crate) session: Session,
    /// Behind [`with`](Self::with) only: in the child of a fork nobody may wait for it.
    state: Lock<Engine>,
    /// The process that the session belongs to, and what it refused in others.
    fork: Fork,
    #[cfg(feature = "std")]
    refused_forked: AtomicUsize,
    pub(crate) started: Instant,
    /// The length of a request's body up to its events.
    pub(crate) head_len: usize,
    /// In microseconds, which take half the memory.
    flush_timeout: u64,
    drop_timeout: u64,
    pub(crate) max_event_bytes: usize,
    pub(crate) data_limits: DataLimits,
    #[cfg(feature = "std")]
    pub(super) scrub: Option<Scrub>,
    /// Whether data is more than just encoded: limits or a hook are set.
    pub(super) looks_at_data: bool,
    observer: Observer,
    pub(crate) errors: ErrorRules,
    #[cfg(has_arc)]
    pub(crate) on_bus: OnBus,
    #[cfg(feature = "std")]
    driver_thread: Lock<Option<std::thread::ThreadId>>,
    #[cfg(feature = "alloc")]
    spawner: Option<Box<dyn AnySpawner>>,
}

/// What [`Shared::new`] needs besides the engine.
pub(crate) struct Parts {
    pub(crate) session: Session,
    pub(crate) observer: Observer,
    pub(crate) errors: ErrorRules,
    #[cfg(feature = "std")]
    pub(crate) scrub: Option<Scrub>,
    #[cfg(has_arc)]
    pub(crate) bus: Option<Bus>,
    #[cfg(feature = "alloc")]
    pub(crate) spawner: Option<Box<dyn AnySpawner>>,
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        options: &Options,
        parts: Parts,
        started: Instant,
        head_len: usize,
    ) -> Self {
        let data_limits = options.data_limits();
        #[cfg(feature = "std")]
        let has_hook = parts.scrub.is_some();
        #[cfg(not(feature = "std"))]
        let has_hook = false;
        Self {
            head_len,
            session: parts.session,
            state: Lock::new(engine),
            fork: Fork::here(),
            #[cfg(feature = "std")]
            refused_forked: AtomicUsize::new(0),
            started,
            flush_timeout: time::micros(options.flush_timeout).unwrap_or(u64::MAX),
            drop_timeout: time::micros(options.drop_timeout).unwrap_or(u64::MAX),
            max_event_bytes: options.max_event_bytes,
            data_limits,
            #[cfg(feature = "std")]
            scrub: parts.scrub,
            looks_at_data: has_hook || data_limits.is_set(),
            observer: parts.observer,
            errors: parts.errors,
            #[cfg(has_arc)]
            on_bus: OnBus::new(parts.bus),
            #[cfg(feature = "std")]
            driver_thread: Lock::new(None),
            #[cfg(feature = "alloc")]
            spawner: parts.spawner,
        }
    }

    pub(crate) const fn flush_timeout(&self) -> Duration {
        Duration::from_micros(self.flush_timeout)
    }

    pub(crate) const fn drop_timeout(&self) -> Duration {
        Duration::from_micros(self.drop_timeout)
    }

    /// Runs `work` on the session's state, unless this is the child of a fork.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> Result<R, Forked> {
        if self.fork.is_forked() {
            return Err(Forked);
        }
        Ok(self.state.with(work))
    }

    /// Between two of many turns with the session's state.
    pub(crate) fn pause(&self) {
        self.state.pause();
    }

    /// Whether this is the child of a fork, to which the session does not belong.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked()
    }

    /// In the child of a fork: the ledger as it was then, where it can be read, and what was refused since.
    pub(crate) fn stats_in_child(&self) -> Stats {
        let mut stats = self.ledger_at_fork().unwrap_or_default();
        stats.driver_alive = false;
        #[cfg(feature = "std")]
        {
            stats.refused.forked = self.refused_forked.load(Ordering::Relaxed) as u64;
        }
        stats
    }

    /// In the child of a fork: the ledger as it was then. `None` where another thread was just changing it: it held the
    /// lock, or the figures do not add up, for the memory is not copied at one instant.
    #[cfg(feature = "std")]
    pub(crate) fn ledger_at_fork(&self) -> Option<Stats> {
        let stats = self.state.try_with(|engine| engine.stats());
        stats.filter(Stats::is_balanced)
    }

    #[cfg(not(feature = "std"))]
    #[expect(clippy::unused_self, reason = "nothing forks without std")]
    pub(crate) fn ledger_at_fork(&self) -> Option<Stats> {
        None
    }

    /// Counts what was refused because this is the child of a fork.
    #[cold]
    pub(crate) fn refuse_forked(&self) -> Refusal {
        #[cfg(feature = "std")]
        self.refused_forked.fetch_add(1, Ordering::Relaxed);
        Refusal::Forked
    }

    /// The tail of a `SESSION_END` of now.
    pub(crate) fn session_end(&self, now: Instant, at: Timestamp) -> SessionEnd {
        encode::session_end(at, now.saturating_duration_since(self.started))
    }

    #[allow(dead_code, reason = "a client may have something to tell")]
    pub(crate) const fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Tells the observer what has happened; `all` also what should still be quiet.
    pub(crate) fn report(&self, now: Instant, all: bool) {
        #[cfg(feature = "std")]
        let _own = crate::sys::origin::OwnWork::enter();
        while let Ok(Some((notice, limit))) = self.with(|engine| engine.next_notice(now, all)) {
            self.observer.tell(&Diagnostic {
                kind: notice.kind,
                count: notice.count,
                why: notice.why.as_str(),
                session_id: self.session.id(),
                limit,
            });
        }
    }

    /// The session begins to stop: it takes no more events from its bus.
    pub(crate) fn leave_bus(&self) {
        #[cfg(has_arc)]
        self.on_bus.detach();
    }

    /// Remembers on which thread the driver is polled, for those who want to block on it.
    #[cfg(feature = "std")]
    pub(crate) fn note_driver_thread(&self) {
        if self.is_forked() {
            return;
        }
        let current = std::thread::current().id();
        self.driver_thread.with(|thread| *thread = Some(current));
    }

    /// The driver that comes has not been polled anywhere yet.
    #[cfg(feature = "std")]
    pub(crate) fn forget_driver_thread(&self) {
        self.driver_thread.with(|thread| *thread = None);
    }

    #[cfg(not(feature = "std"))]
    #[expect(clippy::unused_self, reason = "nothing blocks without std")]
    pub(crate) fn note_driver_thread(&self) {}

    /// Whether the driver was last polled on the calling thread.
    #[cfg(feature = "std")]
    pub(crate) fn is_driven_here(&self) -> bool {
        let current = std::thread::current().id();
        !self.is_forked() && self.driver_thread.with(|thread| *thread == Some(current))
    }
}

#[cfg(feature = "alloc")]
impl Shared {
    /// Whether the driver has a thread of its own.
    #[cfg(feature = "std")]
    pub(crate) fn has_dedicated_thread(&self) -> bool {
        self.spawner
            .as_ref()
            .is_some_and(|spawner| spawner.placement() == Placement::Dedicated)
    }

    pub(crate) fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        match &self.spawner {
            _ if self.is_forked() => Err(SpawnError::new(
                "the executor is the parent process's: open a session after the fork",
            )),
            Some(spawner) => spawner.spawn(task),
            None => Err(SpawnError::new(
                "the session was built without a spawner: set one with runtime() or spawner()",
            )),
        }
    }

    /// Runs `wait` as the executor wants it.
    #[cfg(feature = "std")]
    pub(crate) fn block_in_place(&self, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
        let is_here = self.is_driven_here();
        match &self.spawner {
            Some(spawner) => spawner.block_in_place(is_here, wait),
            None if is_here => Err(WouldDeadlock),
            None => {
                wait();
                Ok(())
            }
        }
    }
}

/// A session without its clock's type, as handles hold it.
pub(crate) trait Sink: Send + Sync {
    fn shared(&self) -> &Shared;
    fn now(&self) -> Instant;
    fn utc(&self) -> Timestamp;
    #[cfg(feature = "alloc")]
    fn sleep_until(&self, at: Instant) -> BoxFuture<'_>;
}

impl<C: Clock> Sink for Core<C> {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn utc(&self) -> Timestamp {
        self.clock.utc()
    }

    #[cfg(feature = "alloc")]
    fn sleep_until(&self, at: Instant) -> BoxFuture<'_> {
        Box::pin(self.clock.sleep_until(at))
    }
}

/// A [`Spawner`] without its type.
#[cfg(feature = "alloc")]
pub(crate) trait AnySpawner: Send + Sync {
    fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError>;
    #[cfg(feature = "std")]
    fn placement(&self) -> Placement;
    #[cfg(feature = "std")]
    fn block_in_place(&self, is_here: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock>;
}

#[cfg(has_arc)]
impl<S: Spawner> AnySpawner for Arc<S> {
    fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        S::spawn(self, task)
    }

    #[cfg(feature = "std")]
    fn placement(&self) -> Placement {
        S::placement(self)
    }

    #[cfg(feature = "std")]
    fn block_in_place(&self, is_here: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
        S::block_in_place(self, is_here, wait)
    }
}

/// A session with its clock's type, as drivers and reporters hold it.
pub(crate) enum CoreRef<C: 'static> {
    Static(&'static Core<C>),
    #[cfg(has_arc)]
    Shared(Arc<Core<C>>),
}

impl<C> Clone for CoreRef<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Static(core) => Self::Static(core),
            #[cfg(has_arc)]
            Self::Shared(core) => Self::Shared(Arc::clone(core)),
        }
    }
}

impl<C> Deref for CoreRef<C> {
    type Target = Core<C>;

    fn deref(&self) -> &Core<C> {
        match self {
            Self::Static(core) => core,
            #[cfg(has_arc)]
            Self::Shared(core) => core,
        }
    }
}

#[cfg(has_arc)]
impl<C: Clock> CoreRef<C> {
    /// This session for as long as others hold it.
    pub(crate) fn downgrade(&self) -> WeakSink {
        match self {
            Self::Static(core) => WeakSink::Static(*core),
            Self::Shared(core) => {
                let sink: Arc<dyn Sink> = Arc::<Core<C>>::clone(core);
                WeakSink::Shared(Arc::downgrade(&sink))
            }
        }
    }
}

/// A session that is not held.
#[cfg(has_arc)]
pub(crate) enum WeakSink {
    Static(&'static dyn Sink),
    Shared(Weak<dyn Sink>),
}
