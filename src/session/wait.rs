//! Waiting: for what was accepted so far to be settled, or for a deadline of the waiter's own.

use crate::engine::{Target, WaiterId, Wakers, wake};
use crate::session::shared::{Shared, Sink};
use crate::stats::{Drain, Stats};
use crate::sys::fork::Forked;
use crate::time::Instant;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

/// A wait that has been asked for. What it asks (a flush, a stop) is under way whether or not anybody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    id: WaiterId,
    target: Target,
    before: Mark,
    #[cfg(feature = "std")]
    timeout: Duration,
    /// `None`: beyond the clock's end.
    pub(crate) deadline: Option<Instant>,
    is_stop: bool,
}

/// What the ledger said when a wait began, as far as the wait has to know.
#[derive(Clone, Copy, Debug)]
struct Mark {
    arrived: u64,
    given_up: u64,
    caught: u64,
}

impl Mark {
    const fn new(stats: &Stats) -> Self {
        let caught = stats.dropped.shutdown;
        Self {
            arrived: stats.delivered + stats.handed_over,
            given_up: stats.dropped.total() - caught,
            caught,
        }
    }

    const fn settled(&self) -> u64 {
        self.arrived + self.given_up + self.caught
    }
}

impl Wait {
    /// Asks for a flush.
    pub(crate) fn for_flush(sink: &dyn Sink, timeout: Duration) -> Self {
        let deadline = sink.now().checked_add(timeout);
        let shared = sink.shared();
        let asked =
            shared.with(|engine| (engine.new_waiter(), engine.stats(), engine.request_flush()));
        let Ok((id, before, (target, waker))) = asked else {
            return Self::in_child(shared);
        };
        waker.into_iter().for_each(wake);
        Self {
            id,
            target,
            before: Mark::new(&before),
            #[cfg(feature = "std")]
            timeout,
            deadline,
            is_stop: false,
        }
    }

    /// The same wait, which counts from an earlier moment.
    pub(crate) fn since(self, before: Stats) -> Self {
        Self {
            before: Mark::new(&before),
            ..self
        }
    }

    /// Asks for a stop.
    pub(crate) fn for_stop(sink: &dyn Sink, timeout: Duration) -> Self {
        let now = sink.now();
        let own = now.checked_add(timeout);
        let shared = sink.shared();
        let tail = shared.session_end(now, sink.utc());
        let asked = shared.with(|engine| {
            let (id, before) = (engine.new_waiter(), engine.stats());
            let begun = engine.begin_stop(own, &tail);
            (id, before, begun, engine.stop_deadline())
        });
        let Ok((id, before, (target, wakers), first)) = asked else {
            return Self::in_child(shared);
        };
        shared.leave_bus();
        wakers.wake();
        // Not beyond the deadline of a stop that began before this one.
        let deadline = own.into_iter().chain(first).min();
        #[cfg(feature = "std")]
        let timeout = deadline.map_or(timeout, |at| at.saturating_duration_since(now));
        Self {
            id,
            target,
            before: Mark::new(&before),
            #[cfg(feature = "std")]
            timeout,
            deadline,
            is_stop: true,
        }
    }

    /// In the child of a fork nothing can be asked for, so there is nothing to wait for.
    #[cold]
    fn in_child(shared: &Shared) -> Self {
        let before = shared.ledger_at_fork().unwrap_or_default();
        Self {
            id: WaiterId::default(),
            target: Target(before.accepted),
            before: Mark::new(&before),
            #[cfg(feature = "std")]
            timeout: Duration::ZERO,
            deadline: None,
            is_stop: false,
        }
    }

    /// Looks whether it is over; if not, the waker is woken when that may have changed.
    fn poll(&self, sink: &dyn Sink, context: &Context<'_>) -> Poll<Drain> {
        let waker = context.waker().clone();
        let registered = sink.shared().with(|engine| {
            if engine.is_over(self.target) {
                None
            } else {
                Some(engine.register(self.id, waker))
            }
        });
        match registered {
            Ok(None) | Err(Forked) => Poll::Ready(self.conclude(sink)),
            Ok(Some(registered)) => {
                registered.finish();
                Poll::Pending
            }
        }
    }

    /// The wait is over, or its deadline has come. At a stop's deadline that settles the ledger.
    fn conclude(&self, sink: &dyn Sink) -> Drain {
        let shared = sink.shared();
        let now = sink.now();
        let concluded = shared.with(|engine| {
            let wakers = if engine.is_over(self.target) {
                engine.expire(now)
            } else {
                // The deadline has come, even if the clock (paused, in a test) does not say so.
                engine.expire(now.max(self.deadline.unwrap_or(now)))
            };
            (engine.stats(), wakers)
        });
        let Ok((after, wakers)) = concluded else {
            return self.conclude_in_child(shared);
        };
        wakers.into_iter().for_each(Wakers::wake);
        if self.is_stop {
            shared.report(now, true);
        }
        self.drain(Mark::new(&after))
    }

    /// What was known when the process was forked. It never says that all is done: nothing is, from then on.
    #[cold]
    fn conclude_in_child(&self, shared: &Shared) -> Drain {
        let after = shared.ledger_at_fork();
        let drain = self.drain(after.as_ref().map_or(self.before, Mark::new));
        Drain {
            remaining: drain.remaining.max(1),
            ..drain
        }
    }

    fn drain(&self, after: Mark) -> Drain {
        let before = &self.before;
        let open = self.target.0.saturating_sub(after.settled());
        let caught = after.caught - before.caught;
        Drain {
            delivered: after.arrived - before.arrived,
            dropped: after.given_up - before.given_up,
            remaining: (open + caught).min(self.target.0.saturating_sub(before.settled())),
        }
    }

    /// Waits, with a timer for the deadline. It borrows both, for what an `async` function is given it stores twice.
    pub(crate) async fn wait(
        &self,
        sink: &dyn Sink,
        mut timer: Pin<&mut impl Future<Output = ()>>,
    ) -> Drain {
        let _gone = Gone { sink, id: self.id };
        poll_fn(|context| {
            if let Poll::Ready(drain) = self.poll(sink, context) {
                return Poll::Ready(drain);
            }
            timer.as_mut().poll(context).map(|()| self.conclude(sink))
        })
        .await
    }

    /// Waits on the calling thread.
    #[cfg(feature = "std")]
    pub(crate) fn wait_blocking(self, sink: &dyn Sink) -> Drain {
        // The bound holds in real time, too: a session's clock may stand still.
        let give_up = std::time::Instant::now().checked_add(self.timeout);
        let (parker, waker) = crate::sys::park::Parker::current();
        let context = Context::from_waker(&waker);
        let _gone = Gone { sink, id: self.id };
        loop {
            if let Poll::Ready(drain) = self.poll(sink, &context) {
                return drain;
            }
            let is_late = give_up.is_some_and(|at| at <= std::time::Instant::now());
            if is_late || self.deadline.is_some_and(|at| at <= sink.now()) {
                return self.conclude(sink);
            }
            parker.park(give_up);
        }
    }

    /// The result, if there is nothing to wait for.
    #[cfg(feature = "std")]
    pub(crate) fn result_now(&self, sink: &dyn Sink) -> Option<Drain> {
        let is_over = sink.shared().with(|engine| engine.is_over(self.target));
        is_over.unwrap_or(true).then(|| self.conclude(sink))
    }
}

/// Takes a waiter's waker out of the engine, however the wait ends.
struct Gone<'a> {
    sink: &'a dyn Sink,
    id: WaiterId,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let waker = self.sink.shared().with(|engine| engine.unregister(self.id));
        drop(waker);
    }
}
