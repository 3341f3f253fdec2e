//! Who wants to know: the driver, and those who wait. Wakers are noted here and woken by the caller, outside the lock.

use core::task::Waker;

#[cfg(feature = "alloc")]
type List = alloc::vec::Vec<Waker>;

#[cfg(not(feature = "alloc"))]
type List = heapless::Vec<Waker, 4>;

/// Wakers taken out of the engine, to be woken outside its lock.
#[derive(Default)]
#[must_use]
pub(crate) struct Wakers {
    pub(super) driver: Option<Waker>,
    waiters: List,
}

impl Wakers {
    pub(crate) fn wake(self) {
        for waker in self.driver.into_iter().chain(self.waiters) {
            waker.wake();
        }
    }
}

/// The driver's place.
#[derive(Default)]
pub(super) struct DriverSlot {
    pub(super) is_attached: bool,
    /// Something has happened since its last poll.
    pub(super) is_dirty: bool,
    waker: Option<Waker>,
}

impl DriverSlot {
    /// Remembers that something has happened. The first to say so since the driver went to sleep gets its waker.
    pub(super) fn wake(&mut self) -> Option<Waker> {
        self.is_dirty = true;
        self.waker.take()
    }

    pub(super) fn park(&mut self, waker: Waker) -> Result<Option<Waker>, Waker> {
        if self.is_dirty {
            self.is_dirty = false;
            return Err(waker);
        }
        Ok(self.waker.replace(waker))
    }

    pub(super) fn clear(&mut self) -> Option<Waker> {
        self.is_attached = false;
        self.waker.take()
    }
}

/// What became of a waker that was to be noted.
#[must_use]
pub(crate) enum Registered {
    Noted,
    /// Noted before; this one is to be dropped, outside the lock.
    Known(#[expect(dead_code, reason = "carried out of the lock to be dropped")] Waker),
    /// There is no room: it is to be woken, so that its task looks again.
    Full(Waker),
}

impl Registered {
    pub(crate) fn finish(self) {
        if let Self::Full(waker) = self {
            waker.wake();
        }
    }
}

#[derive(Default)]
pub(super) struct Waiters(List);

impl Waiters {
    pub(super) fn take(&mut self) -> Wakers {
        Wakers {
            driver: None,
            waiters: core::mem::take(&mut self.0),
        }
    }

    pub(super) fn register(&mut self, waker: Waker) -> Registered {
        if self.0.iter().any(|known| known.will_wake(&waker)) {
            return Registered::Known(waker);
        }
        #[cfg(feature = "alloc")]
        let full = match self.0.try_reserve(1) {
            Ok(()) => {
                self.0.push(waker);
                None
            }
            Err(_) => Some(waker),
        };
        #[cfg(not(feature = "alloc"))]
        let full = self.0.push(waker).err();
        full.map_or(Registered::Noted, Registered::Full)
    }
}
