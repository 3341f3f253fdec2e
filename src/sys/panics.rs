//! Panics in code that is not ours: caught with `std`, so that they harm what they belong to and nothing else.

/// Runs `work`. `None` when it has panicked. What it has left half done must not be looked at again.
#[cfg(feature = "std")]
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(work)).ok()
}

/// Runs `work`. Without `std` nothing can be caught.
#[cfg(not(feature = "std"))]
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    Some(work())
}
