//! Misbehaving applications, transports and executors.

use alloc::sync::Arc;
use core::error::Error;
use core::fmt;
use core::future::{Future, pending};
use core::pin::Pin;
use core::task::{Context, Waker};
use core::time::Duration;
use std::sync::Mutex;
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{
    Batch, Drain, Receipt, Reporter, SendError, Severity, Thread, Tokio, Transport,
};

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(20);

/// Always fails, at once.
struct Broken;

impl Transport for Broken {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Err(SendError::retryable("broken"))
    }
}

/// Hangs in the first attempt, and panics when that attempt is dropped.
#[derive(Default)]
struct BadDestructor {
    attempts: usize,
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("a test destructor panics");
    }
}

impl Transport for BadDestructor {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        self.attempts += 1;
        if self.attempts == 1 {
            let _guard = PanicsInDrop;
            pending::<()>().await;
        }
        Ok(Receipt::delivered())
    }
}

#[test]
fn a_transport_whose_destructor_panics_costs_an_attempt_and_not_the_driver() {
    let reporter = Reporter::builder("resilience")
        .transport(BadDestructor::default())
        .runtime(Thread)
        .enabled(true)
        .http_timeout(Duration::from_millis(20))
        .retry_base_delay(Duration::from_millis(1))
        .start()
        .expect("it starts");
    let drain = reporter.stop_blocking(BOUND).expect("a thread of its own");
    assert!(drain.all_delivered(), "{drain:?}");
}

#[test]
fn an_always_ready_transport_does_not_starve_other_deadlines() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let drain: Drain = runtime.block_on(async {
        let reporter = Reporter::builder("resilience")
            .transport(Broken)
            .runtime(Tokio)
            .enabled(true)
            .retry_base_delay(Duration::ZERO)
            .max_retries(u32::MAX)
            .start()
            .expect("it starts");
        reporter.wait_until_drained(Duration::from_millis(50)).await
    });
    assert_eq!(drain.remaining, 1);
}

#[test]
fn a_fatal_error_whose_source_panics_still_ends_the_session() {
    #[derive(Debug)]
    struct BadSource;
    impl fmt::Display for BadSource {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bad")
        }
    }
    impl Error for BadSource {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            panic!("a test source panics");
        }
    }
    let builder = Reporter::builder("resilience")
        .transport(Broken)
        .clock(Thread);
    let (reporter, _driver) = builder.enabled(true).build().expect("it can be built");
    assert!(!reporter.log_exception(&BadSource, Severity::Error));
    assert_eq!(reporter.stats().refused.unencodable, 1);
    drop(reporter.log_fatal_exception(&BadSource, Severity::Error));
    let stats = reporter.stats();
    assert!(stats.session_ended && stats.is_balanced());
    // `SESSION_START`, the exception, a report of the one that was refused, and `SESSION_END`.
    assert_eq!((stats.queued, stats.reports), (4, 1));
}

#[test]
fn a_later_stop_waits_no_longer_than_the_first_stops_deadline() {
    let builder = Reporter::builder("resilience")
        .transport(Broken)
        .clock(Thread);
    // The driver is alive but never polled.
    let (reporter, _driver) = builder.enabled(true).build().expect("it can be built");
    drop(reporter.stop(Duration::from_millis(30)));
    let drain = reporter
        .stop_blocking(Duration::from_secs(3600))
        .expect("the driver is not on this thread");
    assert_eq!(drain.remaining, 2);
    assert_eq!(reporter.stats().dropped.shutdown, 2);
}

/// Polls a driver whenever the time is read: the worst possible moment.
#[derive(Clone, Default)]
struct MeddlingClock(Arc<Mutex<Option<Task>>>);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Clock for MeddlingClock {
    fn now(&self) -> Instant {
        // The driver reads the time, too: it must not be polled recursively.
        if let Ok(mut driver) = self.0.try_lock()
            && let Some(future) = driver.as_mut()
        {
            let mut context = Context::from_waker(Waker::noop());
            if future.as_mut().poll(&mut context).is_ready() {
                *driver = None;
            }
        }
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(0)
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

#[test]
fn a_fatal_error_that_is_settled_at_once_is_counted_as_delivered() {
    let clock = MeddlingClock::default();
    let (reporter, driver) = Reporter::builder("resilience")
        .transport(BadDestructor { attempts: 1 })
        .clock(clock.clone())
        .enabled(true)
        .build()
        .expect("it can be built");
    *clock.0.lock().expect("no panic") = Some(Box::pin(driver.run()));
    let drain = reporter.log_fatal_exception_blocking(&fmt::Error, Severity::Error);
    let drain = drain.expect("it resolves at once");
    // SESSION_START, the exception, SESSION_END.
    assert_eq!((drain.delivered, drain.remaining), (3, 0));
}

#[test]
fn an_unpolled_driver_belongs_to_no_thread() {
    let builder = Reporter::builder("resilience")
        .transport(Broken)
        .clock(Thread);
    let (reporter, driver) = builder.enabled(true).build().expect("it can be built");
    let mut polled_here = Box::pin(driver.run());
    let mut context = Context::from_waker(Waker::noop());
    assert!(polled_here.as_mut().poll(&mut context).is_pending());
    reporter.log("a", ());
    let would_deadlock = reporter.wait_until_drained_blocking(BOUND);
    assert!(would_deadlock.is_err());
    drop(polled_here);
    let _elsewhere = reporter
        .new_driver(Broken)
        .expect("the first driver is gone");
    let drain = reporter.wait_until_drained_blocking(Duration::from_millis(10));
    assert_eq!(drain.map(|drain| drain.remaining), Ok(2));
}
