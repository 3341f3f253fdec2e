//! Panics in user code: caught with `std`, so that they affect only the call that panicked, and marked, so that the
//! panic hook can tell them from the application's.

use core::task::Waker;

#[cfg(feature = "std")]
pub(crate) use with_std::{catch, contain, is_ours};

#[cfg(feature = "std")]
mod with_std {
    use core::cell::Cell;
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    std::thread_local! {
        /// Whether a panic on this thread is caught by this crate, which then accounts for it.
        static IS_OURS: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `work`. Returns `None` if it panicked; the caller must not use any state it may have left half updated, and
    /// accounts for the panic itself: to the panic hook it [is ours](is_ours).
    #[inline]
    pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
        marked(true, work)
    }

    /// [`catch`] for work that is the application's: a panic remains one for the panic hook to log.
    pub(crate) fn contain<R>(work: impl FnOnce() -> R) -> Option<R> {
        marked(false, work)
    }

    #[inline]
    fn marked<R>(is_ours: bool, work: impl FnOnce() -> R) -> Option<R> {
        let before = IS_OURS.replace(is_ours);
        let result = catch_unwind(AssertUnwindSafe(work));
        IS_OURS.set(before);
        result.ok()
    }

    /// Whether this crate catches a panic on this thread, and accounts for it.
    pub(crate) fn is_ours() -> bool {
        IS_OURS.get()
    }
}

/// Whether this thread is panicking, perhaps inside a panic hook.
pub(crate) fn is_panicking() -> bool {
    #[cfg(feature = "std")]
    return std::thread::panicking();
    #[cfg(not(feature = "std"))]
    false
}

/// Runs `work`. Without `std`, panics cannot be caught.
#[cfg(not(feature = "std"))]
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    Some(work())
}

/// Runs `work`. Without `std`, panics cannot be caught.
#[cfg(all(not(feature = "std"), has_arc))]
pub(crate) fn contain<R>(work: impl FnOnce() -> R) -> Option<R> {
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

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_ours_inside_a_catch_except_in_the_applications_own_work() {
        assert!(!is_ours());
        let seen = catch(|| {
            let inside = contain(|| (is_ours(), catch(is_ours)));
            (inside, is_ours())
        });
        assert_eq!(seen, Some((Some((false, Some(true))), true)));
        assert!(!is_ours());
    }

    #[test]
    fn the_mark_ends_with_a_panic() {
        let caught = catch(|| {
            let contained: Option<()> = contain(|| panic!("the application's"));
            assert!(contained.is_none() && is_ours());
            panic!("ours");
        });
        assert!(caught.is_none() && !is_ours());
    }
}
