//! The part of the standard library that the modelled sources use.
//!
//! Locks and threads are shuttle's, which decides at each of their operations who runs next. A thread that the model
//! no longer needs ends at its next wait.

pub use shuttle::thread_local;
pub use std::{io, panic};

pub mod model;

/// Atomics, at each of which shuttle decides who runs next.
pub mod atomic {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

/// What the standard library adds to keys of cells.
pub trait CellKey<T> {
    /// See the standard library.
    fn with_borrow_mut<R>(&'static self, work: impl FnOnce(&mut T) -> R) -> R;

    /// See the standard library.
    fn set(&'static self, value: T);
}

impl<T: 'static> CellKey<T> for shuttle::thread::LocalKey<core::cell::RefCell<T>> {
    fn with_borrow_mut<R>(&'static self, work: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| work(&mut cell.borrow_mut()))
    }

    fn set(&'static self, value: T) {
        self.with(|cell| drop(cell.replace(value)));
    }
}

/// Locks, whose timed waits end when the model's time has come.
pub mod sync {
    pub use shuttle::sync::{Mutex, MutexGuard};
    pub use std::sync::PoisonError;

    use crate::model;
    use core::time::Duration;
    use std::sync::{Arc, LockResult};

    /// A condition variable that knows the model's time.
    #[derive(Debug)]
    pub struct Condvar(Arc<shuttle::sync::Condvar>);

    /// Whether a timed wait ended by its time. Not modelled: nothing asks.
    #[derive(Clone, Copy, Debug)]
    pub struct WaitTimeoutResult;

    impl Condvar {
        /// See the standard library.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "nothing needs it")]
        pub fn new() -> Self {
            let inner = Arc::new(shuttle::sync::Condvar::new());
            model::register(&inner);
            Self(inner)
        }

        /// See the standard library. Ends the calling thread once the model is over.
        ///
        /// # Errors
        /// As in the standard library.
        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            let guard = if model::is_over() {
                Ok(guard)
            } else {
                self.0.wait(guard)
            };
            if model::is_over() {
                drop(guard);
                model::end_thread();
            }
            guard
        }

        /// See the standard library: ends when it is notified, or when the model's time has come.
        ///
        /// # Errors
        /// As in the standard library.
        pub fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            let _wait = model::TimedWait::until(model::now().saturating_add(timeout));
            let guard = self.wait(guard);
            let guard = guard.unwrap_or_else(PoisonError::into_inner);
            Ok((guard, WaitTimeoutResult))
        }

        /// See the standard library.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// See the standard library.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

/// Threads, which end when the model is over.
pub mod thread {
    pub use shuttle::thread::{JoinHandle, yield_now};

    use crate::model;
    use std::io;

    /// See the standard library.
    #[derive(Debug, Default)]
    pub struct Builder(());

    impl Builder {
        /// See the standard library.
        #[must_use]
        pub fn new() -> Self {
            Self(())
        }

        /// See the standard library.
        #[must_use]
        pub fn name(self, _: String) -> Self {
            self
        }

        /// See the standard library.
        ///
        /// # Errors
        /// Never.
        pub fn spawn<F>(self, body: F) -> io::Result<JoinHandle<()>>
        where
            F: FnOnce() + Send + 'static,
        {
            model::begin_thread();
            Ok(shuttle::thread::spawn(move || model::run_thread(body)))
        }
    }
}

/// The model's time.
pub mod time {
    use crate::model;
    use std::time::Duration;

    /// An instant of the model's time.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(pub(crate) Duration);

    impl Instant {
        /// The time that the model has reached.
        #[must_use]
        pub fn now() -> Self {
            Self(model::now())
        }

        /// See the standard library.
        #[must_use]
        pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl core::ops::Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }

    impl core::ops::Sub<Duration> for Instant {
        type Output = Self;

        fn sub(self, duration: Duration) -> Self {
            Self(self.0 - duration)
        }
    }
}
