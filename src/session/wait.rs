//! Waiting until everything accepted so far is settled, or until the waiter's own deadline.

use crate::engine::{Engine, Goal, WaiterId, Wakers};
use crate::session::session_ref::AnySession;
use crate::session::shared::Shared;
use crate::stats::{Drain, Stats};
use crate::sys::fork::Forked;
use crate::sys::panics;
use crate::time::Instant;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

/// A wait for a flush or a stop that has already begun, and that proceeds whether or not anything waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    id: WaiterId,
    goal: Goal,
    before: Baseline,
    #[cfg(feature = "std")]
    timeout: Duration,
    /// `None` if it is beyond the end of the clock, and in the child of a fork.
    pub(crate) deadline: Option<Instant>,
    is_stop: bool,
}

/// The counts of the ledger from which a wait computes its result, as of when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    delivered: u64,
    handed_over: u64,
    dropped: u64,
    shut_down: u64,
    settled: Goal,
}

impl Baseline {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self::new(&engine.stats(), engine.settled_goal())
    }

    const fn in_child(stats: &Stats) -> Self {
        Self::new(stats, Goal::events(stats.settled()))
    }

    const fn new(stats: &Stats, settled: Goal) -> Self {
        let shut_down = stats.dropped.shutdown;
        Self {
            delivered: stats.delivered,
            handed_over: stats.handed_over,
            dropped: stats.dropped.total() - shut_down,
            shut_down,
            settled,
        }
    }
}

impl Wait {
    /// Requests a flush, and returns the wait for it.
    pub(crate) fn for_flush(session: &dyn AnySession, timeout: Duration) -> Self {
        let deadline = session.now().checked_add(timeout);
        let shared = session.shared();
        let requested = shared.update(|engine| {
            let (id, before) = (engine.new_waiter(), Baseline::of(engine));
            let (goal, wakers) = engine.request_flush();
            ((id, before, goal), wakers)
        });
        let Ok((id, before, goal)) = requested else {
            return Self::in_child(shared);
        };
        Self {
            id,
            goal,
            before,
            #[cfg(feature = "std")]
            timeout,
            deadline,
            is_stop: false,
        }
    }

    /// The same wait, counting from an earlier state of the ledger.
    pub(crate) fn since(self, before: Baseline) -> Self {
        Self { before, ..self }
    }

    /// Begins a stop, and returns the wait for it.
    pub(crate) fn for_stop(session: &dyn AnySession, timeout: Duration) -> Self {
        let now = session.now();
        let own_deadline = now.checked_add(timeout);
        let shared = session.shared();
        let tail = shared.session_end(now, session.utc());
        let requested = shared.update(|engine| {
            let (id, before) = (engine.new_waiter(), Baseline::of(engine));
            let (goal, wakers) = engine.begin_stop(own_deadline, &tail);
            ((id, before, goal, engine.stop_deadline()), wakers)
        });
        let Ok((id, before, goal, stop_deadline)) = requested else {
            return Self::in_child(shared);
        };
        shared.leave_bus();
        #[cfg(feature = "std")]
        shared.note_ending();
        // At most until the stop's deadline, which an earlier call may have set.
        let deadline = own_deadline.into_iter().chain(stop_deadline).min();
        #[cfg(feature = "std")]
        let timeout = deadline.map_or(timeout, |at| at.saturating_duration_since(now));
        Self {
            id,
            goal,
            before,
            #[cfg(feature = "std")]
            timeout,
            deadline,
            is_stop: true,
        }
    }

    /// A wait in the child of a fork, which is over at once: nothing can be requested there.
    #[cold]
    fn in_child(shared: &Shared) -> Self {
        let before = shared.ledger_at_fork().unwrap_or_default();
        Self {
            id: WaiterId::default(),
            goal: Goal::events(before.accepted),
            before: Baseline::in_child(&before),
            #[cfg(feature = "std")]
            timeout: Duration::ZERO,
            deadline: None,
            is_stop: false,
        }
    }

    /// Checks whether the wait is over; if not, the waker is woken when that may have changed.
    fn poll(&self, session: &dyn AnySession, context: &Context<'_>) -> Poll<Drain> {
        let waker = context.waker().clone();
        let is_reached = session.shared().update(|engine| {
            if engine.is_reached(self.goal) && !session.shared().is_being_reported() {
                (true, Wakers::Retired(waker))
            } else {
                (false, engine.register(self.id, waker))
            }
        });
        match is_reached {
            Ok(true) | Err(Forked) => Poll::Ready(self.conclude(session)),
            Ok(false) => Poll::Pending,
        }
    }

    /// Ends the wait, which is over or has reached its deadline. At a stop's deadline this settles the ledger.
    fn conclude(&self, session: &dyn AnySession) -> Drain {
        let shared = session.shared();
        let now = session.now();
        let concluded = shared.update(|engine| {
            let wakers = if engine.is_reached(self.goal) {
                engine.expire(now)
            } else {
                // The deadline has passed, even if a paused clock has not reached it.
                engine.expire(now.max(self.deadline.unwrap_or(now)))
            };
            (Baseline::of(engine), wakers)
        });
        let Ok(after) = concluded else {
            return self.conclude_in_child(shared);
        };
        let drain = self.drain(after);
        // Before the program ends, perhaps, and the reason of a loss with it. But in a panic hook, which only waits for
        // flushes, a panic of the observer would abort the process.
        if self.is_stop || !panics::is_panicking() {
            shared.report(now, self.is_stop || !drain.all_safe());
        }
        // The program may end without dropping the session's owner, as by `std::process::exit`.
        #[cfg(feature = "std")]
        if self.is_stop {
            shared.tell_losses();
        }
        drain
    }

    /// The result as of the fork. At least one event remains, because the child cannot know what became of them.
    #[cold]
    fn conclude_in_child(&self, shared: &Shared) -> Drain {
        let after = shared.ledger_at_fork();
        let drain = self.drain(after.as_ref().map_or(self.before, Baseline::in_child));
        Drain {
            remaining: drain.remaining.max(1),
            ..drain
        }
    }

    fn drain(&self, after: Baseline) -> Drain {
        let before = &self.before;
        let open = self.goal.left(&after.settled);
        let shut_down = after.shut_down - before.shut_down;
        Drain {
            delivered: after.delivered - before.delivered,
            handed_over: after.handed_over - before.handed_over,
            dropped: after.dropped - before.dropped,
            remaining: (open + shut_down).min(self.goal.left(&before.settled)),
        }
    }

    /// Waits, with a timer for the deadline. It borrows its arguments because an `async` function stores them twice.
    pub(crate) async fn wait(
        &self,
        session: &dyn AnySession,
        mut timer: Pin<&mut impl Future<Output = ()>>,
    ) -> Drain {
        let _registration = Registration {
            session,
            id: self.id,
        };
        poll_fn(|context| {
            if let Poll::Ready(drain) = self.poll(session, context) {
                return Poll::Ready(drain);
            }
            timer
                .as_mut()
                .poll(context)
                .map(|()| self.conclude(session))
        })
        .await
    }

    /// Blocks the calling thread until the wait is over.
    #[cfg(feature = "std")]
    pub(crate) fn wait_blocking(self, session: &dyn AnySession) -> Drain {
        // The timeout also holds in real time, because a session's clock may be paused.
        let give_up = std::time::Instant::now().checked_add(self.timeout);
        let (parker, waker) = crate::sys::park::Parker::current();
        let context = Context::from_waker(&waker);
        let _registration = Registration {
            session,
            id: self.id,
        };
        loop {
            if let Poll::Ready(drain) = self.poll(session, &context) {
                return drain;
            }
            let is_late = give_up.is_some_and(|at| at <= std::time::Instant::now());
            if is_late || self.deadline.is_some_and(|at| at <= session.now()) {
                return self.conclude(session);
            }
            parker.park(give_up);
        }
    }

    /// The result, if the wait is already over.
    #[cfg(feature = "std")]
    pub(crate) fn result_now(&self, session: &dyn AnySession) -> Option<Drain> {
        let shared = session.shared();
        let is_over =
            shared.with(|engine| engine.is_reached(self.goal) && !shared.is_being_reported());
        is_over.unwrap_or(true).then(|| self.conclude(session))
    }

    /// The result on a thread that must not wait, not even for a report of what was lost.
    #[cfg(feature = "std")]
    pub(crate) fn result_unreported(&self, session: &dyn AnySession) -> Option<Drain> {
        let is_reached = session.shared().with(|engine| engine.is_reached(self.goal));
        is_reached.unwrap_or(true).then(|| self.conclude(session))
    }
}

/// Removes a waiter's waker from the engine when the wait ends or is dropped.
struct Registration<'a> {
    session: &'a dyn AnySession,
    id: WaiterId,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let _ = self
            .session
            .shared()
            .update(|engine| engine.unregister(self.id));
    }
}
