//! What a model decides itself: how far time has come, and when it is over.
//!
//! shuttle runs all threads of an execution on one thread of the system, so this state is local to that.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use shuttle::sync::Condvar;
use shuttle::thread;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

std::thread_local! {
    static EXECUTION: Cell<u64> = const { Cell::new(0) };
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static IS_OVER: Cell<bool> = const { Cell::new(false) };
    static THREADS: Cell<u32> = const { Cell::new(0) };
    static CONDVARS: RefCell<Vec<Arc<Condvar>>> = const { RefCell::new(Vec::new()) };
    /// When each timed wait in progress ends.
    static ENDS: RefCell<Vec<Duration>> = const { RefCell::new(Vec::new()) };
}

/// What ends a thread that is no longer needed.
struct Over;

/// Runs `scenario` in a fresh model, and ends the threads that it leaves behind.
pub fn run(scenario: impl FnOnce()) {
    EXECUTION.set(EXECUTION.get() + 1);
    NOW.set(Duration::ZERO);
    IS_OVER.set(false);
    THREADS.set(0);
    CONDVARS.take();
    ENDS.take();
    scenario();
    IS_OVER.set(true);
    while THREADS.get() > 0 {
        wake_all();
        thread::yield_now();
    }
}

/// The number of this execution: nothing of an earlier one may be used.
#[must_use]
pub fn execution() -> u64 {
    EXECUTION.get()
}

/// The number of threads that the code under test has started and that have not ended.
#[must_use]
pub fn threads() -> u32 {
    THREADS.get()
}

/// How far time has come.
#[must_use]
pub fn now() -> Duration {
    NOW.get()
}

/// Lets time pass until `end`, from the end of one timed wait to the next. Returns once `is_done`.
pub fn pass_until(end: Duration, is_done: impl Fn() -> bool) {
    while !is_done() {
        let next = ENDS.with_borrow(|ends| ends.iter().copied().min());
        if let Some(next) = next.filter(|next| *next <= end) {
            NOW.set(NOW.get().max(next));
            wake_all();
        }
        thread::yield_now();
    }
}

/// Spurious wake-ups are allowed, so all waits may be woken.
fn wake_all() {
    let condvars = CONDVARS.with_borrow(Clone::clone);
    condvars.iter().for_each(|condvar| condvar.notify_all());
}

pub(crate) fn register(condvar: &Arc<Condvar>) {
    CONDVARS.with_borrow_mut(|condvars| condvars.push(Arc::clone(condvar)));
}

/// A timed wait in progress.
pub(crate) struct TimedWait(Duration);

impl TimedWait {
    pub(crate) fn until(end: Duration) -> Self {
        ENDS.with_borrow_mut(|ends| ends.push(end));
        Self(end)
    }
}

impl Drop for TimedWait {
    fn drop(&mut self) {
        ENDS.with_borrow_mut(|ends| {
            if let Some(at) = ends.iter().position(|end| *end == self.0) {
                ends.swap_remove(at);
            }
        });
    }
}

pub(crate) fn is_over() -> bool {
    IS_OVER.get()
}

pub(crate) fn end_thread() -> ! {
    resume_unwind(Box::new(Over))
}

/// The body of a thread.
pub(crate) fn run_thread(body: impl FnOnce()) {
    let result = catch_unwind(AssertUnwindSafe(body));
    THREADS.set(THREADS.get() - 1);
    if let Err(panic) = result
        && !panic.is::<Over>()
    {
        resume_unwind(panic);
    }
}

pub(crate) fn begin_thread() {
    THREADS.set(THREADS.get() + 1);
}
