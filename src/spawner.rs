//! Spawners: start tasks on an executor, and know how to block next to it.

use crate::clock::Clock;
use core::fmt;
use core::future::Future;

/// Spawns tasks on an executor.
///
/// What an implementer owes: `spawn` returns at once; the task runs until it completes or its executor shuts down, and
/// is then dropped. A task that cannot be started is dropped and reported as a [`SpawnError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no spawner",
    label = "not a `Spawner`",
    note = "set one with `.runtime(…)`, as `Thread`, `Tokio`, `Smol` or `Embassy`, or with `.spawner(…)`; without one, `Builder::build` returns the driver to run on any executor"
)]
pub trait Spawner: Send + Sync + 'static {
    /// Spawns `task`.
    ///
    /// # Errors
    /// When there is no executor to run it.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError>;

    /// Where spawned tasks run, which decides whether a thread can block on one. Default: [`Placement::Shared`].
    fn placement(&self) -> Placement {
        Placement::Shared
    }

    /// Whether dropping a reporter on the calling thread waits, for at most `drop_timeout`, until the driver has sent what
    /// is queued. It then blocks through [`block_in_place`](Self::block_in_place). Say so only where other threads go on
    /// polling the driver. Default: if tasks have [dedicated](Placement::Dedicated) threads.
    fn waits_on_drop(&self) -> bool {
        self.placement() == Placement::Dedicated
    }

    /// Runs `wait`, which blocks the calling thread until a task of this spawner has made progress, in whatever way is
    /// safe on this thread. `is_on_this_thread` says whether the task was last polled on it; the default then refuses.
    ///
    /// # Errors
    /// [`WouldDeadlock`] if blocking here would keep the executor from making progress; `wait` has not run then.
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no spawner of local tasks",
    label = "not a `LocalSpawner`",
    note = "implement `LocalSpawner` for a reference to your executor: its one method is `spawn_local`"
)]
pub trait LocalSpawner {
    /// Spawns `task` on this thread's executor.
    ///
    /// # Errors
    /// When there is no executor to run it.
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError>;
}

/// A clock and a spawner in one value, set with [`Builder::runtime`](crate::session::Builder::runtime).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no runtime",
    label = "not a `Runtime`",
    note = "use `Thread`, `Tokio`, `Smol` or `Embassy`, each behind the feature of its name; for another executor implement `Clock` and `Spawner`, then `impl Runtime for {Self} {{}}`"
)]
pub trait Runtime: Clock + Spawner + Clone {
    /// Binds this value to the calling thread's executor, if the runtime needs that. Called once, by
    /// [`Builder::runtime`](crate::session::Builder::runtime); an error is returned when the session is started.
    /// Default: nothing.
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
    /// On threads that only run tasks: blocking any other thread never stops them.
    Dedicated,
    /// On the application's executor, possibly on the calling thread.
    Shared,
}

/// An error starting a task; the message says what is missing.
#[derive(Clone, PartialEq, Eq)]
pub struct SpawnError {
    reason: &'static str,
}

impl SpawnError {
    /// Creates an error whose message is `reason`.
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

crate::text::debug_with_causes!(SpawnError);

impl core::error::Error for SpawnError {}

/// The error that blocking would wait for work that only the calling thread can do.
///
/// The flush or stop itself has been requested. Await the `async` version of the call instead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WouldDeadlock;

impl fmt::Display for WouldDeadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blocking on this thread would deadlock the executor that runs the driver; await instead")
    }
}

crate::text::debug_with_causes!(WouldDeadlock);

impl core::error::Error for WouldDeadlock {}
