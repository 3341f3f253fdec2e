//! News of a queue, for the thread that waits for it, or for the task that does so in a simulation.

#[cfg(feature = "sim")]
use core::task::Waker;
use core::time::Duration;
#[cfg(feature = "sim")]
use std::sync::Mutex;
use std::sync::{Condvar, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Changed {
    thread: Condvar,
    #[cfg(feature = "sim")]
    task: Mutex<Option<Waker>>,
}

impl Changed {
    pub(super) fn notify(&self) {
        self.thread.notify_one();
        #[cfg(feature = "sim")]
        self.wake();
    }

    /// Waits on this thread for the next call of [`notify`](Self::notify).
    pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let waited = self.thread.wait(guard);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for some time at most.
    pub(super) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        let waited = self.thread.wait_timeout(guard, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Has this task woken by the next call of [`notify`](Self::notify).
    #[cfg(feature = "sim")]
    pub(super) fn register(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let old = task.replace(waker.clone());
        drop(task);
        drop(old);
    }

    #[cfg(feature = "sim")]
    fn wake(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = task.take();
        drop(task);
        if let Some(waker) = waker {
            crate::sys::panics::wake(waker);
        }
    }
}
