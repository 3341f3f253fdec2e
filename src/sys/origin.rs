//! The origin of work on a thread: the crate's own is told apart from the application's, so that it never becomes
//! telemetry itself.

use core::cell::Cell;
use core::marker::PhantomData;

std::thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as polling a driver, until dropped.
pub(crate) struct Driving(());

impl Driving {
    pub(crate) fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether this thread is polling a driver or its transport.
pub(crate) fn is_driver() -> bool {
    DEPTH.get() > 0
}

/// Marks what this thread does as work for a session outside its driver, until dropped: a request on an adapter's
/// thread, an observer's call, the encoding of an event.
pub(crate) struct OwnWork(PhantomData<*const ()>);

impl OwnWork {
    pub(crate) fn enter() -> Self {
        OWN.set(OWN.get() + 1);
        Self(PhantomData)
    }
}

impl Drop for OwnWork {
    fn drop(&mut self) {
        OWN.set(OWN.get() - 1);
    }
}

/// Whether this thread is polling a driver or doing other work for a session.
pub(crate) fn is_own() -> bool {
    is_driver() || OWN.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_ends_with_the_outermost_guard_and_covers_this_thread_only() {
        assert!(!is_own());
        let outer = OwnWork::enter();
        drop(OwnWork::enter());
        assert!(is_own() && !is_driver());
        assert!(!std::thread::spawn(is_own).join().unwrap());
        drop(outer);
        assert!(!is_own());
    }
}
