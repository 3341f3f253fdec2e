//! The invariants that a simulation checks after every step.

use super::env::{Inner, Life, OpenedSession};
use crate::clock::Clock;
use crate::engine::END_BYTES;
use crate::engine::loss_report::REPORT_BYTES;
use crate::session::GiveUp;
use crate::stats::Stats;
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A custom invariant.
type Check = Rc<dyn Fn(&View<'_>) -> Result<(), String>>;

/// The invariants that a simulation checks after every step.
#[derive(Clone)]
pub struct Invariants {
    has_all: bool,
    custom: Vec<Check>,
}

impl Invariants {
    /// Everything that this crate promises:
    ///
    /// * the ledger of every session balances;
    /// * every event counted as delivered is at the server and confirmed; every confirmed event is counted as
    ///   delivered, unless a stop had dropped it at its deadline;
    /// * events arrive at the server in the order of their indices; one that arrives again has the same id, and was not
    ///   confirmed before;
    /// * only `SESSION_START` has index 0; it and `SESSION_END` occur at most once;
    /// * no queue exceeds its bounds;
    /// * with [`GiveUp::WhenFull`] no batch is dropped because its attempts have failed;
    /// * no idempotency key has two bodies;
    /// * a loss report says of no event that it is lost if the server has it, unless its confirmation was lost; what is
    ///   missing before a `SESSION_END` is reported;
    /// * once faults are healed, every session settles within the bound that its options imply.
    ///
    /// And of each spool, which `Env::spool` starts with the feature `spool`:
    ///
    /// * its ledger balances;
    /// * what a session was told is on disk is in the end at the server, as it was logged; or it is on disk, or was counted
    ///   as rejected, evicted, discarded or unreadable, or a fault has destroyed it;
    /// * what is said to be synced is synced;
    /// * nothing arrives that was never logged; and no confirmed event again, or any late, unless the process or the disk
    ///   failed;
    /// * once faults are healed, it delivers everything within two hours.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            has_all: true,
            custom: Vec::new(),
        }
    }

    /// No invariants but those added with [`and`](Self::and).
    #[must_use]
    pub const fn none() -> Self {
        Self {
            has_all: false,
            custom: Vec::new(),
        }
    }

    /// Adds an invariant. `Err` describes its violation.
    #[must_use]
    pub fn and(mut self, check: impl Fn(&View<'_>) -> Result<(), String> + 'static) -> Self {
        self.custom.push(Rc::new(check));
        self
    }

    pub(super) const fn has_all(&self) -> bool {
        self.has_all
    }

    pub(super) fn check(&self, inner: &Inner) -> Result<(), String> {
        if self.has_all {
            check_all(inner)?;
        }
        if self.custom.is_empty() {
            return Ok(());
        }
        let sessions: Box<[SessionView]> = view(inner);
        let view = View {
            now: inner.world.clock.now(),
            utc: inner.world.clock.utc(),
            sessions: &sessions,
        };
        self.custom.iter().try_for_each(|check| check(&view))
    }
}

impl fmt::Debug for Invariants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invariants")
            .field("all", &self.has_all)
            .field("custom", &self.custom.len())
            .finish()
    }
}

/// The state of a simulation after a step, for custom invariants.
#[derive(Debug)]
#[non_exhaustive]
pub struct View<'a> {
    /// The monotonic time.
    pub now: Instant,
    /// The wall clock.
    pub utc: Timestamp,
    /// The sessions, in the order of opening.
    pub sessions: &'a [SessionView],
}

/// The state of a session after a step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// Its ledger.
    pub stats: Stats,
    /// How many distinct events the server has.
    pub at_server: u64,
    /// How many of them the client has received a 2xx for.
    pub confirmed: u64,
    /// How many events arrived at the server again.
    pub duplicates: u64,
}

fn view(inner: &Inner) -> Box<[SessionView]> {
    let sessions = inner.sessions.borrow();
    let state = inner.world.state();
    let views = sessions.iter().map(|session| {
        let record = state.server.sessions.get(&session.id);
        SessionView {
            id: session.id.clone(),
            stats: session.handle.stats(),
            at_server: record.map_or(0, |record| record.distinct),
            confirmed: record.map_or(0, |record| record.confirmed),
            duplicates: record.map_or(0, |record| record.duplicates),
        }
    });
    views.collect()
}

/// Checks what can only change while the world is locked.
fn check_server(inner: &Inner, sessions: &[OpenedSession]) -> Result<(), String> {
    let mut state = inner.world.state();
    inner.accesses_checked.set(inner.world.accesses());
    if let Some(violation) = state.server.violations.pop() {
        return Err(format!("at the server: {violation}"));
    }
    #[cfg(feature = "spool")]
    if let Some(drive) = &state.drive
        && let Some(violation) = super::spools::ledger_violation(drive)
    {
        return Err(violation);
    }
    for session in sessions {
        let record = state.server.sessions.get(&session.id);
        session
            .confirmed
            .set(record.map_or(0, |record| record.confirmed));
    }
    Ok(())
}

fn check_all(inner: &Inner) -> Result<(), String> {
    let sessions = inner.sessions.borrow();
    if inner.accesses_checked.get() != inner.world.accesses() {
        check_server(inner, &sessions)?;
    }
    for session in &*sessions {
        if session.life == Life::Crashed || holds_without_stop(session) {
            continue;
        }
        let stats = session.handle.stats();
        if let Some(violation) = ledger_violation(session, &stats) {
            return Err(format!("session {}: {violation}: {stats:?}", session.id));
        }
    }
    Ok(())
}

/// The fast path: no stop is in progress, and all invariants hold.
#[inline]
fn holds_without_stop(session: &OpenedSession) -> bool {
    session.handle.session().is_some_and(|core| {
        let holds = core.shared().with(|engine| {
            engine.stop_deadline().is_none() && ledger_violation(session, &engine.stats()).is_none()
        });
        holds == Ok(true)
    })
}

/// The invariant that a session's ledger violates, if any.
#[inline]
fn ledger_violation(session: &OpenedSession, stats: &Stats) -> Option<&'static str> {
    let (options, confirmed) = (&session.options, session.confirmed.get());
    if !stats.is_balanced() {
        return Some("the ledger does not balance");
    }
    if stats.delivered > confirmed {
        return Some("more events are counted as delivered than the server has confirmed");
    }
    // A stop that has dropped a batch ignores its response, and so does a driver that is gone.
    let is_unknown = !session.is_spooled && stats.driver_alive;
    if confirmed - stats.delivered > stats.dropped.shutdown && is_unknown {
        return Some("more events were confirmed than are counted as delivered");
    }
    // Errors have a reserve, and one fatal exception, the session's end and two loss reports a place each.
    let max_queued = options.max_queue_size + options.reserved(options.max_queue_size) + 4;
    if stats.queued > max_queued as u64 {
        return Some("the queue exceeds its limit of events");
    }
    let max_bytes = options.max_queue_bytes + options.reserved_bytes();
    if stats.queued_bytes > max_bytes + END_BYTES + REPORT_BYTES {
        return Some("the queue exceeds its limit of bytes");
    }
    if options.give_up == GiveUp::WhenFull && stats.dropped.retries_exhausted > 0 {
        return Some("a session that is to try until the queue is full has given up");
    }
    if stats.driver_alive && session.life == Life::RuntimeGone {
        return Some("a driver outlives its runtime");
    }
    None
}
