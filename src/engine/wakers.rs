//! Wake-ups: the driver's and the waiters' wakers, how they enter the engine and how they leave it.

use super::Engine;
use crate::sys::panics;
use core::task::Waker;

#[cfg(feature = "alloc")]
pub(crate) type Waiting = alloc::vec::Vec<(WaiterId, Waker)>;

#[cfg(not(feature = "alloc"))]
pub(crate) type Waiting = heapless::Vec<(WaiterId, Waker), 4>;

/// Names one wait. None has the default's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaiterId(u32);

/// Whom a call of the engine wakes. Waking and dropping wakers runs an executor's code, so both happen outside the
/// session's lock: `Shared::update` is the one place that does.
#[derive(Default)]
#[must_use = "wakers that are dropped wake no one"]
pub(crate) enum Wakers {
    #[default]
    None,
    /// The driver, or a waiter for which there was no room.
    One(Waker),
    /// All who wait, whose wakers the engine still [has](Engine::take_waiting), and the driver.
    All(Option<Waker>),
    /// No one: the waker was replaced or withdrawn, and only leaves the lock.
    Retired(Waker),
}

impl Wakers {
    fn one(waker: Option<Waker>) -> Self {
        waker.map_or(Self::None, Self::One)
    }

    /// These, and the driver.
    pub(super) fn and_driver(self, driver: &mut DriverSlot) -> Self {
        match self {
            Self::All(None) => Self::All(driver.take_waker()),
            // A waker leaves its slot once: the one that is here already must not get lost.
            Self::One(_) | Self::All(_) => self,
            Self::None | Self::Retired(_) => driver.wake(),
        }
    }

    /// Wakes them; `waiting` takes the wakers of all who wait out of the engine.
    pub(crate) fn wake(self, waiting: impl FnOnce() -> Waiting) {
        match self {
            Self::None => {}
            Self::Retired(waker) => drop(waker),
            Self::One(waker) => panics::wake(waker),
            Self::All(driver) => {
                if let Some(driver) = driver {
                    panics::wake(driver);
                }
                for (_, waker) in waiting() {
                    panics::wake(waker);
                }
            }
        }
    }

    pub(crate) const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// What a call of the engine returns: wakers, or a value and wakers.
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
    /// The wakers of all who wait, for [`Wakers::All`].
    pub(crate) fn take_waiting(&mut self) -> Waiting {
        self.waiters.take()
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
    pub(super) fn begin_poll(&mut self) {
        self.is_dirty = false;
        self.is_parked = false;
    }

    /// Remembers that something has happened. The first to say so since the driver went to sleep gets its waker.
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.is_dirty = true;
        self.waker.take_if(|_| self.is_parked)
    }

    pub(super) fn wake(&mut self) -> Wakers {
        Wakers::one(self.take_waker())
    }

    /// Whether it sleeps now: not if something has happened since its last poll.
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

    /// Without room for it the waker is woken, so that its task polls again.
    pub(super) fn register(&mut self, waiter: WaiterId, waker: Waker) -> Wakers {
        if let Some((_, known)) = self.list.iter_mut().find(|(id, _)| *id == waiter) {
            return Wakers::Retired(core::mem::replace(known, waker));
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
