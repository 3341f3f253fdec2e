//! A task that runs tasks.

use crate::sys::lock::Lock;
use crate::{SpawnError, sys::panics};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::future::{Future, poll_fn};
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

#[cfg(feature = "std")]
use std::thread::{self, ThreadId};

pub(super) const NO_POOL: &str =
    "there is no pool to run the task: use Embassy::on(&POOL), or run the driver yourself";
const STOPPED: &str = "the task that ran the pool is gone";

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the drivers of sessions, and what else is spawned on them, inside one task of the program's.
///
/// ```no_run
/// # #[cfg(feature = "std")] {
/// use tinkex_telemetry::{Embassy, EmbassyPool, Reporter, fields};
/// # use tinkex_telemetry::{Batch, Receipt, SendError, Transport};
/// # struct Stdout;
/// # impl Transport for Stdout {
/// #     async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> { Ok(Receipt::delivered()) }
/// # }
///
/// static POOL: EmbassyPool = EmbassyPool::new();
///
/// #[embassy_executor::task]
/// async fn telemetry() {
///     POOL.run().await
/// }
///
/// # fn start(spawner: embassy_executor::Spawner) -> Result<(), Box<dyn core::error::Error>> {
/// spawner.spawn(telemetry()?);
/// let reporter = Reporter::builder("session-123")
///     .transport(Stdout)
///     .runtime(Embassy::on(&POOL))
///     .start()?;
/// reporter.log("app.started", fields! { version: "1.0.0" });
/// # Ok(())
/// # }
/// # }
/// ```
///
/// Tasks may be spawned from any thread, and before the pool runs: they are kept until it does. They are polled in turn
/// whenever any of them is woken, with the waker of the pool's own task, for embassy's timers work with no other. That
/// suits the handful of sessions a program has. With `std` a task that panics ends alone; without, a panic is the
/// program's end.
pub struct EmbassyPool {
    state: Lock<State>,
}

struct State {
    /// Spawned, and not yet taken by the task that runs the pool.
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

    /// Runs the pool's tasks. It never ends, unless the pool is being run already: then it ends at once, and the other
    /// goes on.
    ///
    /// When the future is dropped the pool's tasks are dropped with it: sessions lose their driver, so their waits end
    /// at once with what remains, and can be given another ([`new_driver`](crate::Reporter::new_driver)). Until the
    /// pool is run again, it refuses new tasks. A future that is dropped before it was polled has changed nothing.
    pub async fn run(&self) {
        let Some(mut running) = Running::begin(self) else {
            return;
        };
        poll_fn(|context| running.poll(context)).await
    }

    /// Keeps the task for the next turn of whoever runs the pool.
    pub(super) fn spawn(&self, task: Task) -> Result<(), SpawnError> {
        let (waker, refused) = self.state.with(|state| {
            if state.phase == Phase::Stopped {
                return (None, Some(task));
            }
            state.spawned.push(task);
            // Its next poll brings another.
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

    /// Whether the pool is run on the calling thread.
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

/// A pool while it runs, and its tasks: they are polled outside of the lock.
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
            match panics::catch(|| task.as_mut().poll(context)) {
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

/// Drops a task, whose destructor may panic like the rest of it.
fn discard(task: Task) {
    let _ = panics::catch(|| drop(task));
}
