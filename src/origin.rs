//! Whether what happens on this thread is the session's own doing, which must not become telemetry of its own.

use core::cell::Cell;

std::thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
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
