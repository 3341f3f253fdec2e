//! Blocking a thread on a future.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Lets one thread sleep until its waker is woken.
pub(crate) struct Parker {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Parker {
    /// A parker for the calling thread, and its waker.
    pub(crate) fn current() -> (Arc<Self>, Waker) {
        let parker = Arc::new(Self {
            thread: thread::current(),
            is_woken: AtomicBool::new(false),
        });
        (Arc::clone(&parker), Waker::from(parker))
    }

    /// Sleeps until the waker is woken or the time has come.
    pub(crate) fn park(&self, until: Option<Instant>) {
        while !self.is_woken.swap(false, Ordering::Acquire) {
            match until {
                None => thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    thread::park_timeout(left);
                }
            }
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// Runs a future to its end on the calling thread.
#[allow(dead_code, reason = "an adapter may need it")]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (parker, waker) = Parker::current();
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => parker.park(None),
        }
    }
}
