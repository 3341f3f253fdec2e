//! The tokio runtime: its tasks, and its pausable clock.

use super::common::{std_clock, timer};
use crate::clock::Clock;
use crate::local::LocalSpawner;
use crate::spawner::{Runtime, SpawnError, Spawner, WouldDeadlock};
use crate::sys::panics;
use crate::time::{Instant, Timestamp};
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::Cell;
use core::fmt;
use core::future::{Future, pending, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant as TokioInstant;

/// The tokio runtime, multi-thread or current-thread: `.runtime(Tokio)` inside it, or
/// [`.runtime(Tokio::on(handle))`](Tokio::on) anywhere.
///
/// The runtime needs timers (`enable_time()`, `enable_all()`). When it shuts down, the session loses its driver: waits
/// return at once with what remains. Time is tokio's, `tokio::time::pause()` included.
///
/// On a multi-thread runtime, dropping the reporter waits until it has drained, in a task with `block_in_place`, at most
/// `drop_timeout`. While the runtime shuts down, in a `LocalSet` and on a current-thread runtime it only requests a stop:
/// await [`stop`](crate::Handle::stop) there.
///
/// A transport that is not `Send` needs a `LocalSet` and [`start_local`](crate::session::Builder::start_local).
///
/// Blocking waits work in the tasks of a multi-thread runtime (with `block_in_place`), in `spawn_blocking` and outside
/// tokio. They return [`WouldDeadlock`] in a `LocalSet`, where tokio allows no blocking, and in the tasks of a
/// current-thread runtime.
///
/// Tokio says by a panic that it allows no blocking, that the runtime has no timers, and that there is no `LocalSet` to
/// spawn into. The panic is caught, and this crate's own panic hook ignores it; other panic hooks, the default one
/// among them, see it: in a blocking wait once per thread ("can call blocking only when running on the multi-threaded
/// runtime"), after which all tasks of that thread that no worker runs get [`WouldDeadlock`]. With `panic = "abort"`,
/// and in panic hooks, a wait provokes none: in a `LocalSet` its tasks get [`WouldDeadlock`], its main future waits.
#[derive(Clone, Default)]
pub struct Tokio {
    bound: Option<Bound>,
}

/// A [`struct@Tokio`] that is not yet bound to a runtime.
#[allow(non_upper_case_globals, reason = "used like a unit struct")]
pub const Tokio: Tokio = Tokio { bound: None };

#[derive(Clone)]
struct Bound {
    handle: Handle,
    /// The runtime's time, which may be paused, at binding.
    origin: TokioInstant,
}

const NO_RUNTIME: &str =
    "there is no tokio runtime here: start inside one, or use Tokio::on(handle)";
const NO_TIMERS: &str = "the tokio runtime has no timers: build it with enable_time()";
const NO_LOCAL_SET: &str =
    "there is no tokio LocalSet here: start inside one, or set an Rc<LocalSet> as the spawner";
const SHUT_DOWN: &str = "the tokio runtime is shut down";

impl Tokio {
    /// Binds to the runtime of `handle`, wherever the session is started.
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
        // Tokio offers no other way to detect timers; where panics abort, its own message says the same.
        panics::catch(|| {
            let _guard = handle.enter();
            drop(tokio::time::sleep(Duration::ZERO));
        })
        .ok_or(SpawnError::new(NO_TIMERS))?;
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
            // A tokio `Sleep` panics outside its runtime and after the runtime's end; a sleeping task does not.
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

    async fn deadline(&self, at: Instant) {
        let mut by_runtime = pin!(self.sleep_until(at));
        let mut unaided = pin!(reached_unaided(self, at));
        poll_fn(|context| match by_runtime.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => unaided.as_mut().poll(context),
        })
        .await;
    }
}

/// Completes when the runtime's time has reached `at`. The process's timer thread wakes the task, in real time, so that
/// it looks even while the runtime does not run; only the runtime's time, which may be paused, decides.
async fn reached_unaided(tokio: &Tokio, at: Instant) {
    /// Where time is paused, it is looked at again after as long as is left of it, and not sooner than this.
    const LEAST: Duration = Duration::from_millis(1);
    loop {
        let left = at.saturating_duration_since(tokio.now());
        if left.is_zero() {
            return;
        }
        match std::time::Instant::now().checked_add(left.max(LEAST)) {
            Some(at) => timer::sleep_until(at).await,
            None => pending().await,
        }
    }
}

impl Spawner for Tokio {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        let handle = match self.handle() {
            Some(handle) => handle.clone(),
            None => Handle::try_current().map_err(|_| SpawnError::new(NO_RUNTIME))?,
        };
        if was_cancelled(handle.spawn(task)) {
            return Err(SpawnError::new(SHUT_DOWN));
        }
        Ok(())
    }

    /// On a multi-thread runtime, whose other threads poll the driver meanwhile. A runtime that is shutting down polls
    /// no task again, and drops those that are left one after the other, the reporter's perhaps before the driver's.
    fn waits_on_drop(&self) -> bool {
        self.handle()
            .is_some_and(|handle| is_multi_thread(handle) && !was_cancelled(handle.spawn(async {})))
    }

    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), WouldDeadlock> {
        let here = Handle::try_current().ok();
        let driver_moves = self.handle().is_some_and(is_multi_thread);
        match &here {
            Some(here) if is_multi_thread(here) => {
                if is_on_this_thread && self.bound.is_some() && !driver_moves {
                    return Err(WouldDeadlock);
                }
                block_in_place(driver_moves, wait)
            }
            _ if driver_moves => {
                wait();
                Ok(())
            }
            _ if is_on_this_thread => Err(WouldDeadlock),
            // The driver may never have been polled, or may have been polled on a thread that ran the runtime earlier.
            Some(here) if self.is_same_runtime(here) && is_polled_by_tokio() => Err(WouldDeadlock),
            _ => {
                wait();
                Ok(())
            }
        }
    }
}

/// Spawns into the calling code's [`LocalSet`]. Outside one, tokio panics; that is caught and returned as an error.
impl LocalSpawner for Tokio {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        panics::catch(|| drop(tokio::task::spawn_local(task))).ok_or(SpawnError::new(NO_LOCAL_SET))
    }
}

/// Spawns into this set, from anywhere on its thread. Set it with
/// [`Builder::spawner`](crate::session::Builder::spawner) after `.runtime(Tokio)`.
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

fn is_multi_thread(handle: &Handle) -> bool {
    handle.runtime_flavor() == RuntimeFlavor::MultiThread
}

/// Whether a task that was just spawned has been dropped already, by a runtime that is shut down.
fn was_cancelled(task: JoinHandle<()>) -> bool {
    if !task.is_finished() {
        return false;
    }
    let mut task = pin!(tokio::task::unconstrained(task));
    let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    matches!(polled, Poll::Ready(Err(error)) if error.is_cancelled())
}

/// The runtime's time, paused or not, from any thread; real time while the thread's locals are being destroyed.
fn now_on(handle: Option<&Handle>) -> TokioInstant {
    let is_thread_ending =
        Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed());
    let _guard = match handle {
        Some(handle) if !is_thread_ending => Some(handle.enter()),
        _ => None,
    };
    TokioInstant::now()
}

async fn tokio_sleep(at: TokioInstant) {
    tokio::time::sleep_until(at).await;
}

/// Awaits a task, and aborts it when dropped.
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

/// Waits on a thread that has entered a multi-thread runtime: with [`tokio::task::block_in_place`] where tokio allows
/// it, plainly on threads that run no worker. `driver_moves`: workers of such a runtime run the driver.
fn block_in_place(driver_moves: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
    std::thread_local! {
        /// Whether tokio has refused here, by whether the code was a worker's. It does so with a panic, which other
        /// panic hooks see: it is asked for once.
        static HAS_REFUSED: Cell<[bool; 2]> = const { Cell::new([false; 2]) };
    }
    // Workers run all code in tasks. A task of a current-thread runtime that has entered another runtime's handle looks
    // the same: there a refusal cannot be foreseen.
    let (is_in_task, has_scheduler) = (tokio::task::try_id().is_some(), has_scheduler());
    let is_worker = is_in_task && has_scheduler;
    let refused_here = usize::from(is_worker);
    if can_provoke() && !HAS_REFUSED.get()[refused_here] {
        let result = probe(wait);
        if result.is_err() {
            let mut refused = HAS_REFUSED.get();
            refused[refused_here] = true;
            HAS_REFUSED.set(refused);
        }
        return result;
    }
    if is_worker && !can_provoke() {
        tokio::task::block_in_place(wait);
        return Ok(());
    }
    // Not a worker's thread, so blocking it keeps no worker from running the driver. But it may run a current-thread
    // runtime, or in a polled task a `LocalSet`, where tokio allows no blocking.
    let may_be_local = can_provoke() || is_in_task;
    if !driver_moves || has_scheduler || (may_be_local && is_polled_by_tokio()) {
        return Err(WouldDeadlock);
    }
    wait();
    Ok(())
}

/// [`tokio::task::block_in_place`], with its panic where blocking is not allowed turned into an error.
fn probe(wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
    let mut waited = None;
    panics::catch(|| {
        tokio::task::block_in_place(|| {
            // What the caller waits for is not ours.
            waited = panics::contain(|| catch_unwind(AssertUnwindSafe(&mut *wait)));
        });
    });
    match waited {
        Some(Ok(())) => Ok(()),
        Some(Err(panic)) => resume_unwind(panic),
        None => Err(WouldDeadlock),
    }
}

/// Whether a panic of tokio's can be caught here, and so provoked: not where panics abort, and not in a panic hook, where
/// every panic does. A destructor that runs while its thread unwinds cannot be told from a hook.
fn can_provoke() -> bool {
    cfg!(panic = "unwind") && !std::thread::panicking()
}

/// Whether this thread is running a scheduler: that of a worker, or of a current-thread runtime.
///
/// A scheduler keeps the waker of a task that yields until it has run others. Elsewhere it is woken at once.
fn has_scheduler() -> bool {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
    !woken.0.load(Ordering::Relaxed)
}

/// Whether tokio is polling the calling code, as opposed to running it in `spawn_blocking` or under `enter()`.
///
/// Only polled code has a budget, which cannot be observed without being used up: the caller's next `.await` may then
/// yield once.
fn is_polled_by_tokio() -> bool {
    const ABOVE_BUDGET: usize = 1024;
    let mut context = Context::from_waker(Waker::noop());
    (0..ABOVE_BUDGET).any(|_| {
        pin!(tokio::task::consume_budget())
            .poll(&mut context)
            .is_pending()
    })
}
