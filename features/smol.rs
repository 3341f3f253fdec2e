//! The smol runtime: its global executor, executors of the application's own, and its timers.

use super::common::std_clock;
use crate::local::LocalSpawner;
use crate::{Clock, Instant, Runtime, SpawnError, Spawner, Timestamp, WouldDeadlock};
use alloc::rc::Rc;
use alloc::sync::Weak;
use core::future::{Future, pending};
use smol::{Executor, LocalExecutor, Timer};
use std::env;
use std::thread;

/// The smol runtime: its timers and its global executor.
///
/// smol starts that executor at first use and never ends it, so there is no wrong place to start a session. An executor
/// of the application's own is set as the spawner, `Smol` staying the clock: a `Weak<Executor>`
/// (`Arc::downgrade(&executor)`), or with [`start_local`](crate::Builder::start_local) an `Rc<LocalExecutor>`, which
/// takes transports that are not `Send`:
///
/// ```
/// # use std::{rc::Rc, time::Duration};
/// # use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Smol, Transport};
/// # struct Nowhere;
/// # impl Transport for Nowhere {
/// #     async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> { Ok(Receipt::delivered()) }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = Rc::new(smol::LocalExecutor::new());
/// let reporter = Reporter::builder("session-123")
///     .transport(Nowhere)
///     .clock(Smol)
///     .spawner(Rc::clone(&executor))
///     .enabled(true)
///     .start_local()?;
/// smol::block_on(executor.run(async {
///     let drain = reporter.stop(Duration::from_secs(5)).await;
///     assert!(drain.all_delivered());
/// }));
/// # Ok(())
/// # }
/// ```
///
/// A session whose executor is dropped loses its driver: waits end at once with what remains. One whose executor is
/// not run makes no progress, and waits end at their deadlines; so does one whose executor is dropped in the very
/// moment in which another thread wakes the driver, as smol may then keep the task for ever. Dropping the reporter only asks for a stop, so await
/// [`stop`](crate::Handle::stop) before `main` returns.
///
/// Blocking waits work outside the executor (in `smol::block_on` too, which runs no tasks), in `unblock`, and in a task
/// unless the driver was last polled on that task's thread; smol has one thread if `SMOL_THREADS` does not say
/// otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Smol;

impl Clock for Smol {
    fn now(&self) -> Instant {
        std_clock::now()
    }

    fn utc(&self) -> Timestamp {
        std_clock::utc()
    }

    async fn sleep_until(&self, at: Instant) {
        match std_clock::instant(at) {
            Some(at) => drop(Timer::at(at).await),
            None => pending().await,
        }
    }
}

impl Spawner for Smol {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        smol::spawn(task).detach();
        Ok(())
    }

    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), WouldDeadlock> {
        if is_on_this_thread || is_the_only_thread() {
            return Err(WouldDeadlock);
        }
        wait();
        Ok(())
    }
}

impl Runtime for Smol {}

/// Whether nothing else can run tasks while the calling thread blocks: the driver may not have been polled yet.
fn is_the_only_thread() -> bool {
    let threads = env::var("SMOL_THREADS")
        .ok()
        .and_then(|count| count.parse().ok());
    threads.unwrap_or(1) == 1 && thread::current().name() == Some("smol-1")
}

/// Weak, for the session must not keep the executor alive that owns its driver.
impl Spawner for Weak<Executor<'static>> {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        let gone = SpawnError::new("the smol executor is gone");
        self.upgrade().ok_or(gone)?.spawn(task).detach();
        Ok(())
    }
}

impl LocalSpawner for Rc<LocalExecutor<'static>> {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        self.spawn(task).detach();
        Ok(())
    }
}
