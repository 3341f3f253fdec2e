//! A simulated executor: one thread, and a task order that the seed decides.

use super::SimClock;
use super::rng::Rng;
use super::spawner::{LocalTask, Signal, SimLocalSpawner, SimSpawner, Tag};
use super::timers::{Step, Timers};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake as _;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

/// Runs simulated tasks one at a time, on the calling thread.
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
    /// The waker of the timer that fired last.
    fired: Option<Waker>,
    /// The task that set this timer, until it is polled: it bypasses the inbox.
    next: Option<usize>,
    /// Decides when a task moves, if tasks do.
    moves: Option<Rng>,
}

struct Task {
    future: LocalTask,
    tag: Tag,
    signal: Arc<Signal>,
    waker: Waker,
}

impl Task {
    /// Whether `waker` would only put this task on the ready list.
    fn is_idle_owner(&self, waker: &Waker) -> bool {
        self.waker.will_wake(waker) && !self.signal.is_ready()
    }
}

/// The result of a turn.
pub(super) enum Turn {
    /// This task was polled.
    Polled(usize),
    /// No task is ready.
    Idle,
}

impl SimExecutor {
    /// An executor with a clock of its own, whose task order `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_clock(Rng::new(seed), SimClock::new())
    }

    pub(super) fn with_clock(rng: Rng, clock: SimClock) -> Self {
        Self {
            spawner: SimSpawner::new(clock),
            tasks: Vec::new(),
            free: Vec::new(),
            local: Rc::default(),
            rng,
            fired: None,
            next: None,
            moves: None,
        }
    }

    /// From now on tasks move, as a future does that is first polled in one task and then awaited in another: now and
    /// then a task that waits is polled again at once, with a new waker, and its old one wakes nothing.
    pub(super) fn move_tasks(&mut self, rng: Rng) {
        self.moves = Some(rng);
    }

    /// The spawner and clock of this executor, for [`Builder::runtime`](crate::session::Builder::runtime).
    #[must_use]
    pub fn spawner(&self) -> SimSpawner {
        self.spawner.clone()
    }

    /// The spawner for tasks that are not `Send`.
    #[must_use]
    pub fn local_spawner(&self) -> SimLocalSpawner {
        SimLocalSpawner(Rc::clone(&self.local))
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.spawner.clock()
    }

    /// Runs all tasks until none is ready. Time does not pass.
    pub fn run(&mut self) {
        while let Turn::Polled(..) = self.turn() {}
    }

    /// Advances time by `duration`, timer by timer, and runs all tasks after each.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.spawner.clock_ref().after(duration);
        loop {
            self.run();
            if !self.spawner.clock_ref().step(end) {
                break;
            }
        }
        self.run();
    }

    /// Runs `task` to completion, advancing time as needed. `None` if no task is ready and no timer is left.
    pub fn block_on<R: 'static>(&mut self, task: impl Future<Output = R> + 'static) -> Option<R> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        self.local.borrow_mut().push(Box::pin(async move {
            *slot.borrow_mut() = Some(task.await);
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

    /// When no task is ready: moves to the next timer, unless there is none until `end`. The task that set it is next.
    pub(super) fn step_to_timer(&mut self, end: Instant) -> Step {
        let step = self.spawner.clock_ref().step_to_timer(end, &mut self.fired);
        if step == Step::Timer {
            self.wake_fired();
        }
        step
    }

    /// [`step_to_timer`](Self::step_to_timer), for the scenario's own timers.
    #[inline]
    pub(super) fn step_to_timer_of(&mut self, timers: &RefCell<Timers>, end: Instant) -> Step {
        let due = timers.borrow_mut().pop(end.as_micros(), &mut self.fired);
        let Some((at, waker)) = due else {
            return Step::Beyond;
        };
        self.spawner
            .clock_ref()
            .set_exclusive(Instant::from_micros(at));
        self.fired = Some(waker);
        self.wake_fired();
        Step::Timer
    }

    /// Makes the task that set the fired timer the next one.
    #[inline]
    fn wake_fired(&mut self) {
        let Some(waker) = &self.fired else { return };
        let mut few = self.tasks.iter().take(8).map(Option::as_ref);
        self.next = few.position(|task| task.is_some_and(|task| task.is_idle_owner(waker)));
        if self.next.is_none() {
            waker.wake_by_ref();
        }
    }

    /// Polls one of the ready tasks.
    #[inline]
    pub(super) fn turn(&mut self) -> Turn {
        if let Some(index) = self.next.take() {
            self.poll(index);
            return Turn::Polled(index);
        }
        self.turn_of_ready()
    }

    fn turn_of_ready(&mut self) -> Turn {
        self.take_local();
        let mut inbox = self.spawner.inbox().lock();
        if !inbox.spawned.is_empty() {
            drop(inbox);
            self.take_spawned();
            inbox = self.spawner.inbox().lock();
        }
        let index = match inbox.ready.len() {
            0 | 1 => 0,
            len => self.rng.below(len as u64) as usize,
        };
        let index = (index < inbox.ready.len()).then(|| inbox.ready.swap_remove(index));
        let has_more = !(inbox.ready.is_empty() && inbox.spawned.is_empty());
        self.spawner.inbox().set_may_have_work(&mut inbox, has_more);
        let Some(index) = index else {
            return Turn::Idle;
        };
        if let Some(Some(task)) = self.tasks.get(index) {
            task.signal.clear(&mut inbox);
        }
        drop(inbox);
        self.poll(index);
        Turn::Polled(index)
    }

    fn poll(&mut self, index: usize) {
        if let Some(Some(task)) = self.tasks.get_mut(index) {
            let mut context = Context::from_waker(&task.waker);
            if let Poll::Ready(()) = task.future.as_mut().poll(&mut context) {
                return self.remove(index);
            }
        }
        if self.moves.as_mut().is_some_and(|rng| rng.below(4) == 0) {
            self.poll_elsewhere(index);
        }
    }

    /// Moves a task that waits, and polls it in its new place.
    #[cold]
    fn poll_elsewhere(&mut self, index: usize) {
        if let Some(Some(task)) = self.tasks.get_mut(index) {
            let signal = Arc::new(Signal::new(index, Arc::clone(self.spawner.inbox())));
            task.waker = Waker::from(Arc::clone(&signal));
            core::mem::replace(&mut task.signal, signal).retire();
            let mut context = Context::from_waker(&task.waker);
            if let Poll::Ready(()) = task.future.as_mut().poll(&mut context) {
                self.remove(index);
            }
        }
    }

    /// Whether a task may be ready.
    #[inline]
    pub(super) fn may_have_work(&self) -> bool {
        self.next.is_some()
            || self.spawner.inbox().may_have_work()
            || !self.local.borrow().is_empty()
    }

    fn take_local(&mut self) {
        while let Some(task) = { self.local.borrow_mut().pop() } {
            self.add(0, task);
        }
    }

    fn take_spawned(&mut self) {
        let spawned = core::mem::take(&mut self.spawner.inbox().lock().spawned);
        for (tag, task) in spawned {
            self.add(tag, task);
        }
    }

    pub(super) fn add(&mut self, tag: Tag, future: LocalTask) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        let signal = Arc::new(Signal::new(index, Arc::clone(self.spawner.inbox())));
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
        // A task woken during its last turn is still listed, and the next task at this index has another signal.
        let is_listed = task.as_ref().is_some_and(|task| task.signal.is_ready());
        if is_listed {
            self.spawner
                .inbox()
                .lock()
                .ready
                .retain(|&ready| ready != index);
        }
        drop(task);
        self.free.push(index);
    }

    /// Drops all tasks with this tag, as when their runtime ends. True if there were any.
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
        let mut inbox = self.spawner.inbox().lock();
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
            .field("clock", self.spawner.clock_ref())
            .field("tasks", &(self.tasks.len() - self.free.len()))
            .finish()
    }
}
