//! Timers for runtimes without their own: one thread per process, started at first use. A forked child starts its own.

use crate::sys::fork::{Fork, PerProcess};
use crate::sys::panics;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Waits until `at`. Dropping the future cancels it.
pub(crate) fn sleep_until(at: Instant) -> Sleep {
    Sleep {
        at,
        registered: None,
    }
}

/// See [`sleep_until`].
pub(crate) struct Sleep {
    at: Instant,
    registered: Option<Registered>,
}

#[derive(Clone, Copy)]
struct Registered {
    timers: &'static Timers,
    id: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        let (at, timers) = (self.at, timers());
        // After a fork, a registration with the parent's timers is void.
        let current = self
            .registered
            .filter(|registered| core::ptr::eq(registered.timers, timers));
        let id = timers.register(at, current.map(|current| current.id), context.waker());
        self.registered = Some(Registered { timers, id });
        if timers.start_thread().is_err() {
            // Without a timer thread the executor polls in a busy loop: never early, and never lost.
            thread::yield_now();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Sleep {
    fn cancel(&mut self) {
        if let Some(Registered { timers, id }) = self.registered.take()
            && !timers.fork.is_forked()
        {
            // A separate statement, so that the waker is dropped outside the lock.
            let waker = timers.lock().wakers.remove(&(self.at, id));
            drop(waker);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The timers of the calling process.
fn timers() -> &'static Timers {
    static TIMERS: PerProcess<Timers> = PerProcess::new();
    TIMERS.get_or_init(Timers::new)
}

struct Timers {
    /// The process that runs the timer thread.
    fork: Fork,
    state: Mutex<State>,
    /// Notified when a timer is due before the thread's next check.
    earlier_timer: Condvar,
}

struct State {
    wakers: BTreeMap<(Instant, u64), Waker>,
    last_id: u64,
    has_thread: bool,
    next_check: NextCheck,
}

/// When the thread will next check the timers, unless notified.
#[derive(Clone, Copy)]
enum NextCheck {
    Now,
    At(Instant),
    Never,
}

impl Timers {
    fn new() -> Self {
        Self {
            fork: Fork::here(),
            state: Mutex::new(State {
                wakers: BTreeMap::new(),
                last_id: 0,
                has_thread: false,
                next_check: NextCheck::Now,
            }),
            earlier_timer: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer's waker, under `id` if it was registered before, and returns its id.
    fn register(&self, at: Instant, id: Option<u64>, waker: &Waker) -> u64 {
        let waker = waker.clone();
        let mut state = self.lock();
        let id = id.unwrap_or_else(|| {
            state.last_id += 1;
            state.last_id
        });
        let old = state.wakers.insert((at, id), waker);
        let is_earlier = match state.next_check {
            NextCheck::Now => false,
            NextCheck::At(planned) => at < planned,
            NextCheck::Never => true,
        };
        if is_earlier {
            state.next_check = NextCheck::Now;
        }
        drop(state);
        drop(old);
        if is_earlier {
            self.earlier_timer.notify_one();
        }
        id
    }

    /// Starts the thread unless it is running.
    fn start_thread(&'static self) -> std::io::Result<()> {
        if core::mem::replace(&mut self.lock().has_thread, true) {
            return Ok(());
        }
        let started = thread::Builder::new()
            .name("tinkex-timer".into())
            .spawn(move || self.run());
        if started.is_err() {
            self.lock().has_thread = false;
        }
        started.map(drop)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let due = state.take_due();
            if due.is_empty() {
                state = self.wait(state);
                continue;
            }
            state.next_check = NextCheck::Now;
            drop(state);
            for waker in due {
                // A panic in one executor's waker must not stop the timers of all.
                panics::wake(waker);
            }
            state = self.lock();
        }
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match state.wakers.keys().next() {
            None => {
                state.next_check = NextCheck::Never;
                self.earlier_timer
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            }
            Some(&(at, _)) => {
                state.next_check = NextCheck::At(at);
                let left = at.saturating_duration_since(Instant::now());
                self.earlier_timer
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        }
    }
}

impl State {
    fn take_due(&mut self) -> Vec<Waker> {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(first) = self.wakers.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::park::Parker;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::pin::pin;
    use core::time::Duration;

    fn block_on(future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        let (parker, waker) = Parker::current();
        let mut context = Context::from_waker(&waker);
        while future.as_mut().poll(&mut context).is_pending() {
            parker.park(None);
        }
    }

    // These tests sleep for real, a few milliseconds each: real time is what they test.
    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(3600);

    struct PanickingWaker;

    impl Wake for PanickingWaker {
        fn wake(self: Arc<Self>) {
            panic!("the test's waker");
        }
    }

    fn poll(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
        Pin::new(sleep).poll(&mut Context::from_waker(waker))
    }

    fn is_registered(sleep: &Sleep) -> bool {
        sleep.registered.is_some_and(|registered| {
            let state = registered.timers.lock();
            state.wakers.contains_key(&(sleep.at, registered.id))
        })
    }

    #[test]
    fn a_sleep_is_never_early_while_a_longer_one_is_pending() {
        let mut long = sleep_until(Instant::now() + LONG);
        assert!(poll(&mut long, Waker::noop()).is_pending());
        for _ in 0..3 {
            let at = Instant::now() + SHORT;
            block_on(sleep_until(at));
            assert!(Instant::now() >= at);
        }
    }

    #[test]
    fn a_sleep_until_the_past_is_ready_without_a_timer() {
        let mut sleep = sleep_until(Instant::now());
        assert!(poll(&mut sleep, Waker::noop()).is_ready());
        assert!(sleep.registered.is_none());
    }

    #[test]
    fn a_dropped_sleep_leaves_no_timer_behind() {
        let mut sleep = sleep_until(Instant::now() + LONG);
        assert!(poll(&mut sleep, Waker::noop()).is_pending());
        assert!(poll(&mut sleep, Waker::noop()).is_pending());
        assert!(is_registered(&sleep));
        let key = (sleep.at, sleep.registered.expect("it is registered").id);
        drop(sleep);
        assert!(!timers().lock().wakers.contains_key(&key));
    }

    #[test]
    fn only_a_timer_before_the_next_check_wakes_the_thread() {
        let timers = Timers::new();
        let planned = Instant::now() + LONG;
        timers.lock().next_check = NextCheck::At(planned);
        // Like a request's deadline, which is cancelled when the response arrives.
        let id = timers.register(planned + SHORT, None, Waker::noop());
        timers.lock().wakers.remove(&(planned + SHORT, id));
        assert!(matches!(timers.lock().next_check, NextCheck::At(_)));
        timers.register(planned - SHORT, None, Waker::noop());
        assert!(matches!(timers.lock().next_check, NextCheck::Now));
    }

    #[test]
    fn a_waker_that_panics_does_not_stop_the_timers() {
        let mut bad = sleep_until(Instant::now() + SHORT);
        assert!(poll(&mut bad, &Waker::from(Arc::new(PanickingWaker))).is_pending());
        block_on(sleep_until(Instant::now() + 2 * SHORT));
        block_on(sleep_until(Instant::now() + SHORT));
        assert!(!is_registered(&bad));
    }
}
