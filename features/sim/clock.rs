//! The simulated clock.

use super::timers::{Sleep, Step, TimerSource, Timers};
use crate::clock::Clock;
use crate::time::{Instant, Timestamp};
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

/// A clock that advances only on request. Clones share the time.
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
    /// In microseconds. Written under the timers' lock, or by a simulation, which alone moves its clock.
    now: AtomicU64,
    /// Wall time at the monotonic clock's origin, in microseconds; wraps if that is before 1970.
    wall_origin: AtomicU64,
    timers: Mutex<Timers>,
    /// When the next timer is due, or `u64::MAX`; and [`Timers::last_fired`]. Written under the timers' lock only, read
    /// without it.
    next: AtomicU64,
    last_fired: AtomicU64,
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

    /// A clock that starts at these times.
    #[must_use]
    pub fn starting(now: Instant, utc: Timestamp) -> Self {
        let clock = Self(Arc::new(Time {
            now: AtomicU64::new(now.as_micros()),
            wall_origin: AtomicU64::new(0),
            timers: Mutex::default(),
            next: AtomicU64::new(u64::MAX),
            last_fired: AtomicU64::new(0),
        }));
        clock.set_utc(utc);
        clock
    }

    /// Advances by `duration`, firing each timer at its own time. Tasks do not run meanwhile, so they see the time at
    /// the end; [`SimExecutor::advance`](super::SimExecutor::advance) runs them after each timer, and so does
    /// [`Env::advance`](super::Env::advance) in a scenario.
    ///
    /// The clock saturates at its maximum, after 584 542 years.
    pub fn advance(&self, duration: Duration) {
        let end = self.after(duration);
        while self.step(end) {}
    }

    /// Sets the wall clock, without effect on the monotonic clock.
    pub fn set_utc(&self, utc: Timestamp) {
        let wall = utc.as_unix_micros().wrapping_sub(self.micros());
        self.0.wall_origin.store(wall, Ordering::Relaxed);
    }

    /// When the next timer is due, not counting those of [`Env::advance`](super::Env::advance).
    #[must_use]
    #[inline]
    pub fn next_timer(&self) -> Option<Instant> {
        match self.0.next.load(Ordering::Relaxed) {
            u64::MAX => None,
            at => Some(Instant::from_micros(at)),
        }
    }

    /// Jumps to `end` at once, as when the machine was suspended.
    pub(super) fn jump(&self, end: Instant) {
        self.with_timers(|timers| self.set(timers, end));
        while self.step(end) {}
    }

    /// The instant `duration` from now, saturating.
    #[inline]
    pub(super) fn after(&self, duration: Duration) -> Instant {
        let end = self.now().checked_add(duration);
        end.unwrap_or(Instant::from_micros(u64::MAX))
    }

    /// Moves to the next timer and wakes its task. Returns false if none is due by `end`; the clock is then at `end`.
    ///
    /// The lookup and the move share one lock, so a timer that another thread sets comes before both or after both.
    pub(super) fn step(&self, end: Instant) -> bool {
        let mut discarded = None;
        let due = self.with_timers(|timers| {
            let due = timers.pop(end.as_micros(), &mut discarded);
            let at = due
                .as_ref()
                .map_or(end, |(at, _)| Instant::from_micros(*at));
            self.set(timers, at);
            due
        });
        let is_timer = due.is_some();
        if let Some((_, waker)) = due {
            waker.wake();
        }
        is_timer
    }

    /// Moves to the next timer, unless there is none until `end`. `waker` passes in the last timer's waker for reuse,
    /// and returns this timer's.
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
        self.set_exclusive(at);
    }

    /// Moves forward to `at`. No other thread may move this clock.
    #[inline]
    pub(super) fn set_exclusive(&self, at: Instant) {
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

impl TimerSource for SimClock {
    #[inline]
    fn clock(&self) -> &SimClock {
        self
    }

    fn with_timers<R>(&self, work: impl FnOnce(&mut Timers) -> R) -> R {
        let mut timers = self.0.timers.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut timers);
        let next = timers.next().unwrap_or(u64::MAX);
        self.0.next.store(next, Ordering::Relaxed);
        self.0
            .last_fired
            .store(timers.last_fired(), Ordering::Relaxed);
        result
    }

    #[inline]
    fn last_fired(&self) -> u64 {
        self.0.last_fired.load(Ordering::Relaxed)
    }
}

impl Clock for SimClock {
    fn is_simulated(&self) -> bool {
        true
    }

    #[inline]
    fn now(&self) -> Instant {
        Instant::from_micros(self.micros())
    }

    #[inline]
    fn utc(&self) -> Timestamp {
        let wall = self.0.wall_origin.load(Ordering::Relaxed);
        let utc = wall.wrapping_add(self.micros());
        // Clamps times before 1970.
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
