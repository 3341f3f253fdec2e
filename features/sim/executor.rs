//! A simulated executor: one thread, and an order of tasks that the seed decides.

use super::SimClock;
use super::rng::Rng;
use super::timers::{Step, Timers};
use crate::clock::Clock;
use crate::local::LocalSpawner;
use crate::spawner::{Runtime, SpawnError, Spawner};
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

type SendTask = Pin<Box<dyn Future<Output = ()> + Send>>;
type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// Which tasks belong together: those of one session.
pub(super) type Tag = u32;

/// Spawns tasks on a [`SimExecutor`], and is its clock: a [`Runtime`]. Clones spawn on the same one.
#[derive(Clone)]
pub struct SimSpawner {
    inbox: Arc<Inbox>,
    clock: SimClock,
    tag: Tag,
}

/// Runs simulated tasks, one at a time, on the thread that asks.
///
/// ```
/// use core::time::Duration;
/// use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport, fields};
/// use tinkex_telemetry::sim::SimExecutor;
///
/// struct Print;
/// impl Transport for Print {
///     async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
///         println!("{} events", batch.event_count());
///         Ok(Receipt::delivered())
///     }
/// }
///
/// let mut executor = SimExecutor::new(7);
/// let reporter = Reporter::builder("s")
///     .transport(Print)
///     .runtime(executor.spawner())
///     .enabled(true)
///     .start()?;
/// reporter.log("x", fields! { n: 1 });
/// executor.advance(Duration::from_secs(9));
/// assert_eq!(reporter.stats().delivered, 0);
/// executor.advance(Duration::from_secs(1)); // the flush interval
/// assert_eq!(reporter.stats().delivered, 2);
/// # Ok::<(), tinkex_telemetry::session::BuildError>(())
/// ```
pub struct SimExecutor {
    spawner: SimSpawner,
    tasks: Vec<Option<Task>>,
    free: Vec<usize>,
    local: Rc<RefCell<Vec<LocalTask>>>,
    rng: Rng,
    /// The waker of the timer that has gone off last.
    due: Option<Waker>,
    /// Whose it was, while its turn has not come: it need not go through the inbox.
    next: Option<usize>,
}

struct Task {
    future: LocalTask,
    tag: Tag,
    signal: Arc<Signal>,
    waker: Waker,
}

impl Task {
    /// Whether this waker would do nothing but list this task.
    fn is_idle_owner(&self, waker: &Waker) -> bool {
        self.waker.will_wake(waker) && !self.signal.is_ready.load(Ordering::Relaxed)
    }
}

/// Says that a task wants a turn.
struct Signal {
    task: usize,
    /// Whether it is listed. Written under the inbox's lock only.
    is_ready: AtomicBool,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    incoming: Mutex<Incoming>,
    /// Whether there may be something in it. Written under its lock only.
    has_news: AtomicBool,
}

#[derive(Default)]
struct Incoming {
    spawned: Vec<(Tag, SendTask)>,
    /// Each task that has been woken, once.
    ready: Vec<usize>,
    is_closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the executor look here.
    fn announce(&self, _lock: &mut Incoming) {
        self.has_news.store(true, Ordering::Relaxed);
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut inbox = self.inbox.lock();
        if !self.is_ready.load(Ordering::Relaxed) {
            self.is_ready.store(true, Ordering::Relaxed);
            inbox.ready.push(self.task);
            self.inbox.announce(&mut inbox);
        }
    }
}

impl SimSpawner {
    pub(super) fn tagged(&self, tag: Tag) -> Self {
        Self {
            tag,
            ..self.clone()
        }
    }

    /// The clock of its executor.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.clock.clone()
    }
}

impl Spawner for SimSpawner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        let mut inbox = self.inbox.lock();
        if inbox.is_closed {
            return Err(SpawnError::new("the simulated executor is gone"));
        }
        inbox.spawned.push((self.tag, Box::pin(task)));
        self.inbox.announce(&mut inbox);
        Ok(())
    }
}

impl Clock for SimSpawner {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn utc(&self) -> Timestamp {
        self.clock.utc()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        self.clock.sleep_until(at)
    }
}

impl Runtime for SimSpawner {}

/// Spawns tasks that are not `Send`, on its own thread.
#[derive(Clone)]
pub struct SimLocalSpawner(Rc<RefCell<Vec<LocalTask>>>);

impl LocalSpawner for SimLocalSpawner {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        self.0.borrow_mut().push(Box::pin(task));
        Ok(())
    }
}

/// What a turn came to.
pub(super) enum Turn {
    /// A task was polled.
    Took(usize),
    /// No task wants one.
    Idle,
}

impl SimExecutor {
    /// An executor whose order of tasks `seed` decides, with a clock of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_clock(Rng::new(seed), SimClock::new())
    }

    pub(super) fn with_clock(rng: Rng, clock: SimClock) -> Self {
        Self {
            spawner: SimSpawner {
                inbox: Arc::default(),
                clock,
                tag: 0,
            },
            tasks: Vec::new(),
            free: Vec::new(),
            local: Rc::default(),
            rng,
            due: None,
            next: None,
        }
    }

    /// Spawns on this executor, and is its clock: for [`Builder::runtime`](crate::session::Builder::runtime).
    #[must_use]
    pub fn spawner(&self) -> SimSpawner {
        self.spawner.clone()
    }

    /// For tasks that are not `Send`.
    #[must_use]
    pub fn local_spawner(&self) -> SimLocalSpawner {
        SimLocalSpawner(Rc::clone(&self.local))
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.spawner.clock()
    }

    /// Runs all tasks until none can go on; time stands still.
    pub fn run(&mut self) {
        while let Turn::Took(..) = self.turn() {}
    }

    /// Lets `duration` pass, timer after timer, and runs all tasks after each.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.spawner.clock.after(duration);
        loop {
            self.run();
            if !self.spawner.clock.step(end) {
                break;
            }
        }
        self.run();
    }

    /// Runs `task` to its end, and time with it. `None` when nothing is left that could ever happen.
    pub fn block_on<R: 'static>(&mut self, task: impl Future<Output = R> + 'static) -> Option<R> {
        let result = Rc::new(RefCell::new(None));
        let tell = Rc::clone(&result);
        self.local.borrow_mut().push(Box::pin(async move {
            *tell.borrow_mut() = Some(task.await);
        }));
        loop {
            self.run();
            if let Some(result) = result.borrow_mut().take() {
                return Some(result);
            }
            if self.step_to_timer(Instant::END) == Step::NoTimer {
                return None;
            }
        }
    }

    /// When no task wants a turn: moves to the next timer, unless there is none or it lies beyond `end`. Whoever set it
    /// has the next turn.
    pub(super) fn step_to_timer(&mut self, end: Instant) -> Step {
        let step = self.spawner.clock.step_to_timer(end, &mut self.due);
        if step == Step::Timer {
            self.let_due_go_on();
        }
        step
    }

    /// [`step_to_timer`](Self::step_to_timer), to one of a scenario's.
    #[inline]
    pub(super) fn step_to_timer_of(&mut self, timers: &RefCell<Timers>, end: Instant) -> Step {
        let due = timers.borrow_mut().pop(end.as_micros(), &mut self.due);
        let Some((at, due)) = due else {
            return Step::Beyond;
        };
        self.spawner.clock.set_alone(Instant::from_micros(at));
        self.due = Some(due);
        self.let_due_go_on();
        Step::Timer
    }

    /// Whoever set the timer that has gone off has the next turn.
    #[inline]
    fn let_due_go_on(&mut self) {
        let Some(waker) = &self.due else { return };
        let mut few = self.tasks.iter().take(8).map(Option::as_ref);
        self.next = few.position(|task| task.is_some_and(|task| task.is_idle_owner(waker)));
        if self.next.is_none() {
            waker.wake_by_ref();
        }
    }

    /// Polls one of the tasks that want it.
    #[inline]
    pub(super) fn turn(&mut self) -> Turn {
        if let Some(index) = self.next.take() {
            self.poll(index);
            return Turn::Took(index);
        }
        self.turn_of_ready()
    }

    fn turn_of_ready(&mut self) -> Turn {
        self.take_local();
        let mut inbox = self.spawner.inbox.lock();
        if !inbox.spawned.is_empty() {
            drop(inbox);
            self.take_spawned();
            inbox = self.spawner.inbox.lock();
        }
        let index = match inbox.ready.len() {
            0 | 1 => 0,
            len => self.rng.below(len as u64) as usize,
        };
        let index = (index < inbox.ready.len()).then(|| inbox.ready.swap_remove(index));
        let has_more = !(inbox.ready.is_empty() && inbox.spawned.is_empty());
        self.spawner
            .inbox
            .has_news
            .store(has_more, Ordering::Relaxed);
        let Some(index) = index else {
            return Turn::Idle;
        };
        if let Some(Some(task)) = self.tasks.get(index) {
            task.signal.is_ready.store(false, Ordering::Relaxed);
        }
        drop(inbox);
        self.poll(index);
        Turn::Took(index)
    }

    fn poll(&mut self, index: usize) {
        if let Some(Some(task)) = self.tasks.get_mut(index) {
            let mut context = Context::from_waker(&task.waker);
            if let Poll::Ready(()) = task.future.as_mut().poll(&mut context) {
                self.remove(index);
            }
        }
    }

    /// Whether a task may want a turn.
    pub(super) fn has_news(&self) -> bool {
        self.next.is_some()
            || self.spawner.inbox.has_news.load(Ordering::Relaxed)
            || !self.local.borrow().is_empty()
    }

    fn take_local(&mut self) {
        while let Some(task) = { self.local.borrow_mut().pop() } {
            self.add(0, task);
        }
    }

    fn take_spawned(&mut self) {
        let spawned = core::mem::take(&mut self.spawner.inbox.lock().spawned);
        for (tag, task) in spawned {
            self.add(tag, task);
        }
    }

    pub(super) fn add(&mut self, tag: Tag, future: LocalTask) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        let signal = Arc::new(Signal {
            task: index,
            is_ready: AtomicBool::new(false),
            inbox: Arc::clone(&self.spawner.inbox),
        });
        self.tasks[index] = Some(Task {
            future,
            tag,
            waker: Waker::from(Arc::clone(&signal)),
            signal: Arc::clone(&signal),
        });
        signal.wake();
    }

    fn remove(&mut self, index: usize) {
        let task = self.tasks[index].take();
        self.next.take_if(|next| *next == index);
        // One that was woken in its last turn is still listed; whoever gets its place has a signal of its own.
        let is_listed = task
            .as_ref()
            .is_some_and(|task| task.signal.is_ready.load(Ordering::Relaxed));
        if is_listed {
            self.spawner
                .inbox
                .lock()
                .ready
                .retain(|&ready| ready != index);
        }
        drop(task);
        self.free.push(index);
    }

    /// Drops the tasks of this tag, as when their runtime is gone. True when there were any.
    pub(super) fn kill(&mut self, tag: Tag) -> bool {
        self.take_local();
        self.take_spawned();
        let doomed: Vec<_> = (0..self.tasks.len())
            .filter(|&index| {
                self.tasks[index]
                    .as_ref()
                    .is_some_and(|task| task.tag == tag)
            })
            .collect();
        for index in &doomed {
            self.remove(*index);
        }
        !doomed.is_empty()
    }
}

impl Drop for SimExecutor {
    fn drop(&mut self) {
        let mut inbox = self.spawner.inbox.lock();
        inbox.is_closed = true;
        let spawned = core::mem::take(&mut inbox.spawned);
        drop(inbox);
        drop(spawned);
        self.tasks.clear();
    }
}

impl fmt::Debug for SimExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimExecutor")
            .field("clock", &self.spawner.clock)
            .field("tasks", &(self.tasks.len() - self.free.len()))
            .finish()
    }
}

impl fmt::Debug for SimSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSpawner")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimLocalSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLocalSpawner").finish_non_exhaustive()
    }
}
