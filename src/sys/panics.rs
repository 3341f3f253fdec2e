//! Panics in user code: caught with `std`, so that they affect only the call that panicked.

use core::task::Waker;

/// Runs `work`. Returns `None` if it panicked; the caller must not use any state it may have left half updated.
#[cfg(feature = "std")]
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(work)).ok()
}

/// Runs `work`. Without `std`, panics cannot be caught.
#[cfg(not(feature = "std"))]
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    Some(work())
}

/// Wakes. A waker that panics must not take others with it, let alone the caller of `log`.
pub(crate) fn wake(waker: Waker) {
    let _ = catch(|| waker.wake());
}
