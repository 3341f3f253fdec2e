//! Where the [`Thread`](super::Thread) runtime runs a task: on threads that take turns.
//!
//! A blocking call of the task's ([`call_here`]) is made by the very thread that polls it, once that poll is over;
//! another one stands by, to poll should anything happen meanwhile. So a call that ends in time costs no change of
//! threads, which would cost more than all the rest of a small request, and one that hangs holds nothing up.

use crate::sys::fork::Fork;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::RefCell;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io;
use std::panic::catch_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Starts a thread that runs `task` to its end.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    Relay::new(task).add_thread()
}

/// Something that blocks.
#[cfg_attr(not(feature = "ureq"), allow(dead_code))]
pub(in super::super) type Call = Box<dyn FnOnce() + Send>;

/// Has `call` made by the calling thread, once it has polled the task to which `waker` belongs.
///
/// The call comes back where that cannot be: on any other thread, with any other waker (whoever polls with one of his
/// own may be waiting already, inside the poll), and where there is no thread to stand by.
#[cfg_attr(not(feature = "ureq"), allow(dead_code))]
pub(in super::super) fn call_here(waker: &Waker, call: Call) -> Result<(), Call> {
    HERE.with_borrow_mut(|here| match here {
        Some(here)
            if here.call.is_none() && here.waker.will_wake(waker) && here.relay.has_standby() =>
        {
            here.call = Some(call);
            Ok(())
        }
        _ => Err(call),
    })
}

/// The last that a call does: wakes its task, to go on where the call was made.
///
/// Any other wake-up from inside a call is one for the thread that stands by.
#[cfg_attr(not(feature = "ureq"), allow(dead_code))]
pub(in super::super) fn end_call(wake: impl FnOnce()) {
    let set = |is_ending| {
        HERE.with_borrow_mut(|here| {
            if let Some(here) = here {
                here.is_ending = is_ending;
            }
        });
    };
    set(true);
    wake();
    set(false);
}

std::thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// What a thread of a relay's knows.
struct Here {
    relay: Arc<Relay>,
    waker: Waker,
    /// To be made after this poll.
    call: Option<Call>,
    /// The call is over but for its wake-up.
    is_ending: bool,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Relay {
    /// The process whose threads these are.
    fork: Fork,
    /// For the one thread whose turn it is.
    task: Mutex<Option<Task>>,
    state: Mutex<State>,
    turn: Condvar,
}

struct State {
    woken: Woken,
    /// It is some thread's turn; it will look at `woken` when that is over.
    is_polled: bool,
    is_over: bool,
    /// Threads that neither have their turn nor make a call.
    spare: usize,
}

/// Whether the task is to be polled again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    No,
    /// By the end of a call, on the thread that makes it: the next turn is its own.
    ByCall,
    Yes,
}

impl Relay {
    /// One whose turn may come, and one to stand by while that one makes a call.
    const SPARE: usize = 2;

    fn new(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            fork: Fork::here(),
            task: Mutex::new(Some(Box::pin(task))),
            state: Mutex::new(State {
                woken: Woken::Yes,
                is_polled: false,
                is_over: false,
                spare: 0,
            }),
            turn: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        self.state().spare += 1;
        let relay = Arc::clone(self);
        let started = thread::Builder::new()
            .name("tinkex-telemetry".into())
            .spawn(move || relay.run());
        if started.is_err() {
            self.state().spare -= 1;
        }
        started.map(drop)
    }

    fn has_standby(self: &Arc<Self>) -> bool {
        let has_one = self.state().spare > 0;
        has_one || self.add_thread().is_ok()
    }

    /// What each thread does.
    fn run(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        HERE.set(Some(Here {
            relay: Arc::clone(&self),
            waker: waker.clone(),
            call: None,
            is_ending: false,
        }));
        let mut state = self.state();
        while self.await_turn(state) {
            let poll = self.poll(&waker);
            let call = HERE.with_borrow_mut(|here| here.as_mut()?.call.take());
            match poll {
                Poll::Pending => state = self.end_turn(call),
                Poll::Ready(()) => break,
            }
        }
    }

    /// False when this thread is not needed any more.
    fn await_turn(&self, mut state: MutexGuard<'_, State>) -> bool {
        loop {
            let is_turn = state.woken == Woken::Yes && !state.is_polled && !state.is_over;
            if is_turn || state.is_over || state.spare > Self::SPARE {
                state.spare -= 1;
                if is_turn {
                    state.woken = Woken::No;
                    state.is_polled = true;
                }
                return is_turn;
            }
            state = self
                .turn
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Polls the task. A panic ends it, as it would end a thread that has only this to do.
    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = task.as_mut() else {
            return Poll::Ready(());
        };
        let mut context = Context::from_waker(waker);
        let poll = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(&mut context)));
        // The task itself has forked, and this is the child's only thread: nobody would ever let go of a lock.
        if self.fork.is_forked() {
            return Poll::Ready(());
        }
        if let Ok(Poll::Pending) = poll {
            return Poll::Pending;
        }
        self.state().is_over = true;
        self.turn.notify_all();
        // The lock is free again when the task is dropped, which may do anything.
        let ended = task.take();
        drop(task);
        drop(ended);
        Poll::Ready(())
    }

    /// Lets the others have their turns, and makes the task's call if there is one.
    fn end_turn(&self, call: Option<Call>) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.is_polled = false;
        if let Some(call) = call {
            let is_woken = state.woken == Woken::Yes;
            drop(state);
            if is_woken {
                self.turn.notify_one();
            }
            // Whoever waits for the call learns of a panic when what it holds is dropped.
            let _ = catch_unwind(AssertUnwindSafe(call));
            state = self.state();
            if state.woken == Woken::ByCall {
                state.woken = Woken::Yes;
            }
        }
        state.spare += 1;
        state
    }

    /// Whether the calling thread is one of this relay's, and ends its call.
    fn is_ending_here(&self) -> bool {
        let is_here = |here: &RefCell<Option<Here>>| {
            here.try_borrow().is_ok_and(|here| {
                here.as_ref()
                    .is_some_and(|here| here.is_ending && core::ptr::eq(&*here.relay, self))
            })
        };
        HERE.try_with(is_here).unwrap_or(false)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.fork.is_forked() {
            return;
        }
        let is_ending = self.is_ending_here();
        let mut state = self.state();
        let is_news = match (state.woken, state.is_polled) {
            (Woken::No, false) if is_ending => {
                state.woken = Woken::ByCall;
                false
            }
            (Woken::ByCall, _) if is_ending => false,
            (before, is_polled) => {
                state.woken = Woken::Yes;
                before != Woken::Yes && !is_polled
            }
        };
        drop(state);
        if is_news {
            self.turn.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::poll_fn;
    use core::time::Duration;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::thread::ThreadId;

    /// Longer than anything here takes.
    const BOUND: Duration = Duration::from_secs(20);

    /// Asks for a call, and is ready when it is polled again.
    async fn ask(call: impl FnOnce() + Send + 'static) {
        let mut call: Option<Call> = Some(Box::new(call));
        poll_fn(|context| match call.take() {
            Some(call) => {
                assert!(call_here(context.waker(), call).is_ok());
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
    }

    async fn waker() -> Waker {
        poll_fn(|context| Poll::Ready(context.waker().clone())).await
    }

    fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
        let (tell, hear) = channel();
        let task = async move {
            let _ = tell.send(task.await);
        };
        spawn(task).expect("a thread");
        hear
    }

    fn here() -> ThreadId {
        thread::current().id()
    }

    #[test]
    fn calls_that_end_in_time_change_no_threads() {
        let result = run(async {
            let mut changes = 0;
            for _ in 0..1_000 {
                let (before, waker) = (here(), waker().await);
                let (tell, hear) = channel();
                ask(move || {
                    let _ = tell.send(here());
                    end_call(|| waker.wake());
                })
                .await;
                assert_eq!(hear.recv(), Ok(before));
                changes += usize::from(here() != before);
            }
            changes
        });
        assert_eq!(result.recv_timeout(BOUND), Ok(0));
    }

    const CALLS: usize = 5;

    /// Makes calls that hang until `end` says otherwise, and gives each up when something else happens.
    async fn hang(end: Receiver<()>) {
        let end = Arc::new(Mutex::new(end));
        for _ in 0..CALLS {
            let (end, waker) = (Arc::clone(&end), waker().await);
            ask(move || {
                // As a deadline would, from elsewhere.
                thread::spawn(move || waker.wake());
                let _ = end.lock().map(|end| end.recv());
            })
            .await;
        }
    }

    /// How often a thread that waits for its turn holds its relay.
    fn holds_per_thread() -> usize {
        let relay = Relay::new(core::future::pending());
        relay.add_thread().expect("a thread");
        while relay.state().woken != Woken::No || relay.state().spare < 1 {
            thread::yield_now();
        }
        Arc::strong_count(&relay) - 1
    }

    #[test]
    fn calls_that_hang_hold_nothing_up_and_their_threads_end_with_them() {
        let (end, hanging) = channel();
        let (tell, hear) = channel();
        let relay = Relay::new(async move {
            hang(hanging).await;
            let _ = tell.send(());
            core::future::pending().await
        });
        relay.add_thread().expect("a thread");
        assert_eq!(hear.recv_timeout(BOUND), Ok(()));
        drop(end);
        let holds = 1 + Relay::SPARE * holds_per_thread();
        while Arc::strong_count(&relay) != holds {
            thread::yield_now();
        }
        assert_eq!(relay.state().spare, Relay::SPARE);
    }

    #[test]
    fn a_call_that_wakes_its_task_and_goes_on_holds_nothing_up() {
        let (end, hanging) = channel::<()>();
        let result = run(async move {
            let waker = waker().await;
            ask(move || {
                waker.wake();
                let _ = hanging.recv();
            })
            .await;
        });
        assert_eq!(result.recv_timeout(BOUND), Ok(()));
        drop(end);
    }

    #[test]
    fn no_thread_outlives_the_task_but_those_whose_calls_hang() {
        let (end, hanging) = channel();
        let relay = Relay::new(hang(hanging));
        relay.add_thread().expect("a thread");
        while Arc::strong_count(&relay) != 1 + CALLS * holds_per_thread() {
            thread::yield_now();
        }
        drop(end);
        while Arc::strong_count(&relay) != 1 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_task_that_panics_is_dropped() {
        let result: Receiver<()> = run(async { panic!("a test's") });
        let result = result.recv_timeout(BOUND);
        assert_eq!(result, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_call_that_panics_does_not_end_its_task() {
        struct WakesWhenDropped(Waker);
        impl Drop for WakesWhenDropped {
            fn drop(&mut self) {
                self.0.wake_by_ref();
            }
        }
        let result = run(async {
            let waking = WakesWhenDropped(waker().await);
            ask(move || {
                let _waking = waking;
                panic!("a test's");
            })
            .await;
        });
        assert_eq!(result.recv_timeout(BOUND), Ok(()));
    }

    #[test]
    fn whoever_waits_inside_the_poll_or_on_another_thread_gets_his_call_back() {
        assert!(call_here(Waker::noop(), Box::new(|| ())).is_err());
        let result = run(async { call_here(Waker::noop(), Box::new(|| ())).is_err() });
        assert_eq!(result.recv_timeout(BOUND), Ok(true));
    }
}
