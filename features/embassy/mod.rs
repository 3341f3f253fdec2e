//! The embassy runtime: its clock, and a pool that runs tasks inside one of the program's tasks.

use crate::clock::Clock;
use crate::time::{Instant, Timestamp};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use embassy_time::{Instant as EmbassyInstant, TICK_HZ, Timer};

#[cfg(feature = "alloc")]
use self::pool::NO_POOL;
#[cfg(feature = "alloc")]
use crate::spawner::{Runtime, SpawnError, Spawner};

#[cfg(feature = "alloc")]
mod pool;

#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
pub use self::pool::EmbassyPool;

/// The embassy runtime: a clock everywhere, and with `alloc` a spawner too, `.runtime(Embassy::on(&POOL))`.
///
/// As always with embassy, the program chooses the time driver and the tick rate; without a time driver it does not
/// link. Embassy cannot start tasks of a type it does not know, so the program declares one task, which runs either:
///
/// * **An [`EmbassyPool`]**, with `alloc`: its [`run`](EmbassyPool::run) runs the drivers of any number of sessions.
/// * **The driver itself**, with or without `alloc`: [`build`](crate::session::Builder::build) or
///   [`build_in`](crate::session::Builder::build_in) returns it. Use this for transports that are not `Send`, too:
///
#[cfg_attr(not(doctest), doc = include_str!("example.md"))]
///
/// # Time
///
/// The monotonic clock is embassy's, in microseconds, with the resolution of its ticks. Embassy has no wall time:
/// [`with_utc`](Self::with_utc) sets its source. The default is the operating system's clock with `std`; without, it is
/// the time since the clock's start, counted from 1970-01-01, which still lets a backend order the events of one run.
///
/// # Where it may be awaited
///
/// By default embassy keeps its timers in its tasks, and panics when a timer is polled with any other waker. Nothing
/// here wraps a waker: drivers and waits (`stop().await` and the like) work in every embassy task, including inside the
/// `join` and `select` of `embassy-futures`. In another executor, or inside a combinator with wakers of its own (such
/// as `FuturesUnordered`), they need one of the features `generic-queue-8` to `generic-queue-128` of `embassy-time`.
///
/// Blocking waits return [`WouldDeadlock`](crate::runtime::WouldDeadlock) on the thread that runs the driver or the
/// pool, and work on other threads. Dropping a reporter only requests a stop.
#[derive(Clone, Copy, Default)]
pub struct Embassy {
    utc: Option<fn() -> Timestamp>,
    #[cfg(feature = "alloc")]
    pool: Option<&'static EmbassyPool>,
}

/// A [`struct@Embassy`] without a pool: only a clock.
#[allow(non_upper_case_globals, reason = "used like a unit struct")]
pub const Embassy: Embassy = Embassy {
    utc: None,
    #[cfg(feature = "alloc")]
    pool: None,
};

impl Embassy {
    /// Runs the tasks of the session in `pool`.
    #[cfg(feature = "alloc")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
    #[must_use]
    pub const fn on(pool: &'static EmbassyPool) -> Self {
        Self {
            pool: Some(pool),
            ..Embassy
        }
    }

    /// Sets the source of wall time: a real-time clock, or network time plus the time since it was read.
    ///
    /// Each logged event calls `utc` on the spot: on any thread, in any task, and inside an interrupt handler that
    /// logs. It must not block or panic. It may jump, when the program learns the time late: events logged before that
    /// keep their timestamps.
    ///
    #[cfg_attr(not(doctest), doc = include_str!("utc.md"))]
    #[must_use]
    pub const fn with_utc(mut self, utc: fn() -> Timestamp) -> Self {
        self.utc = Some(utc);
        self
    }
}

impl Clock for Embassy {
    fn now(&self) -> Instant {
        Instant::from_micros(EmbassyInstant::now().as_micros())
    }

    fn utc(&self) -> Timestamp {
        match self.utc {
            Some(utc) => utc(),
            #[cfg(feature = "std")]
            None => std::time::SystemTime::now().into(),
            #[cfg(not(feature = "std"))]
            None => Timestamp::from_unix_micros(self.now().as_micros()),
        }
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        // An instant beyond the last tick never arrives.
        let at = EmbassyInstant::from_ticks(ticks(at, TICK_HZ).unwrap_or(u64::MAX));
        poll_fn(move |context| {
            // Embassy's timer returns `Pending` once even when it is due. Once polled, it is registered with the task
            // itself and need not be kept.
            if at <= EmbassyInstant::now() {
                return Poll::Ready(());
            }
            Pin::new(&mut Timer::at(at)).poll(context)
        })
    }
}

/// The first tick at which the clock reads `at` or later; `None` beyond the last.
///
/// Embassy's own conversion rounds down, to a tick that is too early, and may overflow.
fn ticks(at: Instant, per_second: u64) -> Option<u64> {
    const MICROS: u64 = 1_000_000;
    let (seconds, micros) = (at.as_micros() / MICROS, at.as_micros() % MICROS);
    let part = micros.checked_mul(per_second)?.div_ceil(MICROS);
    seconds.checked_mul(per_second)?.checked_add(part)
}

#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
impl Spawner for Embassy {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        match self.pool {
            Some(pool) => pool.spawn(alloc::boxed::Box::pin(task)),
            None => Err(SpawnError::new(NO_POOL)),
        }
    }

    #[cfg(feature = "std")]
    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), crate::spawner::WouldDeadlock> {
        // The driver may already be in the pool without ever having been polled.
        if is_on_this_thread || self.pool.is_some_and(EmbassyPool::is_polled_here) {
            return Err(crate::spawner::WouldDeadlock);
        }
        wait();
        Ok(())
    }
}

#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
impl Runtime for Embassy {}

impl fmt::Debug for Embassy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Embassy");
        debug.field("has_utc", &self.utc.is_some());
        #[cfg(feature = "alloc")]
        debug.field("pool", &self.pool);
        debug.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_the_first_that_is_not_early() {
        for per_second in [1, 100, 1_000, 32_768, 1_000_000, 3_000_000, 5_242_880_000] {
            for at in [0, 1, 30, 31, 999_999, 1_000_000, 1_000_001, 86_400_000_007] {
                let ticks = ticks(Instant::from_micros(at), per_second).expect("in range");
                // The clock's reading at a tick.
                let clock = |tick: u64| u128::from(tick) * 1_000_000 / u128::from(per_second);
                assert!(clock(ticks) >= u128::from(at), "{per_second} Hz, {at}");
                let before = ticks.checked_sub(1).map(clock);
                assert!(
                    before.is_none_or(|it| it < u128::from(at)),
                    "{per_second} Hz, {at}"
                );
            }
        }
    }

    #[test]
    fn an_instant_beyond_the_last_tick_has_none() {
        assert_eq!(ticks(Instant::END, 1_000_000), Some(u64::MAX - 1));
        assert_eq!(ticks(Instant::END, 5_242_880_000), None);
        assert!(ticks(Instant::END, 1).is_some());
    }
}
