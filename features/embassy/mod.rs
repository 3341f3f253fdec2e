//! The embassy runtime: its time, and a pool that runs tasks inside one task of the program's.

use crate::{Clock, Instant, Timestamp};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use embassy_time::{Instant as EmbassyInstant, TICK_HZ, Timer};

#[cfg(feature = "alloc")]
use self::pool::NO_POOL;
#[cfg(feature = "alloc")]
use crate::{Runtime, SpawnError, Spawner};

#[cfg(feature = "alloc")]
mod pool;

#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
pub use self::pool::EmbassyPool;

/// Embassy: a clock everywhere, and with `alloc` a runtime, `.runtime(Embassy::on(&POOL))`.
///
/// Time driver and tick rate are the program's choice, as ever with embassy; a program that chooses no time driver does
/// not link. Embassy cannot start tasks of a type it does not know, so the program declares one task:
///
/// * **[`EmbassyPool`]**, with `alloc`: its [`run`](EmbassyPool::run) is that task, and runs the drivers of any number
///   of sessions.
/// * **The driver itself**, with or without `alloc`: [`build`](crate::Builder::build) or
///   [`build_in`](crate::Builder::build_in) hand it out. This is also the way of transports that are not `Send`:
///
/// ```no_run
/// # #[cfg(feature = "std")] {
/// use tinkex_telemetry::{Batch, Driver, Embassy, Receipt, Reporter, SendError, local::LocalTransport};
///
/// struct Uart(*mut u8); // not Send
///
/// impl LocalTransport for Uart {
///     async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
///         // ...
/// #       let _ = batch;
///         Ok(Receipt::delivered())
///     }
/// }
///
/// #[embassy_executor::task]
/// async fn telemetry(driver: Driver<Uart, Embassy>) {
///     driver.run_local().await;
/// }
///
/// # fn start(spawner: embassy_executor::Spawner, uart: Uart) -> Result<(), Box<dyn core::error::Error>> {
/// let builder = Reporter::builder("session-123").transport(uart).clock(Embassy);
/// let (reporter, driver) = builder.build()?;
/// spawner.spawn(telemetry(driver)?);
/// # Ok(())
/// # }
/// # }
/// ```
///
/// # Time
///
/// The monotonic clock is embassy's, in microseconds and as fine as its ticks. Wall time embassy has none:
/// [`with_utc`](Self::with_utc) gives it one. Without, it is the operating system's with `std`, and else the time since
/// the clock's start counted from 1970-01-01, by which a backend can order the events of one run.
///
/// # Where it may be awaited
///
/// By default embassy keeps its timers in its tasks, and panics when a timer is polled with any other waker. Nothing
/// here wraps one: drivers and waits (`stop().await` and the like) work in every task of embassy's, `join` and `select`
/// of `embassy-futures` included. In another executor, or inside a combinator with wakers of its own (such as
/// `FuturesUnordered`), they need one of the features `generic-queue-8` to `generic-queue-128` of `embassy-time`.
///
/// On the thread that runs the driver or the pool, blocking waits are refused
/// ([`WouldDeadlock`](crate::WouldDeadlock)); on other threads they work. Dropping a reporter only asks for a stop.
#[derive(Clone, Copy, Default)]
pub struct Embassy {
    utc: Option<fn() -> Timestamp>,
    #[cfg(feature = "alloc")]
    pool: Option<&'static EmbassyPool>,
}

/// [`struct@Embassy`] without a pool: a clock.
#[allow(non_upper_case_globals, reason = "it is written like a unit struct")]
pub const Embassy: Embassy = Embassy {
    utc: None,
    #[cfg(feature = "alloc")]
    pool: None,
};

impl Embassy {
    /// The tasks of this session run in `pool`.
    #[cfg(feature = "alloc")]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
    #[must_use]
    pub const fn on(pool: &'static EmbassyPool) -> Self {
        Self {
            pool: Some(pool),
            ..Embassy
        }
    }

    /// Takes wall time from `utc`: a real-time clock, or the network's time plus the time since it was asked.
    ///
    /// It is called for each event, by whoever logs it, so it may be called on any thread and in any task, and inside
    /// an interrupt that logs. It must not block or panic. It may jump, when the program learns the time late: events
    /// that are logged before keep the timestamp they got.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU32, Ordering};
    /// use tinkex_telemetry::{Embassy, Timestamp};
    ///
    /// /// When the device was started, in seconds since the Unix epoch; set when the network has told.
    /// static STARTED: AtomicU32 = AtomicU32::new(0);
    ///
    /// fn utc() -> Timestamp {
    ///     let started = u64::from(STARTED.load(Ordering::Relaxed));
    ///     Timestamp::from_unix_micros(started * 1_000_000 + embassy_time::Instant::now().as_micros())
    /// }
    ///
    /// let clock = Embassy.with_utc(utc);
    /// # use tinkex_telemetry::Clock;
    /// # assert!(clock.utc() < Timestamp::from_unix_micros(60_000_000));
    /// ```
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
        // No tick is beyond the last, so it never comes.
        let at = EmbassyInstant::from_ticks(ticks(at, TICK_HZ).unwrap_or(u64::MAX));
        poll_fn(move |context| {
            // A timer of embassy's takes a turn of its task even when its time has come. It is in the task's own place
            // once it has been polled, and need not be kept.
            if at <= EmbassyInstant::now() {
                return Poll::Ready(());
            }
            Pin::new(&mut Timer::at(at)).poll(context)
        })
    }
}

/// The first tick at which the clock says `at` or later. `None` beyond the last.
///
/// embassy's own conversion rounds down, to a tick at which it is too early, and may overflow.
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
    ) -> Result<(), crate::WouldDeadlock> {
        // The driver may be in the pool already and never have been polled.
        if is_on_this_thread || self.pool.is_some_and(EmbassyPool::is_polled_here) {
            return Err(crate::WouldDeadlock);
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
    fn a_tick_is_never_early_and_never_later_than_it_must_be() {
        for per_second in [1, 100, 1_000, 32_768, 1_000_000, 3_000_000, 5_242_880_000] {
            for at in [0, 1, 30, 31, 999_999, 1_000_000, 1_000_001, 86_400_000_007] {
                let ticks = ticks(Instant::from_micros(at), per_second).expect("it is near");
                // What the clock says at a tick.
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
    fn an_instant_beyond_the_last_tick_never_comes() {
        assert_eq!(ticks(Instant::END, 1_000_000), Some(u64::MAX - 1));
        assert_eq!(ticks(Instant::END, 5_242_880_000), None);
        assert!(ticks(Instant::END, 1).is_some());
    }
}
