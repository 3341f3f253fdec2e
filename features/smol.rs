//! The smol runtime: its global executor, the application's own executors, and its timers.

use super::common::std_clock;
use crate::clock::Clock;
use crate::local::LocalSpawner;
use crate::spawner::{Runtime, SpawnError, Spawner, WouldDeadlock};
use crate::time::{Instant, Timestamp};
use alloc::rc::Rc;
use alloc::sync::Weak;
use core::future::{Future, pending};
use smol::{Executor, LocalExecutor, Timer};
use std::env;
use std::thread;

/// The smol runtime: its timers and its global executor.
///
/// smol starts that executor at first use and never ends it, so a session can start anywhere. To use an executor of
/// your own, keep `Smol` as the clock and set the executor as the spawner: a `Weak<Executor>`
/// (`Arc::downgrade(&executor)`), or, with [`start_local`](crate::session::Builder::start_local), an
/// `Rc<LocalExecutor>`, which takes transports that are not `Send`:
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
/// When its executor is dropped, a session loses its driver: waits return at once with what remains. While its executor
/// is not run, a session makes no progress, and waits end at their deadlines. The same happens if the executor is
/// dropped just as another thread wakes the driver, since smol may then keep the task forever. Dropping the reporter
/// waits until it has drained, except in a task, and on an executor of your own: there it only requests a stop, so await
/// [`stop`](crate::Handle::stop).
///
/// Blocking waits work outside the executor (including in `smol::block_on`, which runs no tasks), in `unblock`, and in
/// a task unless the driver was last polled on that task's thread; smol has one thread unless `SMOL_THREADS` says
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
        match std_clock::std_instant(at) {
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

    /// Outside the global executor's own threads, which may all be needed to poll the driver.
    fn waits_on_drop(&self) -> bool {
        !is_own_thread()
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

/// Whether no other thread can run tasks while the calling one blocks. The driver may not have been polled yet.
fn is_the_only_thread() -> bool {
    let threads = env::var("SMOL_THREADS")
        .ok()
        .and_then(|count| count.parse().ok());
    threads.unwrap_or(1) == 1 && is_own_thread()
}

/// Whether the calling thread is one of the global executor's.
fn is_own_thread() -> bool {
    let thread = thread::current();
    let number = thread.name().and_then(|name| name.strip_prefix("smol-"));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Weak, so that the session does not keep alive the executor that owns its driver.
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
