//! The seam to an executor.

use crate::clock::Clock;
use core::fmt;
use core::future::Future;

/// Starts tasks on an executor.
///
/// What an implementer owes: `spawn` returns at once; the task runs until it ends or its executor does, at which point
/// it is dropped. A task that cannot be started is dropped and reported as a [`SpawnError`].
pub trait Spawner: Send + Sync + 'static {
    /// Starts `task`.
    ///
    /// # Errors
    /// When no executor is there to run it.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError>;

    /// Where spawned tasks run, as seen from a thread that wants to block on one. Default: [`Placement::Shared`].
    fn placement(&self) -> Placement {
        Placement::Shared
    }

    /// Runs `wait`, which blocks the calling thread until a task of this spawner has made progress, in the way that is
    /// safe there. `is_on_this_thread` says that the task was last polled on the calling thread; the default then
    /// refuses.
    ///
    /// # Errors
    /// [`WouldDeadlock`] when blocking here would keep the executor from ever making progress; then `wait` did not run.
    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), WouldDeadlock> {
        if is_on_this_thread {
            return Err(WouldDeadlock);
        }
        wait();
        Ok(())
    }
}

/// [`Spawner`] for tasks that are not `Send`: single-threaded executors, wasm, bare metal.
pub trait LocalSpawner {
    /// Starts `task` on this thread's executor.
    ///
    /// # Errors
    /// When no executor is there to run it.
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError>;
}

/// A clock and a spawner in one, set with [`Builder::runtime`](crate::session::Builder::runtime).
pub trait Runtime: Clock + Spawner + Clone {
    /// Ties this value to the executor of the calling thread, where that means something. Called once, when the
    /// session is started; the default does nothing.
    ///
    /// # Errors
    /// When called outside the executor, or when the executor lacks what the clock needs.
    fn bind(&mut self) -> Result<(), SpawnError> {
        Ok(())
    }
}

/// Where the tasks of a [`Spawner`] run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// On threads that belong to tasks alone: blocking any other thread never stops them, so dropping a reporter
    /// waits (at most `drop_timeout`) until it has drained.
    Dedicated,
    /// On the application's executor, perhaps on the very thread that asks: dropping a reporter only asks it to stop.
    Shared,
}

/// A task could not be started; the message says what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnError {
    reason: &'static str,
}

impl SpawnError {
    /// An error whose message is `reason`.
    #[must_use]
    pub const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl core::error::Error for SpawnError {}

/// Blocking here would have waited for work that only the calling thread could do.
///
/// What was asked for (a flush, a stop) has been asked for all the same. Use the `async` twin of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldDeadlock;

impl fmt::Display for WouldDeadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blocking on this thread would deadlock the executor that runs the driver; await instead")
    }
}

impl core::error::Error for WouldDeadlock {}
