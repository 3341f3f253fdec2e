//! One lock: a mutex with `std`, a critical section without.
//!
//! Held for a few copies at most: never across an await, an encode or a callback.

#[cfg(feature = "std")]
use std::sync::{Mutex, PoisonError, TryLockError};

#[cfg(not(feature = "std"))]
use core::cell::RefCell;

#[cfg(feature = "std")]
pub(crate) struct Lock<T>(Mutex<T>);

#[cfg(not(feature = "std"))]
pub(crate) struct Lock<T>(critical_section::Mutex<RefCell<T>>);

/// How much is copied under one lock, so that a large batch never delays a `log` or an interrupt.
pub(crate) const COPY_PIECE: usize = if cfg!(feature = "std") { 2048 } else { 256 };

/// Between two of many short turns with a lock: leaves it free for a moment.
///
/// A mutex that is taken again at once looks as if it were held all the time. Whoever waits for it spins for some two
/// microseconds, then has himself put to sleep, and is woken some fifty microseconds later.
pub(crate) fn pause() {
    if cfg!(feature = "std") {
        (0..8).for_each(|_| core::hint::spin_loop());
    }
}

#[cfg(feature = "std")]
impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Nothing that runs under the lock calls user code, so a poisoned one holds a sound value.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `None` when the lock is held.
    pub(crate) fn try_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        match self.0.try_lock() {
            Ok(mut value) => Some(work(&mut value)),
            Err(TryLockError::Poisoned(error)) => Some(work(&mut error.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
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
}
