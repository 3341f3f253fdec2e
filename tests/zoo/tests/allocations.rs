//! In the steady state, neither logging nor executing events allocates. And what a call of the backend's clients takes.

use allocation_counter::measure;
use core::future::{Future, pending};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Mutex, mpsc};
use tinkex_telemetry::bus::Bus;
use tinkex_telemetry::client::{AdamParams, LoraConfig, SamplingParams, ServiceClient};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{
    Batch, Config, Receipt, Reporter, SendError, Severity, Thread, Transport, Ureq, fields,
};

/// A clock that stands still.
struct FrozenClock;

impl Clock for FrozenClock {
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

/// A transport that completes one send per message on the channel.
struct Network(Mutex<mpsc::Receiver<()>>);

impl Transport for Network {
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

/// Logs `events` events in each way. Returns the number of allocations.
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

/// A transport that accepts everything at once.
struct Discard;

impl Transport for Discard {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        assert!(!batch.body().is_empty());
        Ok(Receipt::delivered())
    }
}

#[test]
fn an_idle_session_sends_its_next_batch_from_the_same_memory() {
    let (reporter, driver) = Reporter::builder("s")
        .transport(Discard)
        .clock(FrozenClock)
        .enabled(true)
        .build()
        .expect("the defaults are valid");
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
    let (reply, replies) = mpsc::channel();
    let (reporter, driver) = Reporter::builder("s")
        .transport(Network(Mutex::new(replies)))
        .clock(FrozenClock)
        .enabled(true)
        .flush_interval(Duration::from_secs(1))
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let mut drain = || {
        let mut polls = 0;
        while reporter.stats().queued > 0 {
            reply.send(()).expect("the transport is alive");
            reporter.flush();
            poll(driver.as_mut());
            polls += 1;
            assert!(polls < 100_000, "the queue does not drain");
        }
    };

    // The first events allocate the ring and this thread's scratch buffer.
    assert!(allocations(&reporter, 500) > 0);
    drain();
    let part = reporter.with(fields! { request_id: 42, user: "ada", shard: 7 });
    assert_eq!(allocations(&part, 500), 0);
    drain();
    assert_eq!(allocations(&reporter, 500), 0, "the queue was empty");
    drain();
    assert_eq!(allocations(&reporter, 1), 0);

    reporter.flush();
    poll(driver.as_mut());
    assert_eq!(reporter.stats().queued, 4, "a batch is in flight");
    assert_eq!(allocations(&reporter, 400), 0, "with a batch in flight");
    poll(driver.as_mut());
    assert_eq!(
        reporter.stats().queued,
        1604,
        "the batch is still in flight"
    );
    // Long enough for the ring to wrap around.
    for _ in 0..50 {
        reply.send(()).expect("the transport is alive");
        poll(driver.as_mut());
        assert_eq!(allocations(&reporter, 10), 0);
    }

    let info = measure(|| {
        // Until the queue is full.
        while reporter.log("x", ()) {}
        assert!(!reporter.log("x", ()));
    });
    assert_eq!(reporter.stats().refused.queue_full, 2);
    assert!(info.count_total < 8, "the ring may have grown: {info:?}");
}

/// Executes `events` events. Returns the number of allocations.
fn executions(bus: &Bus, session: &str, events: u64) -> u64 {
    let info = measure(|| {
        for step in 0..events {
            bus.execute(
                "tinkex.http.request.stop",
                &[("duration", step.into()), ("share", 0.5.into())],
                &[
                    ("method", "GET".into()),
                    ("path", "/a \"quoted\" path".into()),
                    ("session_id", session.into()),
                ],
            );
        }
    });
    info.count_total
}

#[test]
fn executing_an_event_allocates_nothing_with_or_without_handlers_and_a_session() {
    let bus = Bus::new();
    assert_eq!(executions(&bus, "s", 100), 0, "no handler is attached");
    bus.attach("other", "another.event", |_| {})
        .expect("the id is free");
    bus.attach("own", "tinkex.http.request.stop", |event| {
        assert!(event.measurements().u64("duration").is_some());
    })
    .expect("the id is free");
    assert_eq!(executions(&bus, "s", 100), 0, "handlers are attached");

    let (_reply, replies) = mpsc::channel();
    let (reporter, _driver) = Reporter::builder("s")
        .transport(Network(Mutex::new(replies)))
        .clock(FrozenClock)
        .bus(bus.clone())
        .enabled(true)
        .build()
        .expect("the defaults are valid");
    assert!(executions(&bus, "s", 200) > 0, "the queue allocates");
    let before = reporter.stats().accepted;
    assert_eq!(executions(&bus, "s", 50), 0, "events of this session");
    assert_eq!(reporter.stats().accepted, before + 50);
    assert_eq!(executions(&bus, "t", 50), 0, "events of another session");
    assert_eq!(reporter.stats().accepted, before + 50);
}

#[test]
fn a_request_allocates_for_its_events_only_if_a_handler_is_attached() {
    use tinkex_telemetry::http::HttpEvents;
    let bus = Bus::new();
    let events = HttpEvents::on(&bus, "s");
    let requests = || measure(|| (0..100).for_each(|_| events.start("GET", "/a").stop(200)));
    assert_eq!(requests().count_total, 0);
    bus.attach("one", "tinkex.http.request.stop", |_| {})
        .expect("the id is free");
    assert_eq!(
        requests().count_total,
        100,
        "one per request, for the stop's metadata"
    );
}

#[test]
fn a_call_takes_a_few_kibibytes_until_it_is_sent() {
    let collector = Collector::start().expect("a collector");
    let config = Config::new(&collector.url(), "any key").expect("a config");
    let service = ServiceClient::builder(config)
        .http(Ureq::new())
        .runtime(Thread)
        .telemetry(|telemetry| telemetry.enabled(true))
        .connect()
        .wait()
        .expect("a session");
    let sampler = service
        .create_sampling_client("small")
        .wait()
        .expect("a sampler");
    let training = service.create_training_client("small", LoraConfig::rank(8));
    let training = training.wait().expect("a model");
    let taken = [
        measure(|| drop(sampler.sample(vec![1], 1, SamplingParams::new()))),
        measure(|| drop(training.optim_step(AdamParams::default()))),
        measure(|| drop(training.get_info())),
        measure(|| drop(service.get_server_capabilities())),
    ]
    .map(|call| call.bytes_max);
    println!("{taken:?} bytes");
    assert!(taken.iter().all(|bytes| *bytes < 16 << 10), "{taken:?}");
    assert!(service.close_blocking().all_safe());
}
