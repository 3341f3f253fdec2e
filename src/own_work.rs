//! Whether the calling thread is at work for telemetry itself: what it has to say meanwhile must not become telemetry,
//! or each event that is sent would bring about the next one.

#[cfg(feature = "std")]
use core::cell::Cell;
use core::marker::PhantomData;

#[cfg(feature = "std")]
std::thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// As long as this lives, what the thread does is telemetry's own work.
#[must_use = "it ends when this is dropped"]
pub(crate) struct OwnWork(PhantomData<*const ()>);

/// Begins own work, which may be part of other own work.
pub(crate) fn enter() -> OwnWork {
    #[cfg(feature = "std")]
    DEPTH.set(DEPTH.get() + 1);
    OwnWork(PhantomData)
}

impl Drop for OwnWork {
    fn drop(&mut self) {
        #[cfg(feature = "std")]
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether the calling thread is at it.
#[cfg(feature = "std")]
#[allow(dead_code, reason = "for those who listen to everything")]
pub(crate) fn is_here() -> bool {
    DEPTH.get() > 0
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_over_when_the_outermost_is_and_on_this_thread_alone() {
        assert!(!is_here());
        let outer = enter();
        drop(enter());
        assert!(is_here());
        assert!(!std::thread::spawn(is_here).join().unwrap());
        drop(outer);
        assert!(!is_here());
    }
}
