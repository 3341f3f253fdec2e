//! In the steady state logging allocates nothing.
#![cfg(feature = "std")]

use allocation_counter::measure;
use core::future::{Future, pending};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Mutex, mpsc};
use tinkex_telemetry::{
    Batch, Clock, Instant, Receipt, Reporter, SendError, Severity, Timestamp, Transport, fields,
};

/// Time that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_764_151_845_000_000)
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// A network that answers when it is told to.
struct Wire(Mutex<mpsc::Receiver<()>>);

impl Transport for Wire {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        core::future::poll_fn(|context| match self.0.lock().map(|wire| wire.try_recv()) {
            Ok(Ok(())) => Poll::Ready(()),
            _ => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
        Ok(Receipt::delivered())
    }
}

#[derive(serde::Serialize)]
struct Step<'a> {
    model: &'a str,
    step: u64,
    loss: f64,
    is_last: bool,
    tags: [Option<&'a str>; 3],
}

/// Logs in every way, so many events of each; how often that allocated.
fn allocations(reporter: &tinkex_telemetry::Handle, events: u64) -> u64 {
    let model = String::from("a \"small\" model");
    let info = measure(|| {
        for step in 0..events {
            let data = Step {
                model: &model,
                step,
                loss: 0.1 * step as f64,
                is_last: false,
                tags: [Some("a\nb"), None, Some("é")],
            };
            assert!(reporter.log("a struct", &data));
            let inner = fields! { loss: data.loss, at: None::<u8> };
            assert!(reporter.log("fields", fields! { model: model, step: step, inner: inner }));
            assert!(reporter.log_with("nothing", (), Severity::Debug));
            assert!(reporter.log_with("a \"quoted\" name", &data, Severity::Critical));
        }
    });
    info.count_total
}

fn poll(driver: Pin<&mut impl Future<Output = ()>>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(driver.poll(&mut context).is_pending());
}

/// A network that takes everything at once.
struct Swallow;

impl Transport for Swallow {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        assert!(!batch.body().is_empty());
        Ok(Receipt::delivered())
    }
}

#[test]
fn a_session_that_was_idle_sends_its_next_batch_from_the_same_memory() {
    let (reporter, driver) = Reporter::builder("s")
        .transport(Swallow)
        .clock(Still)
        .enabled(true)
        .build()
        .expect("it can work");
    let mut driver = pin!(driver.run());
    let mut send = || {
        for _ in 0..20 {
            assert!(reporter.log("step", fields! { text: "some hundred bytes each" }));
        }
        reporter.flush();
        let info = measure(|| poll(driver.as_mut()));
        assert_eq!(reporter.stats().queued, 0);
        info.count_total
    };
    assert!(send() > 0);
    assert_eq!(send(), 0);
}

#[test]
fn in_the_steady_state_logging_allocates_nothing() {
    let (answer, answers) = mpsc::channel();
    let (reporter, driver) = Reporter::builder("s")
        .transport(Wire(Mutex::new(answers)))
        .clock(Still)
        .enabled(true)
        .flush_interval(Duration::from_secs(1))
        .build()
        .expect("it can work");
    let mut driver = pin!(driver.run());
    let mut drain = || {
        while reporter.stats().queued > 0 {
            answer.send(()).expect("it listens");
            reporter.flush();
            poll(driver.as_mut());
        }
    };

    // The first events make room: for the ring, and for this thread's scratch buffer.
    assert!(allocations(&reporter, 500) > 0);
    drain();
    assert_eq!(allocations(&reporter, 500), 0, "the queue was empty");
    drain();
    assert_eq!(allocations(&reporter, 1), 0);

    reporter.flush();
    poll(driver.as_mut());
    assert_eq!(reporter.stats().queued, 4, "a batch is in flight");
    assert_eq!(allocations(&reporter, 400), 0, "while it is");
    poll(driver.as_mut());
    assert_eq!(reporter.stats().queued, 1604, "it still is");
    // The ring's end and beginning are passed, too.
    for _ in 0..50 {
        answer.send(()).expect("it listens");
        poll(driver.as_mut());
        assert_eq!(allocations(&reporter, 10), 0);
    }

    let info = measure(|| {
        // No more than what is refused for lack of room.
        while reporter.log("x", ()) {}
        assert!(!reporter.log("x", ()));
    });
    assert_eq!(reporter.stats().refused.queue_full, 2);
    assert!(info.count_total < 8, "the ring may have grown: {info:?}");
}
