//! Parking a thread until a waker is woken.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use std::thread::{self, Thread};
use std::time::Instant;

/// Parks one thread until its waker is woken.
pub(crate) struct Parker {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Parker {
    /// Creates a parker for the calling thread, and its waker.
    pub(crate) fn current() -> (Arc<Self>, Waker) {
        let parker = Arc::new(Self {
            thread: thread::current(),
            is_woken: AtomicBool::new(false),
        });
        (Arc::clone(&parker), Waker::from(parker))
    }

    /// Parks the calling thread until the waker is woken or `until` is reached.
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
