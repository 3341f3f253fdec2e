//! Who wants to know: the driver, and those who wait. Wakers are noted here and woken by the caller, outside the lock.

use crate::sys::panics;
use core::task::Waker;

#[cfg(feature = "alloc")]
type List = alloc::vec::Vec<(WaiterId, Waker)>;

#[cfg(not(feature = "alloc"))]
type List = heapless::Vec<(WaiterId, Waker), 4>;

/// Names one wait. None has the default's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaiterId(u32);

/// Wakes. A waker of some executor's that panics must not take others with it, let alone the caller of `log`.
pub(crate) fn wake(waker: Waker) {
    let _ = panics::catch(|| waker.wake());
}

/// Wakers taken out of the engine, to be woken outside its lock.
#[derive(Default)]
#[must_use]
pub(crate) struct Wakers {
    pub(super) driver: Option<Waker>,
    waiters: List,
}

impl Wakers {
    #[inline]
    pub(crate) fn wake(self) {
        if let Some(driver) = self.driver {
            wake(driver);
        }
        for (_, waker) in self.waiters {
            wake(waker);
        }
    }
}

/// The driver's place.
#[derive(Default)]
pub(super) struct DriverSlot {
    pub(super) is_attached: bool,
    /// Something has happened since its last poll.
    is_dirty: bool,
    /// It sleeps, and somebody has to wake it.
    is_parked: bool,
    waker: Option<Waker>,
}

impl DriverSlot {
    /// The driver looks at everything there is.
    pub(super) fn look(&mut self) {
        self.is_dirty = false;
        self.is_parked = false;
    }

    /// Remembers that something has happened. The first to say so since the driver went to sleep gets its waker.
    pub(super) fn wake(&mut self) -> Option<Waker> {
        self.is_dirty = true;
        self.waker.take_if(|_| self.is_parked)
    }

    pub(super) fn park(&mut self, waker: Waker) -> Result<Option<Waker>, Waker> {
        if self.is_dirty {
            self.is_dirty = false;
            return Err(waker);
        }
        self.is_parked = true;
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
    /// Noted before, with this waker, which is to be dropped outside the lock.
    Known(#[expect(dead_code, reason = "carried out of the lock to be dropped")] Waker),
    /// There is no room: it is to be woken, so that its task looks again.
    Full(Waker),
}

impl Registered {
    pub(crate) fn finish(self) {
        if let Self::Full(waker) = self {
            wake(waker);
        }
    }
}

#[derive(Default)]
pub(super) struct Waiters {
    list: List,
    last_id: u32,
}

impl Waiters {
    pub(super) fn new_id(&mut self) -> WaiterId {
        self.last_id = self.last_id.wrapping_add(1);
        WaiterId(self.last_id)
    }

    pub(super) fn take(&mut self) -> Wakers {
        Wakers {
            driver: None,
            waiters: core::mem::take(&mut self.list),
        }
    }

    pub(super) fn register(&mut self, waiter: WaiterId, waker: Waker) -> Registered {
        if let Some((_, known)) = self.list.iter_mut().find(|(id, _)| *id == waiter) {
            return Registered::Known(core::mem::replace(known, waker));
        }
        #[cfg(feature = "alloc")]
        let full = match self.list.try_reserve(1) {
            Ok(()) => {
                self.list.push((waiter, waker));
                None
            }
            Err(_) => Some(waker),
        };
        #[cfg(not(feature = "alloc"))]
        let full = self
            .list
            .push((waiter, waker))
            .err()
            .map(|(_, waker)| waker);
        full.map_or(Registered::Noted, Registered::Full)
    }

    pub(super) fn unregister(&mut self, waiter: WaiterId) -> Option<Waker> {
        let at = self.list.iter().position(|(id, _)| *id == waiter)?;
        Some(self.list.swap_remove(at).1)
    }
}
