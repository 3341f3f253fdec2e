//! Whether what happens on this thread is the session's own doing, which must not become telemetry of its own.

use core::cell::Cell;
use core::marker::PhantomData;

std::thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// From here until it is dropped this thread polls a driver.
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

/// Whether this thread is polling a driver, its transport included.
pub(crate) fn is_driver() -> bool {
    DEPTH.get() > 0
}

/// From here until it is dropped, what this thread does is done for a session, though not by its driver: a request on a
/// thread of an adapter's own, an observer that is told something, an event that is being made.
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

/// Whether this thread polls a driver or does other work for a session.
#[allow(dead_code, reason = "for adapters that listen to everything")]
pub(crate) fn is_own() -> bool {
    is_driver() || OWN.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_over_when_the_outermost_is_and_on_this_thread_alone() {
        assert!(!is_own());
        let outer = OwnWork::enter();
        drop(OwnWork::enter());
        assert!(is_own() && !is_driver());
        assert!(!std::thread::spawn(is_own).join().unwrap());
        drop(outer);
        assert!(!is_own());
    }
}
