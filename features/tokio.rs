//! The tokio runtime: its tasks, and its clock, which tests can pause.

use super::common::{std_clock, timer};
use crate::local::LocalSpawner;
use crate::{Clock, Instant, Runtime, SpawnError, Spawner, Timestamp, WouldDeadlock};
use alloc::rc::Rc;
use core::fmt;
use core::future::{Future, pending};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant as TokioInstant;

/// The tokio runtime, multi-thread or current-thread: `.runtime(Tokio)` inside of it, or
/// [`.runtime(Tokio::on(handle))`](Tokio::on) anywhere.
///
/// The runtime needs timers (`enable_time()`, `enable_all()`). When it shuts down the session loses its driver: waits
/// end at once with what remains. Dropping the reporter only asks for a stop, so await
/// [`stop`](crate::Handle::stop) before the runtime ends. Time is tokio's, `tokio::time::pause()` included.
///
/// A transport that is not `Send` needs a `LocalSet` and [`start_local`](crate::Builder::start_local).
///
/// Blocking waits work in tasks of a multi-thread runtime (by `block_in_place`), in `spawn_blocking` and outside; they
/// answer [`WouldDeadlock`] in a `LocalSet`, where tokio allows no blocking, and in the tasks of a current-thread
/// runtime.
#[derive(Clone, Default)]
pub struct Tokio {
    bound: Option<Bound>,
}

/// [`struct@Tokio`], not yet bound to a runtime.
#[allow(non_upper_case_globals, reason = "it is written like a unit struct")]
pub const Tokio: Tokio = Tokio { bound: None };

#[derive(Clone)]
struct Bound {
    handle: Handle,
    /// The runtime's own time when it was bound, which may be paused.
    origin: TokioInstant,
}

const NO_RUNTIME: &str =
    "there is no tokio runtime here: start inside one, or use Tokio::on(handle)";
const NO_TIMERS: &str = "the tokio runtime has no timers: build it with enable_time()";
const NO_LOCAL_SET: &str =
    "there is no tokio LocalSet here: start inside one, or set an Rc<LocalSet> as the spawner";
const SHUT_DOWN: &str = "the tokio runtime is shut down";

impl Tokio {
    /// The runtime of this handle, wherever the session is started.
    #[must_use]
    pub fn on(handle: Handle) -> Self {
        Self {
            bound: Some(Bound {
                origin: now_on(Some(&handle)),
                handle,
            }),
        }
    }

    fn handle(&self) -> Option<&Handle> {
        self.bound.as_ref().map(|bound| &bound.handle)
    }

    fn origin(&self) -> TokioInstant {
        match &self.bound {
            Some(bound) => bound.origin,
            None => TokioInstant::from_std(std_clock::origin()),
        }
    }
}

impl Runtime for Tokio {
    fn bind(&mut self) -> Result<(), SpawnError> {
        let handle = match self.handle() {
            Some(handle) => handle.clone(),
            None => Handle::try_current().map_err(|_| SpawnError::new(NO_RUNTIME))?,
        };
        // Tokio has no other way to ask; where panics abort, its own message says the same.
        catch_unwind(AssertUnwindSafe(|| {
            let _inside = handle.enter();
            drop(tokio::time::sleep(Duration::ZERO));
        }))
        .map_err(|_| SpawnError::new(NO_TIMERS))?;
        *self = Self::on(handle);
        Ok(())
    }
}

impl Clock for Tokio {
    fn now(&self) -> Instant {
        let since = now_on(self.handle()).saturating_duration_since(self.origin());
        Instant::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn utc(&self) -> Timestamp {
        std_clock::utc()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        let handle = self.handle().cloned();
        let at = self
            .origin()
            .checked_add(Duration::from_micros(at.as_micros()));
        async move {
            let Some(at) = at else { return pending().await };
            let handle = handle.or_else(|| Handle::try_current().ok());
            if now_on(handle.as_ref()) >= at {
                return;
            }
            // A tokio `Sleep` panics outside its runtime and after the runtime's end; a task that sleeps does not.
            if let Some(handle) = &handle {
                let sleep = handle.spawn(tokio_sleep(at));
                if AbortOnDrop(sleep).await.is_ok() {
                    return;
                }
            }
            let left = at.saturating_duration_since(now_on(handle.as_ref()));
            match std::time::Instant::now().checked_add(left) {
                Some(at) => timer::sleep_until(at).await,
                None => pending().await,
            }
        }
    }
}

impl Spawner for Tokio {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        let handle = match self.handle() {
            Some(handle) => handle.clone(),
            None => Handle::try_current().map_err(|_| SpawnError::new(NO_RUNTIME))?,
        };
        let task = handle.spawn(task);
        if !task.is_finished() {
            return Ok(());
        }
        // Through already, or dropped by a runtime that is shut down.
        let mut task = pin!(tokio::task::unconstrained(task));
        match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(error)) if error.is_cancelled() => Err(SpawnError::new(SHUT_DOWN)),
            _ => Ok(()),
        }
    }

    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), WouldDeadlock> {
        let here = Handle::try_current().ok();
        let is_multi_thread =
            |handle: &Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
        let driver_moves = self.handle().is_some_and(is_multi_thread);
        match &here {
            Some(here) if is_multi_thread(here) => {
                if is_on_this_thread && self.bound.is_some() && !driver_moves {
                    return Err(WouldDeadlock);
                }
                block_in_place(wait)
            }
            _ if driver_moves => {
                wait();
                Ok(())
            }
            _ if is_on_this_thread => Err(WouldDeadlock),
            // The driver may never have been polled, or on another thread that ran the runtime before this one.
            Some(here) if self.is_same_runtime(here) && is_polled_by_tokio() => Err(WouldDeadlock),
            _ => {
                wait();
                Ok(())
            }
        }
    }
}

/// Into the [`LocalSet`] of the calling code; outside of one tokio can say so only with a panic, which is caught here.
impl LocalSpawner for Tokio {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        catch_unwind(AssertUnwindSafe(|| drop(tokio::task::spawn_local(task))))
            .map_err(|_| SpawnError::new(NO_LOCAL_SET))
    }
}

/// Into this set, from anywhere on its thread; with [`Builder::spawner`](crate::Builder::spawner) after
/// `.runtime(Tokio)`.
impl LocalSpawner for Rc<LocalSet> {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        drop(LocalSet::spawn_local(self, task));
        Ok(())
    }
}

impl Tokio {
    fn is_same_runtime(&self, other: &Handle) -> bool {
        self.handle().is_none_or(|handle| handle.id() == other.id())
    }
}

impl fmt::Debug for Tokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokio")
            .field("runtime", &self.handle().map(Handle::id))
            .finish()
    }
}

/// The time of the runtime, paused or not, as seen from any thread; in a thread's last moments the real time.
fn now_on(handle: Option<&Handle>) -> TokioInstant {
    let is_thread_ending =
        Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
    let _inside = match handle {
        Some(handle) if !is_thread_ending => Some(handle.enter()),
        _ => None,
    };
    TokioInstant::now()
}

async fn tokio_sleep(at: TokioInstant) {
    tokio::time::sleep_until(at).await;
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop(JoinHandle<()>);

impl Future for AbortOnDrop {
    type Output = Result<(), tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// [`tokio::task::block_in_place`], which panics (and has no other way to say so) where it cannot be done.
fn block_in_place(wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
    let mut has_begun = false;
    catch_unwind(AssertUnwindSafe(|| {
        tokio::task::block_in_place(|| {
            has_begun = true;
            wait();
        });
    }))
    .map_err(|panic| {
        if has_begun {
            resume_unwind(panic);
        }
        WouldDeadlock
    })
}

/// Whether the calling code is being polled by tokio, as opposed to running in `spawn_blocking` or under `enter()`.
///
/// Only what is polled has a budget. There is no way to see it but to use it up, after which the caller's next
/// `.await` may yield once.
fn is_polled_by_tokio() -> bool {
    const MORE_THAN_A_BUDGET: usize = 1024;
    let mut context = Context::from_waker(Waker::noop());
    (0..MORE_THAN_A_BUDGET).any(|_| {
        pin!(tokio::task::consume_budget())
            .poll(&mut context)
            .is_pending()
    })
}
