//! The pool: runs many tasks inside one embassy task.

use crate::spawner::SpawnError;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::{fmt, mem};

#[cfg(not(feature = "std"))]
use crate::sys::panics::catch as contain;
#[cfg(feature = "std")]
use crate::sys::panics::contain;
#[cfg(feature = "std")]
use std::thread::{self, ThreadId};

pub(super) const NO_POOL: &str =
    "there is no pool to run the task: use Embassy::on(&POOL), or run the driver yourself";
const STOPPED: &str = "the task that ran the pool is gone";

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A pool that runs the drivers of sessions inside one of the program's tasks.
///
#[cfg_attr(not(doctest), doc = include_str!("pool.md"))]
///
/// Tasks may be spawned from any thread, and before the pool runs: it keeps them until then. Whenever one is woken, the
/// pool polls all of them with the waker of its own task, since embassy's timers work with no other. That suits the few
/// sessions that a program has. With `std`, a panic ends only its task; without, it ends the program.
pub struct EmbassyPool {
    state: Lock<State>,
}

struct State {
    /// Spawned, but not yet taken by the task that runs the pool.
    spawned: Vec<Task>,
    phase: Phase,
    waker: Option<Waker>,
    /// Where the pool was last polled.
    #[cfg(feature = "std")]
    thread: Option<ThreadId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    NotStarted,
    Running,
    Stopped,
}

impl EmbassyPool {
    /// An empty pool, for a `static`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Lock::new(State {
                spawned: Vec::new(),
                phase: Phase::NotStarted,
                waker: None,
                #[cfg(feature = "std")]
                thread: None,
            }),
        }
    }

    /// Runs the pool's tasks, forever. Returns at once if the pool is already running elsewhere, with no effect.
    ///
    /// Dropping the future drops the pool's tasks: sessions lose their driver, so their waits return at once with what
    /// remains, and can get another ([`new_driver`](crate::Reporter::new_driver)). Until the pool runs again, it
    /// refuses new tasks. Dropping a future that was never polled changes nothing.
    pub async fn run(&self) {
        let Some(mut running) = Running::begin(self) else {
            return;
        };
        poll_fn(|context| running.poll(context)).await
    }

    /// Queues the task for the pool's next poll.
    pub(super) fn spawn(&self, task: Task) -> Result<(), SpawnError> {
        let (waker, refused) = self.state.with(|state| {
            if state.phase == Phase::Stopped {
                return (None, Some(task));
            }
            state.spawned.push(task);
            // The pool's next poll stores its waker again.
            (state.waker.take(), None)
        });
        if let Some(waker) = waker {
            waker.wake();
        }
        match refused {
            Some(_) => Err(SpawnError::new(STOPPED)),
            None => Ok(()),
        }
    }

    /// Whether the pool was last polled on the calling thread.
    #[cfg(feature = "std")]
    pub(super) fn is_polled_here(&self) -> bool {
        let current = thread::current().id();
        self.state.with(|state| state.thread == Some(current))
    }
}

impl Default for EmbassyPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EmbassyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbassyPool")
            .field("phase", &self.state.with(|state| state.phase))
            .finish_non_exhaustive()
    }
}

/// A running pool, with its tasks: they are polled outside the lock.
struct Running<'a> {
    pool: &'a EmbassyPool,
    tasks: Vec<Task>,
}

impl<'a> Running<'a> {
    fn begin(pool: &'a EmbassyPool) -> Option<Self> {
        let before = pool
            .state
            .with(|state| mem::replace(&mut state.phase, Phase::Running));
        (before != Phase::Running).then(|| Self {
            pool,
            tasks: Vec::new(),
        })
    }

    /// Polls every task once.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let (old, mut spawned) = self.pool.state.with(|state| {
            #[cfg(feature = "std")]
            {
                state.thread = Some(thread::current().id());
            }
            (state.waker.replace(waker), mem::take(&mut state.spawned))
        });
        drop(old);
        self.tasks.append(&mut spawned);
        let mut next = 0;
        while let Some(task) = self.tasks.get_mut(next) {
            match contain(|| task.as_mut().poll(context)) {
                Some(Poll::Pending) => next += 1,
                Some(Poll::Ready(())) | None => discard(self.tasks.swap_remove(next)),
            }
        }
        Poll::Pending
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (waker, spawned) = self.pool.state.with(|state| {
            state.phase = Phase::Stopped;
            #[cfg(feature = "std")]
            {
                state.thread = None;
            }
            (state.waker.take(), mem::take(&mut state.spawned))
        });
        drop(waker);
        self.tasks.drain(..).chain(spawned).for_each(discard);
    }
}

/// Drops a task, whose destructor may panic.
fn discard(task: Task) {
    let _ = contain(|| drop(task));
}
