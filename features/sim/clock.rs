//! Simulated time: it moves when it is told to.

use super::timers::{OnClock, Sleep, Step, Timers};
use crate::clock::Clock;
use crate::time::{Instant, Timestamp};
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

/// A clock that stands still until it is moved. Clones show the same time.
///
/// ```
/// use core::time::Duration;
/// use tinkex_telemetry::runtime::Clock as _;
/// use tinkex_telemetry::sim::SimClock;
///
/// let clock = SimClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().saturating_duration_since(before), Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct SimClock(Arc<Time>);

struct Time {
    /// In microseconds. Written under the timers' lock, or by a simulation, which is alone in moving its clock.
    now: AtomicU64,
    /// Wall time at the monotonic clock's origin, in microseconds; wraps, as it may lie before 1970.
    wall: AtomicU64,
    timers: Mutex<Timers>,
    /// When the next timer is due, or `u64::MAX`; and [`Timers::last_off`]. Written under the timers' lock only, and
    /// read without.
    next: AtomicU64,
    last_off: AtomicU64,
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
        let clock = Self(Arc::new(Time {
            now: AtomicU64::new(now.as_micros()),
            wall: AtomicU64::new(0),
            timers: Mutex::default(),
            next: AtomicU64::new(u64::MAX),
            last_off: AtomicU64::new(0),
        }));
        clock.set_utc(utc);
        clock
    }

    /// Lets `duration` pass, timer after timer: each is woken at its own time. Tasks run afterwards, so one that a timer
    /// has woken sees the time at the end; [`SimExecutor::advance`](super::SimExecutor::advance) runs them in between, and
    /// in a scenario [`Env::advance`](super::Env::advance).
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

    /// When the next timer is due. Those of [`Env::advance`](super::Env::advance) are the scenario's own, and not here.
    #[must_use]
    #[inline]
    pub fn next_timer(&self) -> Option<Instant> {
        match self.0.next.load(Ordering::Relaxed) {
            u64::MAX => None,
            at => Some(Instant::from_micros(at)),
        }
    }

    /// Lets all the time until `end` pass at once, as for a machine that was suspended.
    pub(super) fn jump(&self, end: Instant) {
        self.with_timers(|timers| self.set(timers, end));
        while self.step(end) {}
    }

    #[inline]
    pub(super) fn after(&self, duration: Duration) -> Instant {
        let end = self.now().checked_add(duration);
        end.unwrap_or(Instant::from_micros(u64::MAX))
    }

    /// Moves to the next timer, but not beyond `end`. False when there is none: then it is at `end`.
    pub(super) fn step(&self, end: Instant) -> bool {
        let mut waker = None;
        let is_moved = self.step_to_timer(end, &mut waker) == Step::Timer;
        if !is_moved {
            // If there is a waker, it is a spare one.
            self.with_timers(|timers| self.set(timers, end));
        } else if let Some(waker) = waker {
            waker.wake();
        }
        is_moved
    }

    /// Moves to the next timer, unless there is none or it lies beyond `end`. In `waker` the one of the last timer comes
    /// in, if it is spare, and that of this one out.
    pub(super) fn step_to_timer(&self, end: Instant, waker: &mut Option<Waker>) -> Step {
        let due = self.with_timers(|timers| {
            let due = timers.pop(end.as_micros(), waker);
            if let Some((at, _)) = due {
                self.set(timers, Instant::from_micros(at));
            }
            due
        });
        match due {
            Some((_, due)) => {
                *waker = Some(due);
                Step::Timer
            }
            None if self.next_timer().is_none() => Step::NoTimer,
            None => Step::Beyond,
        }
    }

    fn set(&self, _lock: &mut Timers, at: Instant) {
        self.set_alone(at);
    }

    /// Moves to an instant, unless that is over. Nobody else may move this clock.
    #[inline]
    pub(super) fn set_alone(&self, at: Instant) {
        let now = self.micros().max(at.as_micros());
        self.0.now.store(now, Ordering::Relaxed);
    }

    #[inline]
    fn micros(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl OnClock for SimClock {
    #[inline]
    fn clock(&self) -> &SimClock {
        self
    }

    fn with_timers<R>(&self, work: impl FnOnce(&mut Timers) -> R) -> R {
        let mut timers = self.0.timers.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut timers);
        let next = timers.next().unwrap_or(u64::MAX);
        self.0.next.store(next, Ordering::Relaxed);
        self.0.last_off.store(timers.last_off(), Ordering::Relaxed);
        result
    }

    #[inline]
    fn last_off(&self) -> u64 {
        self.0.last_off.load(Ordering::Relaxed)
    }
}

impl Clock for SimClock {
    #[inline]
    fn now(&self) -> Instant {
        Instant::from_micros(self.micros())
    }

    #[inline]
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
