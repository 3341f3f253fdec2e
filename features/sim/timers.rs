//! Timers, and the future that waits for one.

use super::SimClock;
use crate::clock::Clock;
use crate::time::Instant;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// Where time has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the next timer. Whoever set it is to be woken.
    Timer,
    /// Nowhere: the next timer lies beyond the end.
    Beyond,
    /// Nowhere: there is no timer.
    NoTimer,
}

#[derive(Default)]
pub(super) struct Timers {
    /// The next one last: there are few, and most come and go at the end.
    list: Vec<Timer>,
    last_id: u64,
    last_off: u64,
    /// The waker of a timer that has gone off: most set their next one soon, and to clone one costs more.
    spare: Option<Waker>,
}

struct Timer {
    at: u64,
    id: u64,
    waker: Waker,
}

impl Timers {
    /// When the next one is due, in microseconds.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        self.list.last().map(|timer| timer.at)
    }

    /// Takes the next one out, if it is due at `end`. In `spare` the waker of the last one comes in, if it is not needed
    /// any more, and one that is to be dropped out.
    #[inline]
    pub(super) fn pop(&mut self, end: u64, spare: &mut Option<Waker>) -> Option<(u64, Waker)> {
        core::mem::swap(&mut self.spare, spare);
        let due = self.list.pop_if(|timer| timer.at <= end)?;
        self.last_off = due.id;
        Some((due.at, due.waker))
    }

    /// The id of the one that has gone off last, which is not in the list any more.
    #[inline]
    pub(super) const fn last_off(&self) -> u64 {
        self.last_off
    }

    /// A new timer with the spare waker, if that would wake the same task; and its id.
    #[inline]
    fn add_spare(&mut self, at: u64, waker: &Waker) -> Option<u64> {
        let spare = self.spare.take_if(|spare| spare.will_wake(waker))?;
        Some(self.add(at, spare))
    }

    /// Where this timer is, or would be.
    fn find(&self, at: u64, id: u64) -> Result<usize, usize> {
        self.list
            .binary_search_by(|timer| (at, id).cmp(&(timer.at, timer.id)))
    }

    /// A new timer, and its id.
    #[inline]
    fn add(&mut self, at: u64, waker: Waker) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let timer = Timer { at, id, waker };
        match self.list.last() {
            Some(next) if next.at <= at => self.insert(timer),
            _ => self.list.push(timer),
        }
        id
    }

    #[cold]
    fn insert(&mut self, timer: Timer) {
        let index = self.find(timer.at, timer.id).unwrap_or_else(|at| at);
        self.list.insert(index, timer);
    }

    /// Another waker for a timer, unless that has gone off. The one that is not needed comes back, to be dropped.
    fn change(&mut self, at: u64, id: u64, mut waker: Waker) -> Waker {
        if let Ok(index) = self.find(at, id) {
            core::mem::swap(&mut self.list[index].waker, &mut waker);
        }
        waker
    }

    fn cancel(&mut self, at: u64, id: u64) -> Option<Waker> {
        let index = self.find(at, id).ok()?;
        Some(self.list.remove(index).waker)
    }
}

/// What has timers, and a clock that they go by.
pub(super) trait OnClock: Unpin {
    fn clock(&self) -> &SimClock;

    /// Runs `work` on the timers. No waker may be cloned or dropped meanwhile: that is code of others.
    fn with_timers<R>(&self, work: impl FnOnce(&mut Timers) -> R) -> R;

    /// [`Timers::last_off`].
    fn last_off(&self) -> u64;
}

/// Waits until its time has come. Dropping it cancels the timer.
pub(super) struct Sleep<C: OnClock> {
    on: C,
    at: Instant,
    id: Option<u64>,
}

impl<C: OnClock> Future for Sleep<C> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.on.clock().now() >= self.at {
            return Poll::Ready(());
        }
        self.set_timer(context.waker());
        // Another thread may have moved the clock past it meanwhile, and found no timer.
        match self.on.clock().now() >= self.at {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<C: OnClock> Sleep<C> {
    #[inline]
    pub(super) const fn on(on: C, at: Instant) -> Self {
        Self { on, at, id: None }
    }

    fn set_timer(&mut self, waker: &Waker) {
        let at = self.at.as_micros();
        if let Some(id) = self.id {
            let waker = waker.clone();
            let old = self.on.with_timers(|timers| timers.change(at, id, waker));
            return drop(old);
        }
        let id = self.on.with_timers(|timers| timers.add_spare(at, waker));
        self.id = id.or_else(|| {
            let waker = waker.clone();
            Some(self.on.with_timers(|timers| timers.add(at, waker)))
        });
    }

    #[cold]
    fn cancel(&self, id: u64) {
        let at = self.at.as_micros();
        let waker = self.on.with_timers(|timers| timers.cancel(at, id));
        drop(waker);
    }
}

impl<C: OnClock> Drop for Sleep<C> {
    #[inline]
    fn drop(&mut self) {
        if let Some(id) = self.id
            && id != self.on.last_off()
        {
            self.cancel(id);
        }
    }
}
