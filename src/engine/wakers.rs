//! Wake-ups: how the wakers of the driver and of waiters enter and leave the engine.

use super::Engine;
use crate::sys::panics;
use core::task::Waker;

#[cfg(feature = "alloc")]
pub(crate) type Waiting = alloc::vec::Vec<(WaiterId, Waker)>;

#[cfg(not(feature = "alloc"))]
pub(crate) type Waiting = heapless::Vec<(WaiterId, Waker), 4>;

/// Identifies one wait. No wait has the default id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaiterId(u32);

/// The wakers that an engine call releases. Waking or dropping one runs an executor's code, so both happen outside the
/// session's lock, in one place: `Shared::update`.
#[derive(Default)]
#[must_use = "wakers that are dropped wake no one"]
pub(crate) enum Wakers {
    #[default]
    None,
    /// The driver's, or a waiter's for which there was no room.
    One(Waker),
    /// Those of all waiters, which the engine still [holds](Engine::take_waiting), and the driver's.
    All(Option<Waker>),
    /// A waker that was replaced or removed: to be dropped outside the lock, not woken.
    Retired(Waker),
    /// There is no driver to wake, and perhaps something to report.
    Unattended,
}

impl Wakers {
    fn one(waker: Option<Waker>) -> Self {
        waker.map_or(Self::None, Self::One)
    }

    /// Adds the driver's waker.
    pub(super) fn and_driver(self, driver: &mut DriverSlot) -> Self {
        match self {
            Self::All(None) => Self::All(driver.take_waker()),
            // Already taken from its slot, so it must not get lost.
            Self::One(_) | Self::All(_) => self,
            Self::None | Self::Retired(_) | Self::Unattended => driver.wake(),
        }
    }

    /// Wakes them; `waiting` takes the waiters' wakers out of the engine.
    pub(crate) fn wake(self, waiting: impl FnOnce() -> Waiting) {
        match self {
            Self::None | Self::Unattended => {}
            Self::Retired(waker) => drop(waker),
            Self::One(waker) => panics::wake(waker),
            Self::All(driver) => {
                if let Some(driver) = driver {
                    panics::wake(driver);
                }
                // By reference: the iterator that owns them would bring a check that can panic into `log`.
                for (_, waker) in &waiting() {
                    panics::wake_by_ref(waker);
                }
            }
        }
    }

    pub(crate) const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// The result of an engine call: wakers, or a value and wakers.
pub(crate) trait WithWakers {
    type Value;

    fn split(self) -> (Self::Value, Wakers);
}

impl WithWakers for Wakers {
    type Value = ();

    #[inline]
    fn split(self) -> ((), Wakers) {
        ((), self)
    }
}

impl<R> WithWakers for (R, Wakers) {
    type Value = R;

    #[inline]
    fn split(self) -> (R, Wakers) {
        self
    }
}

impl Engine {
    /// Takes the wakers of all waiters, for [`Wakers::All`].
    pub(crate) fn take_waiting(&mut self) -> Waiting {
        self.waiters.take()
    }
}

/// Whether there is a driver, whether it sleeps, and its waker.
#[derive(Default)]
pub(super) struct DriverSlot {
    pub(super) is_attached: bool,
    /// Something has happened since its last poll.
    is_dirty: bool,
    /// It sleeps until it is woken.
    is_parked: bool,
    waker: Option<Waker>,
    /// An event was accepted while there was no driver.
    is_missed: bool,
}

impl DriverSlot {
    /// Attaches a driver.
    pub(super) fn attach(&mut self) {
        self.is_attached = true;
        self.is_missed = false;
    }

    /// Records that an event was accepted. Returns whether it is the first that finds no driver.
    #[inline]
    pub(super) fn is_missed_first(&mut self) -> bool {
        !self.is_attached && !core::mem::replace(&mut self.is_missed, true)
    }

    /// Clears the flags: a poll takes into account everything that has happened so far.
    pub(super) fn begin_poll(&mut self) {
        self.is_dirty = false;
        self.is_parked = false;
    }

    /// Records that something has happened. Returns the waker if the driver sleeps.
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.is_dirty = true;
        self.waker.take_if(|_| self.is_parked)
    }

    pub(super) fn wake(&mut self) -> Wakers {
        if !self.is_attached {
            return Wakers::Unattended;
        }
        Wakers::one(self.take_waker())
    }

    /// Puts the driver to sleep and returns true, unless something has happened since its last poll.
    pub(super) fn park(&mut self, waker: Waker) -> (bool, Wakers) {
        if self.is_dirty {
            self.is_dirty = false;
            return (false, Wakers::Retired(waker));
        }
        self.is_parked = true;
        let replaced = self.waker.replace(waker);
        (true, replaced.map_or(Wakers::None, Wakers::Retired))
    }

    pub(super) fn detach(&mut self) -> Option<Waker> {
        self.is_attached = false;
        self.waker.take()
    }
}

#[derive(Default)]
pub(super) struct Waiters {
    list: Waiting,
    last_id: u32,
}

impl Waiters {
    pub(super) fn new_id(&mut self) -> WaiterId {
        self.last_id = self.last_id.wrapping_add(1);
        WaiterId(self.last_id)
    }

    pub(super) fn take(&mut self) -> Waiting {
        core::mem::take(&mut self.list)
    }

    /// Registers or replaces a waiter's waker. Without room for it, it is returned to be woken, so that its task polls
    /// again.
    pub(super) fn register(&mut self, waiter: WaiterId, waker: Waker) -> Wakers {
        if let Some((_, slot)) = self.list.iter_mut().find(|(id, _)| *id == waiter) {
            return Wakers::Retired(core::mem::replace(slot, waker));
        }
        #[cfg(feature = "alloc")]
        let overflow = match self.list.try_reserve(1) {
            Ok(()) => {
                self.list.push((waiter, waker));
                None
            }
            Err(_) => Some(waker),
        };
        #[cfg(not(feature = "alloc"))]
        let overflow = self
            .list
            .push((waiter, waker))
            .err()
            .map(|(_, waker)| waker);
        Wakers::one(overflow)
    }

    pub(super) fn unregister(&mut self, waiter: WaiterId) -> Wakers {
        let at = self.list.iter().position(|(id, _)| *id == waiter);
        at.map_or(Wakers::None, |at| {
            Wakers::Retired(self.list.swap_remove(at).1)
        })
    }
}
