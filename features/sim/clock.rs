//! Simulated time: it moves when it is told to.

use crate::{Clock, Instant, Timestamp};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A clock that stands still until it is moved. Clones show the same time.
///
/// ```
/// use core::time::Duration;
/// use tinkex_telemetry::{Clock as _, sim::SimClock};
///
/// let clock = SimClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().saturating_duration_since(before), Duration::from_secs(3600));
/// ```
#[derive(Clone, Default)]
pub struct SimClock(Arc<Time>);

#[derive(Default)]
struct Time {
    /// In microseconds. Written under the timers' lock only.
    now: AtomicU64,
    /// Wall time at the monotonic clock's origin, in microseconds; wraps, as it may lie before 1970.
    wall: AtomicU64,
    timers: Mutex<Timers>,
    /// The id of the timer that has gone off last, which is not in the list any more.
    last_off: AtomicU64,
}

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
struct Timers {
    /// The next one last: there are few, and most come and go at the end.
    list: Vec<Timer>,
    last_id: u64,
    /// The waker of a timer that has gone off: most set their next one soon, and to clone one costs more.
    spare: Option<Waker>,
}

struct Timer {
    at: u64,
    id: u64,
    waker: Waker,
}

impl Timers {
    /// Where this timer is, or would be.
    fn find(&self, at: u64, id: u64) -> Result<usize, usize> {
        self.list
            .binary_search_by(|timer| (at, id).cmp(&(timer.at, timer.id)))
    }

    /// A new timer, and its id.
    fn add(&mut self, at: u64, waker: Waker) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let timer = Timer { at, id, waker };
        match self.list.last() {
            Some(next) if next.at <= at => {
                let index = self.find(at, id).unwrap_or_else(|index| index);
                self.list.insert(index, timer);
            }
            _ => self.list.push(timer),
        }
        id
    }

    /// Another waker for a timer. The old one is to be dropped.
    fn change(&mut self, at: u64, id: u64, waker: Waker) -> Option<Waker> {
        let index = self.find(at, id).ok()?;
        Some(core::mem::replace(&mut self.list[index].waker, waker))
    }

    fn cancel(&mut self, at: u64, id: u64) -> Option<Waker> {
        let index = self.find(at, id).ok()?;
        Some(self.list.remove(index).waker)
    }
}

impl SimClock {
    /// A clock at 2025-01-01T00:00:00Z, an hour after its monotonic origin.
    #[must_use]
    pub fn new() -> Self {
        const START: u64 = 1_735_689_600_000_000;
        Self::starting(
            Instant::from_micros(3_600_000_000),
            Timestamp::from_unix_micros(START),
        )
    }

    /// A clock that shows these times.
    #[must_use]
    pub fn starting(now: Instant, utc: Timestamp) -> Self {
        let clock = Self::default();
        clock.0.now.store(now.as_micros(), Ordering::Relaxed);
        clock.set_utc(utc);
        clock
    }

    /// Lets `duration` pass, timer after timer: each is woken at its own time. Tasks run afterwards, so one that a timer
    /// has woken sees the time at the end; [`SimExecutor::advance`](super::SimExecutor::advance) runs them in between.
    ///
    /// At the clock's end, after 584 542 years, it stays there.
    pub fn advance(&self, duration: Duration) {
        let end = self.after(duration);
        while self.step(end) {}
    }

    /// Sets the wall clock, which jumps; the monotonic clock does not notice.
    pub fn set_utc(&self, utc: Timestamp) {
        let wall = utc.as_unix_micros().wrapping_sub(self.micros());
        self.0.wall.store(wall, Ordering::Relaxed);
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        let timers = self.timers();
        Some(Instant::from_micros(timers.list.last()?.at))
    }

    /// Lets all the time until `end` pass at once, as for a machine that was suspended.
    pub(super) fn jump(&self, end: Instant) {
        self.set(&mut self.timers(), end);
        while self.step(end) {}
    }

    pub(super) fn after(&self, duration: Duration) -> Instant {
        let end = self.now().checked_add(duration);
        end.unwrap_or(Instant::from_micros(u64::MAX))
    }

    /// Moves to the next timer, but not beyond `end`. False when there is none: then it is at `end`.
    pub(super) fn step(&self, end: Instant) -> bool {
        let mut due = None;
        let is_moved = self.step_to_timer(end, &mut due) == Step::Timer;
        match due {
            Some(waker) => waker.wake(),
            None => self.set(&mut self.timers(), end),
        }
        is_moved
    }

    /// Moves to the next timer, unless there is none or it lies beyond `end`. In `waker` the one of the last timer comes
    /// in, if it is spare, and that of this one out.
    pub(super) fn step_to_timer(&self, end: Instant, waker: &mut Option<Waker>) -> Step {
        let mut timers = self.timers();
        core::mem::swap(&mut timers.spare, waker);
        let Some(due) = timers.list.pop_if(|timer| timer.at <= end.as_micros()) else {
            return match timers.list.is_empty() {
                true => Step::NoTimer,
                false => Step::Beyond,
            };
        };
        self.set(&mut timers, Instant::from_micros(due.at));
        self.0.last_off.store(due.id, Ordering::Relaxed);
        drop(timers);
        *waker = Some(due.waker);
        Step::Timer
    }

    fn set(&self, _lock: &mut Timers, at: Instant) {
        let now = self.micros().max(at.as_micros());
        self.0.now.store(now, Ordering::Relaxed);
    }

    fn micros(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.0.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant::from_micros(self.micros())
    }

    fn utc(&self) -> Timestamp {
        let wall = self.0.wall.load(Ordering::Relaxed);
        let utc = wall.wrapping_add(self.micros());
        // Before 1970 is 1970.
        Timestamp::from_unix_micros(if utc > u64::MAX / 2 { 0 } else { utc })
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        Sleep::on(self.clone(), at)
    }
}

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimClock")
            .field("now", &self.now())
            .field("utc", &self.utc())
            .finish()
    }
}

/// What has a clock in hand.
pub(super) trait OnClock: Unpin {
    fn clock(&self) -> &SimClock;
}

impl OnClock for SimClock {
    #[inline]
    fn clock(&self) -> &SimClock {
        self
    }
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
        self.set_timer(context);
        Poll::Pending
    }
}

impl<C: OnClock> Sleep<C> {
    pub(super) const fn on(on: C, at: Instant) -> Self {
        Self { on, at, id: None }
    }

    fn cancel(&self, id: u64) {
        let waker = self.on.clock().timers().cancel(self.at.as_micros(), id);
        drop(waker);
    }

    fn set_timer(&mut self, context: &Context<'_>) {
        let (at, waker) = (self.at.as_micros(), context.waker());
        if let Some(id) = self.id {
            let waker = waker.clone();
            let old = self.on.clock().timers().change(at, id, waker);
            return drop(old);
        }
        let mut timers = self.on.clock().timers();
        let id = match timers.spare.take_if(|spare| spare.will_wake(waker)) {
            Some(waker) => timers.add(at, waker),
            None => {
                drop(timers);
                let waker = waker.clone();
                self.on.clock().timers().add(at, waker)
            }
        };
        self.id = Some(id);
    }
}

impl<C: OnClock> Drop for Sleep<C> {
    #[inline]
    fn drop(&mut self) {
        if let Some(id) = self.id
            && id != self.on.clock().0.last_off.load(Ordering::Relaxed)
        {
            self.cancel(id);
        }
    }
}
