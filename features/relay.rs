//! Where the [`Thread`](super::Thread) runtime runs a task: on threads that take turns.
//!
//! A blocking call of the task's ([`call_here`]) is made by the very thread that polls it, once that poll is over;
//! another one stands by, to poll should anything happen meanwhile. So a call that ends in time costs no change of
//! threads, which would cost more than all the rest of a small request, and one that hangs holds nothing up.

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
    let relay = Arc::new(Relay {
        task: Mutex::new(Some(Box::pin(task))),
        state: Mutex::new(State {
            is_woken: true,
            is_polled: false,
            is_over: false,
            spare: 0,
        }),
        turn: Condvar::new(),
    });
    relay.add_thread()
}

/// Something that blocks.
#[cfg_attr(not(feature = "ureq"), allow(dead_code))]
pub(super) type Call = Box<dyn FnOnce() + Send>;

/// Has `call` made by the calling thread, once it has polled the task to which `waker` belongs.
///
/// The call comes back where that cannot be: on any other thread, with any other waker (whoever polls with one of his
/// own may be waiting already, inside the poll), and where there is no thread to stand by.
#[cfg_attr(not(feature = "ureq"), allow(dead_code))]
pub(super) fn call_here(waker: &Waker, call: Call) -> Result<(), Call> {
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

std::thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// What a thread of a relay's knows.
struct Here {
    relay: Arc<Relay>,
    waker: Waker,
    /// To be made after this poll.
    call: Option<Call>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Relay {
    /// For the one thread whose turn it is.
    task: Mutex<Option<Task>>,
    state: Mutex<State>,
    turn: Condvar,
}

struct State {
    is_woken: bool,
    /// It is some thread's turn; it will look at `is_woken` when that is over.
    is_polled: bool,
    is_over: bool,
    /// Threads that neither have their turn nor make a call.
    spare: usize,
}

impl Relay {
    /// One whose turn may come, and one to stand by while that one makes a call.
    const SPARE: usize = 2;

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
        }));
        while self.await_turn() {
            let poll = self.poll(&waker);
            let call = HERE.with_borrow_mut(|here| here.as_mut()?.call.take());
            match poll {
                Poll::Pending => self.end_turn(call),
                Poll::Ready(()) => break,
            }
        }
    }

    /// False when this thread is not needed any more.
    fn await_turn(&self) -> bool {
        let mut state = self.state();
        loop {
            let is_turn = state.is_woken && !state.is_polled;
            if state.is_over || is_turn || state.spare > Self::SPARE {
                state.spare -= 1;
                let is_turn = is_turn && !state.is_over;
                if is_turn {
                    state.is_woken = false;
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
    fn end_turn(&self, call: Option<Call>) {
        let mut state = self.state();
        state.is_polled = false;
        if let Some(call) = call {
            let is_woken = state.is_woken;
            drop(state);
            if is_woken {
                self.turn.notify_one();
            }
            // Whoever waits for the call learns of a panic when what it holds is dropped.
            let _ = catch_unwind(AssertUnwindSafe(call));
            state = self.state();
        }
        state.spare += 1;
    }

    /// Whether the calling thread is one of this relay's.
    fn is_here(&self) -> bool {
        let is_here = |here: &RefCell<Option<Here>>| {
            here.try_borrow().is_ok_and(|here| {
                here.as_ref()
                    .is_some_and(|here| core::ptr::eq(&*here.relay, self))
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
        let mut state = self.state();
        let is_news = !core::mem::replace(&mut state.is_woken, true) && !state.is_polled;
        drop(state);
        // A thread that wakes its own task makes a call: it takes the next turn itself when that is over.
        if is_news && !self.is_here() {
            self.turn.notify_one();
        }
    }
}
