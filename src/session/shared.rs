//! The state that a driver, a reporter and its handles share.

use super::gate::Gate;
use super::host::Host;
use super::identity::Identity;
use super::options::Options;
use crate::diagnostic::Observer;
use crate::engine::{Engine, Wakers, WithWakers};
use crate::event::encode::{self, SessionEnd};
use crate::event::exception::ErrorRules;
use crate::event::limits::DataLimits;
use crate::stats::{Refusal, Stats};
use crate::sys::fork::{Fork, Forked};
use crate::sys::lock::Lock;
use crate::time::{self, Instant, Timestamp};
use core::time::Duration;

#[cfg(has_arc)]
use super::on_bus::OnBus;
#[cfg(feature = "alloc")]
use super::spawning::AnySpawner;
#[cfg(has_arc)]
use crate::bus::Bus;
#[cfg(feature = "alloc")]
use alloc::boxed::Box;

/// A session: its clock, and everything that does not depend on the clock's type.
pub(crate) struct SessionCore<C> {
    pub(crate) clock: C,
    pub(crate) shared: Shared,
}

/// The part of a session without type parameters.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    /// Waited for in [`with`](Self::with) only, which checks for a fork: in the child the lock may be held forever.
    state: Lock<Engine>,
    /// Detects whether this process is a child of the one that the session belongs to.
    fork: Fork,
    pub(super) host: Host,
    pub(crate) started: Instant,
    /// The length of a request's body before its events, in bytes.
    pub(crate) body_prefix_len: usize,
    /// Both in microseconds, to halve their size.
    flush_timeout: u64,
    drop_timeout: u64,
    pub(crate) max_event_bytes: usize,
    pub(crate) data_limits: DataLimits,
    pub(super) gate: Gate,
    /// Whether events' data must be inspected, because limits or a hook are set.
    pub(super) inspects_data: bool,
    observer: Observer,
    pub(crate) errors: ErrorRules,
    #[cfg(has_arc)]
    pub(crate) on_bus: OnBus,
    #[cfg(feature = "alloc")]
    pub(super) spawner: Option<Box<dyn AnySpawner>>,
}

/// The parts that [`Shared::new`] stores as they are.
pub(crate) struct SharedParts {
    pub(crate) identity: Identity,
    pub(crate) observer: Observer,
    pub(crate) errors: ErrorRules,
    pub(crate) host: Host,
    #[cfg(has_arc)]
    pub(crate) bus: Option<Bus>,
    #[cfg(feature = "alloc")]
    pub(crate) spawner: Option<Box<dyn AnySpawner>>,
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        options: &Options,
        parts: SharedParts,
        started: Instant,
        body_prefix_len: usize,
    ) -> Self {
        let data_limits = options.data_limits();
        #[cfg(has_arc)]
        let on_bus = OnBus::new(parts.bus, parts.identity.id());
        Self {
            body_prefix_len,
            identity: parts.identity,
            state: Lock::new(engine),
            fork: Fork::here(),
            started,
            flush_timeout: time::micros(options.flush_timeout).unwrap_or(u64::MAX),
            drop_timeout: time::micros(options.drop_timeout).unwrap_or(u64::MAX),
            max_event_bytes: options.max_event_bytes,
            data_limits,
            gate: Gate::new(options.min_severity),
            inspects_data: parts.host.has_scrub() || data_limits.is_set(),
            host: parts.host,
            observer: parts.observer,
            errors: parts.errors,
            #[cfg(has_arc)]
            on_bus,
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

    /// Runs `work` on the session's engine, under its lock; fails in the child of a fork.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> Result<R, Forked> {
        if self.fork.is_forked() {
            return Err(Forked);
        }
        Ok(self.state.with(|engine| {
            let result = work(engine);
            engine.check();
            result
        }))
    }

    /// [`with`](Self::with) for calls that return wakers, which it wakes outside the lock.
    #[inline]
    pub(crate) fn update<W: WithWakers>(
        &self,
        work: impl FnOnce(&mut Engine) -> W,
    ) -> Result<W::Value, Forked> {
        let (value, wakers) = self.with(work)?.split();
        if !wakers.is_none() {
            self.wake(wakers);
        }
        Ok(value)
    }

    #[inline(never)]
    fn wake(&self, wakers: Wakers) {
        #[cfg(feature = "std")]
        if matches!(wakers, Wakers::Unattended) {
            return self.report_unattended();
        }
        wakers.wake(|| self.with(Engine::take_waiting).unwrap_or_default());
    }

    /// Lets other threads take the lock between repeated calls of [`with`](Self::with).
    pub(crate) fn pause(&self) {
        self.state.pause();
    }

    /// Whether this is the child of a fork, so that the session belongs to the parent.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_forked()
    }

    /// In the child of a fork: the ledger at the fork, if it can be read, and the refusals since.
    pub(crate) fn stats_in_child(&self) -> Stats {
        let mut stats = self.ledger_at_fork().unwrap_or_default();
        stats.driver_alive = false;
        stats.refused.forked = self.host.refused_forked();
        stats
    }

    /// In the child of a fork: the ledger at the fork. `None` if another thread was changing it: that thread held the
    /// lock, or, since a fork does not copy memory at one instant, the ledger does not balance.
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

    /// Counts an event refused in the child of a fork.
    #[cold]
    pub(crate) fn refuse_forked(&self) -> Refusal {
        self.host.count_forked();
        Refusal::Forked
    }

    /// The tail of a `SESSION_END` for the current time.
    pub(crate) fn session_end(&self, now: Instant, at: Timestamp) -> SessionEnd {
        encode::session_end(at, now.saturating_duration_since(self.started))
    }

    pub(crate) const fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Marks what this thread does as the session's own work, until the result is dropped.
    #[cfg(feature = "std")]
    pub(crate) fn enter_own_work(&self) -> crate::sys::own_work::Working {
        let settled = || self.with(|engine| engine.stats().settled());
        self.host.own_work.enter(|| settled().unwrap_or(u64::MAX))
    }

    /// Stops taking events from the bus.
    pub(crate) fn leave_bus(&self) {
        #[cfg(has_arc)]
        self.on_bus.detach();
    }

    #[cfg(feature = "std")]
    pub(crate) const fn host(&self) -> &Host {
        &self.host
    }

    /// Records that the driver is polled on this thread, where blocking on it could deadlock.
    pub(crate) fn note_driver_thread(&self) {
        if !self.is_forked() {
            self.host.note_driver_thread();
        }
    }

    /// Forgets the last driver's thread: a new driver has not been polled yet.
    #[cfg(has_arc)]
    pub(crate) fn forget_driver_thread(&self) {
        self.host.forget_driver_thread();
    }

    /// Whether the driver was last polled on the calling thread.
    #[cfg(feature = "std")]
    pub(crate) fn is_driven_here(&self) -> bool {
        !self.is_forked() && self.host.is_driven_here()
    }
}
