//! Wake-ups: the driver's and the waiters' wakers, how they enter the engine and how they leave it.

use crate::sys::panics;
use core::task::Waker;

#[cfg(feature = "alloc")]
type List = alloc::vec::Vec<(WaiterId, Waker)>;

#[cfg(not(feature = "alloc"))]
type List = heapless::Vec<(WaiterId, Waker), 4>;

/// Names one wait. None has the default's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaiterId(u32);

/// Wakers that a call took out of the engine. Waking and dropping them runs an executor's code, so both happen outside
/// the session's lock; [`WithWakers::wake`] is the one place that does.
#[derive(Default)]
#[must_use = "wakers that are dropped wake no one"]
pub(crate) struct Wakers {
    /// The driver's, or that of a waiter for which there was no room.
    one: Option<Waker>,
    waiters: List,
    /// Replaced or withdrawn: dropped without being woken.
    retired: Option<Waker>,
}

impl Wakers {
    pub(super) fn one(waker: Option<Waker>) -> Self {
        Self {
            one: waker,
            ..Self::default()
        }
    }

    pub(crate) fn retired(waker: Option<Waker>) -> Self {
        Self {
            retired: waker,
            ..Self::default()
        }
    }

    /// These, and the driver's.
    pub(super) fn and_driver(mut self, driver: &mut DriverSlot) -> Self {
        // A waker leaves its slot once: the one that is here already must not get lost.
        self.one = self.one.take().or_else(|| driver.take_waker());
        self
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.one.is_none() && self.waiters.is_empty() && self.retired.is_none()
    }

    #[cfg(test)]
    pub(crate) const fn has_retired(&self) -> bool {
        self.retired.is_some()
    }

    #[cfg(test)]
    pub(crate) const fn has_driver(&self) -> bool {
        self.one.is_some()
    }
}

/// What a call of the engine returns: wakers, or a value and wakers.
pub(crate) trait WithWakers {
    type Value;

    /// Wakes them. Must be called outside the session's lock.
    fn wake(self) -> Self::Value;
}

impl WithWakers for Wakers {
    type Value = ();

    #[inline]
    fn wake(self) {
        self.one.into_iter().for_each(panics::wake);
        for (_, waker) in self.waiters {
            panics::wake(waker);
        }
        drop(self.retired);
    }
}

impl<R> WithWakers for (R, Wakers) {
    type Value = R;

    #[inline]
    fn wake(self) -> R {
        self.1.wake();
        self.0
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
    fn take_waker(&mut self) -> Option<Waker> {
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
            return (false, Wakers::retired(Some(waker)));
        }
        self.is_parked = true;
        (true, Wakers::retired(self.waker.replace(waker)))
    }

    pub(super) fn detach(&mut self, mut waiters: Wakers) -> Wakers {
        self.is_attached = false;
        waiters.one = self.waker.take();
        waiters
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
            waiters: core::mem::take(&mut self.list),
            ..Wakers::default()
        }
    }

    /// Without room for it the waker is woken, so that its task polls again.
    pub(super) fn register(&mut self, waiter: WaiterId, waker: Waker) -> Wakers {
        if let Some((_, known)) = self.list.iter_mut().find(|(id, _)| *id == waiter) {
            return Wakers::retired(Some(core::mem::replace(known, waker)));
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
        Wakers::retired(at.map(|at| self.list.swap_remove(at).1))
    }
}
