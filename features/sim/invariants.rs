//! What must hold after every step.

use super::env::{Inner, Life, Session};
use crate::clock::Clock;
use crate::stats::Stats;
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A check of the scenario's own.
type Check = Rc<dyn Fn(&View<'_>) -> Result<(), String>>;

/// What is checked after every step.
#[derive(Clone)]
pub struct Invariants {
    has_all: bool,
    own: Vec<Check>,
}

impl Invariants {
    /// All that this crate promises:
    ///
    /// * the ledger's equation, in every session;
    /// * what is counted as delivered is at the server, and was confirmed; what was confirmed is delivered, unless a
    ///   stop's deadline had given it up;
    /// * at the server each event comes in the order of the indices, is the same when it comes again, and comes again
    ///   only when its answer was lost;
    /// * `SESSION_START` is first; `SESSION_END` comes once, and what follows it is what follows a survived fatal error;
    /// * no queue exceeds its bounds;
    /// * the same idempotency key never has two bodies;
    /// * once faults are healed, every session settles within the bound that its options give.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            has_all: true,
            own: Vec::new(),
        }
    }

    /// None but the scenario's own.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            has_all: false,
            own: Vec::new(),
        }
    }

    /// And this one: `Err` says what does not hold.
    #[must_use]
    pub fn and(mut self, check: impl Fn(&View<'_>) -> Result<(), String> + 'static) -> Self {
        self.own.push(Rc::new(check));
        self
    }

    pub(super) const fn has_all(&self) -> bool {
        self.has_all
    }

    pub(super) fn check(&self, inner: &Inner) -> Result<(), String> {
        if self.has_all {
            check_all(inner)?;
        }
        if self.own.is_empty() {
            return Ok(());
        }
        let sessions: Box<[SessionView]> = view(inner);
        let view = View {
            now: inner.world.clock.now(),
            utc: inner.world.clock.utc(),
            sessions: &sessions,
        };
        self.own.iter().try_for_each(|check| check(&view))
    }
}

impl fmt::Debug for Invariants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invariants")
            .field("all", &self.has_all)
            .field("own", &self.own.len())
            .finish()
    }
}

/// A moment of a simulation, for checks of the scenario's own.
#[derive(Debug)]
pub struct View<'a> {
    /// The monotonic time.
    pub now: Instant,
    /// The wall clock.
    pub utc: Timestamp,
    /// The sessions, in the order in which they were opened.
    pub sessions: &'a [SessionView],
}

/// A session at some moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// Its ledger.
    pub stats: Stats,
    /// How many different events the server has.
    pub at_server: u64,
    /// Of how many of them an answer has come through.
    pub confirmed: u64,
    /// How many came to the server again.
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

/// What can only have changed when somebody has had the world in hand.
fn look_at_server(inner: &Inner, sessions: &[Session]) -> Result<(), String> {
    let mut state = inner.world.state();
    inner.checked.set(inner.world.looks());
    if let Some(wrong) = state.server.wrong.pop() {
        return Err(format!("the server: {wrong}"));
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
    if inner.checked.get() != inner.world.looks() {
        look_at_server(inner, &sessions)?;
    }
    for session in &*sessions {
        if session.life == Life::Crashed || is_clearly_well(session) {
            continue;
        }
        let stats = session.handle.stats();
        if let Some(what) = wrong(session, &stats) {
            return Err(format!("session {}: {what}: {stats:?}", session.id));
        }
    }
    Ok(())
}

/// The usual case, looked at where it is: no stop may have to give up now, and nothing is wrong.
#[inline]
fn is_clearly_well(session: &Session) -> bool {
    session.handle.session().is_some_and(|core| {
        let looked = core.shared().with(|engine| {
            engine.stop_deadline().is_none() && wrong(session, &engine.stats()).is_none()
        });
        looked == Ok(true)
    })
}

/// What is wrong with a session's ledger.
#[inline]
fn wrong(session: &Session, stats: &Stats) -> Option<&'static str> {
    let (options, confirmed) = (&session.options, session.confirmed.get());
    if !stats.is_balanced() {
        return Some("the ledger does not balance");
    }
    if stats.delivered > confirmed {
        return Some("more is counted as delivered than the server has confirmed");
    }
    // A stop that has given a batch up no longer listens to its answer; nor does a driver that is gone.
    if confirmed - stats.delivered > stats.dropped.shutdown && stats.driver_alive {
        return Some("more was confirmed than is counted as delivered");
    }
    // One fatal exception and the session's end have room of their own.
    if stats.queued > options.max_queue_size as u64 + 2 {
        return Some("the queue has more events than it may");
    }
    if stats.queued_bytes > options.max_queue_bytes + options.max_event_bytes + 1_024 {
        return Some("the queue has more bytes than it may");
    }
    if stats.driver_alive && session.life == Life::WithoutRuntime {
        return Some("a driver lives without its runtime");
    }
    None
}
