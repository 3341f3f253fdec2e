//! An executor whose time passes only when a test advances it.

use core::cell::Cell;
use core::future::{Future, pending, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;
use embassy_executor::{Executor, Spawner};
use embassy_time::MockDriver;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use tinkex_telemetry::runtime::{Clock, Embassy, EmbassyPool};
use tinkex_telemetry::time::Instant;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The mock driver is global, so tests take turns.
static TIME: Mutex<()> = Mutex::new(());

#[embassy_executor::task(pool_size = 64)]
async fn task(future: Pin<Box<dyn Future<Output = ()>>>) {
    future.await;
}

/// Spawns tasks next to the test's own.
#[derive(Clone, Copy)]
pub(crate) struct Tasks(Spawner);

impl Tasks {
    pub(crate) fn spawn(self, future: impl Future<Output = ()> + 'static) {
        let task = task(Box::pin(future));
        self.0.spawn(task.expect("the task pool is large enough"));
    }

    /// Runs a future in a task. Returns where its output will be, and whether it has ended.
    pub(crate) fn watch<T: 'static>(
        self,
        future: impl Future<Output = T> + 'static,
    ) -> (Rc<Cell<Option<T>>>, impl Fn() -> bool) {
        let (value, has_ended) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
        let (set, end) = (Rc::clone(&value), Rc::clone(&has_ended));
        self.spawn(async move {
            set.set(Some(future.await));
            end.set(true);
        });
        (value, move || has_ended.get())
    }
}

/// Runs a test on a new executor with a new pool, starting at time zero.
pub(crate) fn in_mock_time(test: impl AsyncFnOnce(&'static EmbassyPool, Tasks) + 'static) {
    let _alone = TIME.lock().unwrap_or_else(PoisonError::into_inner);
    MockDriver::get().reset();
    let executor: &'static mut Executor = Box::leak(Box::new(Executor::new()));
    let pool: &'static EmbassyPool = Box::leak(Box::new(EmbassyPool::new()));
    let has_ended = Rc::new(Cell::new(false));
    let end = Rc::clone(&has_ended);
    executor.run_until(
        |spawner| {
            let tasks = Tasks(spawner);
            tasks.spawn(pool.run());
            tasks.spawn(async move {
                test(pool, tasks).await;
                end.set(true);
            });
        },
        || has_ended.get(),
    );
}

/// Advances time, then lets all tasks run until they wait again.
pub(crate) async fn pass(time: Duration) {
    settle().await;
    let micros = u64::try_from(time.as_micros()).expect("it is not that long");
    MockDriver::get().advance(embassy_time::Duration::from_micros(micros));
    settle().await;
}

/// Yields more often than anything here needs.
async fn settle() {
    for _ in 0..64 {
        let has_yielded = Cell::new(false);
        poll_fn(|context| {
            if has_yielded.replace(true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

pub(crate) fn elapsed() -> Duration {
    Embassy.now().saturating_duration_since(Instant::ORIGIN)
}

pub(crate) fn start<T: Transport>(
    pool: &'static EmbassyPool,
    transport: T,
) -> Reporter<T, Embassy, Embassy> {
    Reporter::builder("s")
        .transport(transport)
        .runtime(Embassy::on(pool))
        .enabled(true)
        .start()
        .expect("it starts")
}

/// A transport that records when each attempt started and when it was abandoned.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    notes: Arc<Mutex<Notes>>,
    failures: usize,
    is_silent: bool,
}

#[derive(Default)]
struct Notes {
    attempts: Vec<Duration>,
    abandoned: Vec<Duration>,
}

impl Memory {
    /// Fails the first `failures` attempts.
    pub(crate) fn failing(failures: usize) -> Self {
        Self {
            failures,
            ..Self::default()
        }
    }

    /// Never responds.
    pub(crate) fn silent() -> Self {
        Self {
            is_silent: true,
            ..Self::default()
        }
    }

    pub(crate) fn attempts(&self) -> Vec<Duration> {
        self.notes.lock().expect("no panic").attempts.clone()
    }

    pub(crate) fn abandoned(&self) -> Vec<Duration> {
        self.notes.lock().expect("no panic").abandoned.clone()
    }

    /// Returns the number of attempts so far.
    pub(crate) fn note_attempt(&self) -> usize {
        let attempts = &mut self.notes.lock().expect("no panic").attempts;
        attempts.push(elapsed());
        attempts.len()
    }
}

impl Transport for Memory {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        let attempts = self.note_attempt();
        if self.is_silent {
            let _abandoned = Abandoned(self);
            pending::<()>().await;
        }
        if attempts <= self.failures {
            return Err(SendError::retryable("not yet"));
        }
        Ok(Receipt::delivered())
    }
}

struct Abandoned<'a>(&'a Memory);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.0
            .notes
            .lock()
            .expect("no panic")
            .abandoned
            .push(elapsed());
    }
}
