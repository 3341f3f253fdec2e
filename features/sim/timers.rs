//! Timers on the simulated clock, and the future that waits for one.

use super::SimClock;
use crate::clock::Clock;
use crate::time::Instant;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// How far time has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the next timer; its task must be woken.
    Timer,
    /// Not at all: the next timer is beyond the end.
    Beyond,
    /// Not at all: there is no timer.
    NoTimer,
}

#[derive(Default)]
pub(super) struct Timers {
    /// The earliest last: there are few, and most are added and removed at the end.
    list: Vec<Timer>,
    last_id: u64,
    last_fired: u64,
    /// The waker of a timer that has fired: its task usually sets a timer again soon, and cloning a waker costs more.
    spare: Option<Waker>,
}

struct Timer {
    at: u64,
    id: u64,
    waker: Waker,
}

impl Timers {
    /// When the next timer is due, in microseconds.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        self.list.last().map(|timer| timer.at)
    }

    /// Removes the next timer, if it is due at `end`. `spare` passes in the last timer's waker for reuse, and returns
    /// one for the caller to drop.
    #[inline]
    pub(super) fn pop(&mut self, end: u64, spare: &mut Option<Waker>) -> Option<(u64, Waker)> {
        core::mem::swap(&mut self.spare, spare);
        let due = self.list.pop_if(|timer| timer.at <= end)?;
        self.last_fired = due.id;
        Some((due.at, due.waker))
    }

    /// The id of the timer that fired last, which is no longer in the list.
    #[inline]
    pub(super) const fn last_fired(&self) -> u64 {
        self.last_fired
    }

    /// Adds a timer with the spare waker, if that wakes the same task, and returns its id.
    #[inline]
    fn add_with_spare(&mut self, at: u64, waker: &Waker) -> Option<u64> {
        let spare = self.spare.take_if(|spare| spare.will_wake(waker))?;
        Some(self.add(at, spare))
    }

    /// The position of this timer, or the one at which to insert it.
    fn find(&self, at: u64, id: u64) -> Result<usize, usize> {
        self.list
            .binary_search_by(|timer| (at, id).cmp(&(timer.at, timer.id)))
    }

    /// Adds a timer and returns its id.
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

    /// Replaces the waker of a timer, unless that has fired. Returns the unneeded waker, for the caller to drop.
    fn replace_waker(&mut self, at: u64, id: u64, mut waker: Waker) -> Waker {
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

/// A set of timers with its clock.
pub(super) trait TimerSource: Unpin {
    fn clock(&self) -> &SimClock;

    /// Runs `work` on the timers. It must not clone or drop wakers: that may run foreign code.
    fn with_timers<R>(&self, work: impl FnOnce(&mut Timers) -> R) -> R;

    /// [`Timers::last_fired`].
    fn last_fired(&self) -> u64;
}

/// Waits until an instant. Dropping it cancels the timer.
pub(super) struct Sleep<S: TimerSource> {
    source: S,
    at: Instant,
    id: Option<u64>,
}

impl<S: TimerSource> Future for Sleep<S> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.source.clock().now() >= self.at {
            return Poll::Ready(());
        }
        self.set_timer(context.waker());
        // Another thread may have moved the clock past `at` before the timer was set.
        match self.source.clock().now() >= self.at {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<S: TimerSource> Sleep<S> {
    #[inline]
    pub(super) const fn on(source: S, at: Instant) -> Self {
        Self {
            source,
            at,
            id: None,
        }
    }

    fn set_timer(&mut self, waker: &Waker) {
        let at = self.at.as_micros();
        if let Some(id) = self.id {
            let waker = waker.clone();
            let old = self
                .source
                .with_timers(|timers| timers.replace_waker(at, id, waker));
            return drop(old);
        }
        let id = self
            .source
            .with_timers(|timers| timers.add_with_spare(at, waker));
        self.id = id.or_else(|| {
            let waker = waker.clone();
            Some(self.source.with_timers(|timers| timers.add(at, waker)))
        });
    }

    #[cold]
    fn cancel(&self, id: u64) {
        let at = self.at.as_micros();
        let waker = self.source.with_timers(|timers| timers.cancel(at, id));
        drop(waker);
    }
}

impl<S: TimerSource> Drop for Sleep<S> {
    #[inline]
    fn drop(&mut self) {
        if let Some(id) = self.id
            && id != self.source.last_fired()
        {
            self.cancel(id);
        }
    }
}
