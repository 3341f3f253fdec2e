//! Timers for whoever has none: one thread for the whole process, started at first use. A fork's child has its own.

use crate::sys::fork::{Fork, PerProcess};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::panic::catch_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Waits until `at`. Dropping the future cancels it.
pub(in super::super) fn sleep_until(at: Instant) -> Sleep {
    Sleep {
        at,
        registered: None,
    }
}

/// See [`sleep_until`].
pub(in super::super) struct Sleep {
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
        // Those of a parent process have been left behind.
        let known = self
            .registered
            .filter(|known| core::ptr::eq(known.timers, timers));
        let id = timers.register(at, known.map(|known| known.id), context.waker());
        self.registered = Some(Registered { timers, id });
        if timers.start().is_err() {
            // Without a thread the executor has to look at the time: busy, but neither early nor never.
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
            // A statement of its own: the waker is dropped when the lock is free again.
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

/// The calling process's own.
fn timers() -> &'static Timers {
    static TIMERS: PerProcess<Timers> = PerProcess::new();
    TIMERS.get_or_init(Timers::new)
}

struct Timers {
    /// The process whose thread it is.
    fork: Fork,
    state: Mutex<State>,
    /// There is a timer before the moment at which the thread wakes.
    sooner: Condvar,
}

struct State {
    wakers: BTreeMap<(Instant, u64), Waker>,
    last_id: u64,
    has_thread: bool,
    wakes: Wakes,
}

/// When the thread will look at the timers again, if nobody notifies it.
#[derive(Clone, Copy)]
enum Wakes {
    AtOnce,
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
                wakes: Wakes::AtOnce,
            }),
            sooner: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the waker under the id of before, or else under a new one.
    fn register(&self, at: Instant, id: Option<u64>, waker: &Waker) -> u64 {
        let waker = waker.clone();
        let mut state = self.lock();
        let id = id.unwrap_or_else(|| {
            state.last_id += 1;
            state.last_id
        });
        let old = state.wakers.insert((at, id), waker);
        let is_sooner = match state.wakes {
            Wakes::AtOnce => false,
            Wakes::At(planned) => at < planned,
            Wakes::Never => true,
        };
        if is_sooner {
            state.wakes = Wakes::AtOnce;
        }
        drop(state);
        drop(old);
        if is_sooner {
            self.sooner.notify_one();
        }
        id
    }

    /// Starts the thread, unless it runs.
    fn start(&'static self) -> std::io::Result<()> {
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
            state.wakes = Wakes::AtOnce;
            drop(state);
            for waker in due {
                // A waker of the executor's that panics must not take everybody's timers with it.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
            state = self.lock();
        }
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match state.wakers.keys().next() {
            None => {
                state.wakes = Wakes::Never;
                self.sooner
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            }
            Some(&(at, _)) => {
                state.wakes = Wakes::At(at);
                let left = at.saturating_duration_since(Instant::now());
                self.sooner
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
    use crate::sys::park::block_on;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::time::Duration;

    // Real time passes here because that is what is under test; a few milliseconds each.
    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(3600);

    struct Never;

    impl Wake for Never {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test's");
        }
    }

    fn poll(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
        Pin::new(sleep).poll(&mut Context::from_waker(waker))
    }

    fn is_registered(sleep: &Sleep) -> bool {
        sleep.registered.is_some_and(|known| {
            let state = known.timers.lock();
            state.wakers.contains_key(&(sleep.at, known.id))
        })
    }

    #[test]
    fn a_sleep_is_never_early_whatever_sleeps_before_it() {
        let mut long = sleep_until(Instant::now() + LONG);
        assert!(poll(&mut long, Waker::noop()).is_pending());
        for _ in 0..3 {
            let at = Instant::now() + SHORT;
            block_on(sleep_until(at));
            assert!(Instant::now() >= at);
        }
    }

    #[test]
    fn a_sleep_until_the_past_is_over_without_a_timer() {
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
    fn only_a_timer_before_the_next_wake_up_wakes_the_thread() {
        let timers = Timers::new();
        let planned = Instant::now() + LONG;
        timers.lock().wakes = Wakes::At(planned);
        // As with the deadline of a request, which is cancelled when the answer is there.
        let id = timers.register(planned + SHORT, None, Waker::noop());
        timers.lock().wakers.remove(&(planned + SHORT, id));
        assert!(matches!(timers.lock().wakes, Wakes::At(_)));
        timers.register(planned - SHORT, None, Waker::noop());
        assert!(matches!(timers.lock().wakes, Wakes::AtOnce));
    }

    #[test]
    fn a_waker_that_panics_does_not_stop_the_timers() {
        let mut bad = sleep_until(Instant::now() + SHORT);
        assert!(poll(&mut bad, &Waker::from(Arc::new(Never))).is_pending());
        block_on(sleep_until(Instant::now() + 2 * SHORT));
        block_on(sleep_until(Instant::now() + SHORT));
        assert!(!is_registered(&bad));
    }
}
