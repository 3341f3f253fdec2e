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

/// Wakes a task. A waker that panics must not keep others from being woken, nor affect the caller of `log`.
pub(crate) fn wake(waker: Waker) {
    let _ = catch(|| waker.wake());
}

/// [`wake`], for a waker that its caller drops.
pub(crate) fn wake_by_ref(waker: &Waker) {
    let _ = catch(|| waker.wake_by_ref());
}
