//! One lock: a mutex with `std`, a critical section without.
//!
//! Held for a few copies at most: never across an await, an encode or a callback.

#[cfg(feature = "std")]
use core::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "std")]
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

#[cfg(not(feature = "std"))]
use core::cell::RefCell;

#[cfg(feature = "std")]
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    /// Somebody found it held.
    is_wanted: AtomicBool,
}

#[cfg(not(feature = "std"))]
pub(crate) struct Lock<T>(critical_section::Mutex<RefCell<T>>);

/// How much is copied under one lock, so that a large batch never delays a `log` or an interrupt.
pub(crate) const COPY_PIECE: usize = if cfg!(feature = "std") { 2048 } else { 256 };

#[cfg(feature = "std")]
impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Nothing that runs under the lock calls user code, so a poisoned one holds a sound value.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.take().unwrap_or_else(|| self.wait());
        work(&mut value)
    }

    /// `None` when the lock is held.
    pub(crate) fn try_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.take().map(|mut value| work(&mut value))
    }

    /// Between two of many short turns with the lock: leaves it free for a moment, if somebody wants it.
    ///
    /// A mutex that is taken again at once looks as if it were held all the time. Whoever waits for it spins for some
    /// two microseconds, then has himself put to sleep, and is woken some fifty microseconds later.
    pub(crate) fn pause(&self) {
        if self.is_wanted.load(Ordering::Relaxed) {
            self.is_wanted.store(false, Ordering::Relaxed);
            (0..8).for_each(|_| core::hint::spin_loop());
        }
    }

    #[inline]
    fn take(&self) -> Option<MutexGuard<'_, T>> {
        match self.value.try_lock() {
            Ok(value) => Some(value),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        self.is_wanted.store(true, Ordering::Relaxed);
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(feature = "std"))]
impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(critical_section::Mutex::new(RefCell::new(value)))
    }

    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        critical_section::with(|section| work(&mut self.0.borrow_ref_mut(section)))
    }

    /// A critical section ends where it ends: whatever waits for it runs before the next one.
    pub(crate) fn pause(&self) {}
}
