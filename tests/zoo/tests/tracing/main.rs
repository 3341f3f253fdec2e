//! Traced events become events of a session; what the session itself traces does not.
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

mod filters;
mod spans;

use core::fmt;
use core::future::{Future, pending};
use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Batch, Handle, Options, Receipt, Reporter, SendError, Transport};
use tracing::{Level, debug, error, info, info_span, trace, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

/// Records the events it is sent. It also traces, as an application's own HTTP client might.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<Value>>>);

impl Transport for Keep {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        error!(target: "my_client", "this must not be sent");
        let body: Value = serde_json::from_slice(batch.body()).expect("the body is JSON");
        let events = body["events"].as_array().expect("events").clone();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(events);
        Ok(Receipt::delivered())
    }
}

/// A clock that the test advances.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn advance(&self, micros: u64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for Time {
    fn now(&self) -> Instant {
        Instant::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(0)
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// What a session sends while `work` traces, without the session's start and end.
fn sent<L>(layer: impl FnOnce(&Handle, &Time) -> L, work: impl FnOnce(&Handle, &Time)) -> Vec<Value>
where
    L: Layer<Registry> + Send + Sync,
{
    sent_with(Options::default(), layer, work)
}

fn sent_with<L>(
    options: Options,
    layer: impl FnOnce(&Handle, &Time) -> L,
    work: impl FnOnce(&Handle, &Time),
) -> Vec<Value>
where
    L: Layer<Registry> + Send + Sync,
{
    let (keep, time) = (Keep::default(), Time::default());
    let (reporter, driver) = Reporter::builder("s")
        .options(options)
        .transport(keep.clone())
        .clock(time.clone())
        .enabled(true)
        .build()
        .expect("the defaults are valid");
    let subscriber = Registry::default().with(layer(&reporter, &time));
    tracing::subscriber::with_default(subscriber, || {
        work(&reporter, &time);
        let mut context = Context::from_waker(Waker::noop());
        let mut driver = pin!(driver.run());
        reporter.flush();
        assert!(driver.as_mut().poll(&mut context).is_pending());
        let mut stop = pin!(reporter.stop(core::time::Duration::MAX));
        assert!(driver.as_mut().poll(&mut context).is_ready());
        let Poll::Ready(drain) = stop.as_mut().poll(&mut context) else {
            panic!("the driver has ended");
        };
        assert!(drain.all_delivered());
    });
    let mut events = keep.0.lock().expect("no panic").split_off(1);
    assert_eq!(events.pop().expect("an end")["event"], "SESSION_END");
    events
}

fn everything(handle: &Handle, _: &Time) -> TelemetryLayer {
    TelemetryLayer::new(handle.clone()).level(Level::TRACE)
}

fn data(events: &[Value]) -> Vec<&Value> {
    events.iter().map(|event| &event["event_data"]).collect()
}

fn messages(events: &[Value]) -> Vec<&str> {
    let messages = data(events).into_iter();
    messages
        .map(|data| data["fields"]["message"].as_str().expect("a message"))
        .collect()
}

#[derive(Debug)]
struct Failed(&'static str, Option<Box<Failed>>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Failed {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.1.as_ref().map(|source| &**source as _)
    }
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("in Debug"));
    }
}

#[test]
fn an_event_has_its_target_its_level_and_its_message() {
    let events = sent(everything, |_, _| {
        trace!("one {}", 1);
        debug!(target: "app::db", "two");
        info!("three");
        warn!("four");
        error!("five");
    });
    let severities: Vec<_> = events.iter().map(|event| &event["severity"]).collect();
    assert_eq!(severities, ["DEBUG", "DEBUG", "INFO", "WARNING", "ERROR"]);
    assert_eq!(messages(&events), ["one 1", "two", "three", "four", "five"]);
    assert_eq!(events[0]["event_name"], "tracing");
    assert_eq!(events[1]["event_name"], "app::db");
    let expected = json!({"target": "app::db", "fields": {"message": "two"}});
    assert_eq!(events[1]["event_data"], expected);
}

#[test]
fn a_named_event_keeps_its_name() {
    let events = sent(everything, |_, _| {
        info!(name: "cache.miss", key = 7);
        tracing::event!(name: "plain", target: "app", Level::INFO, a = 1);
    });
    assert_eq!(events[0]["event_name"], "cache.miss");
    assert_eq!(events[1]["event_name"], "plain");
    assert_eq!(events[1]["event_data"]["target"], "app");
}

#[test]
fn fields_keep_their_types() {
    let events = sent(everything, |_, _| {
        let error = Failed("outer", Some(Box::new(Failed("inner", None))));
        let error: &(dyn core::error::Error + 'static) = &error;
        info!(
            yes = true,
            small = -1_i64,
            large = u64::MAX,
            least = i64::MIN,
            zero = 0_u64,
            huge = u128::MAX,
            low = i128::MIN,
            float = 0.5,
            nan = f64::NAN,
            infinite = f64::INFINITY,
            text = "a \"quoted\"\ntext",
            error,
            debug = ?vec![Some(1)],
            display = %"shown",
            "the.path" = 1,
            nothing = tracing::field::Empty,
            "a message"
        );
    });
    let text = serde_json::to_string(&events[0]["event_data"]["fields"]);
    let fields: Value = serde_json::from_str(&text.expect("JSON")).expect("JSON");
    let expected = json!({
        "message": "a message",
        "yes": true,
        "small": -1,
        "large": u64::MAX,
        "least": i64::MIN,
        "zero": 0,
        "huge": u128::MAX as f64,
        "low": i128::MIN as f64,
        "float": 0.5,
        "nan": null,
        "infinite": null,
        "text": "a \"quoted\"\ntext",
        "error": "outer: inner",
        "debug": "[Some(1)]",
        "display": "shown",
        "the.path": 1,
    });
    assert_eq!(fields, expected);
}

#[test]
fn limits_and_hooks_leave_the_data_unchanged() {
    let build = |keep: &Keep, change: fn(Plain) -> Plain| {
        let builder = Reporter::builder("s")
            .transport(keep.clone())
            .clock(Time::default())
            .enabled(true);
        change(builder).build().expect("the options are valid")
    };
    type Plain = tinkex_telemetry::session::Builder<Keep, Time, ()>;
    let changes: [fn(Plain) -> Plain; 4] = [
        |plain| plain,
        |plain| plain.max_fields(1_000),
        |plain| plain.scrub(|_| tinkex_telemetry::event::Verdict::Keep),
        |plain| {
            plain.scrub(|event| {
                event.data_mut();
                tinkex_telemetry::event::Verdict::Keep
            })
        },
    ];
    let sent = changes.map(|change| {
        let keep = Keep::default();
        let (reporter, driver) = build(&keep, change);
        let layer = TelemetryLayer::new(reporter.handle());
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            info!(a = 1, b = -2, c = true, d = "text \"quoted\"", e = ?Some(1), f = 1.5);
            info_span!("span \"quoted\"").in_scope(|| info!("nothing else"));
            info_span!("span", a = "b\n", n = 1.5).in_scope(|| info!("with fields"));
            info!(nothing = tracing::field::Empty);
            info!(a = 1, b = 2, a = 3);
        });
        reporter.flush();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(driver.run()).poll(&mut context).is_pending());
        let events = keep.0.lock().expect("no panic");
        events[1..]
            .iter()
            .map(|event| event["event_data"].clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(sent[0].len(), 5);
    assert!(sent.iter().all(|other| *other == sent[0]), "{sent:?}");
}

#[test]
fn a_field_named_twice_is_one_key() {
    struct Raw(Arc<Mutex<String>>);
    impl Transport for Raw {
        async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
            let text = String::from_utf8_lossy(batch.body());
            self.0.lock().expect("no panic").push_str(&text);
            Ok(Receipt::delivered())
        }
    }
    let sent = Arc::new(Mutex::new(String::new()));
    let (reporter, driver) = Reporter::builder("s")
        .transport(Raw(Arc::clone(&sent)))
        .clock(Time::default())
        .enabled(true)
        .build()
        .expect("the defaults are valid");
    let layer = TelemetryLayer::new(reporter.handle());
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        info!(a = 1, b = 2, a = 3);
    });
    reporter.flush();
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(driver.run()).poll(&mut context).is_pending());
    let sent = sent.lock().expect("no panic");
    assert!(sent.contains(r#""fields":{"a":1,"b":2}"#), "{sent}");
}

#[test]
fn a_panicking_field_affects_only_its_own_event() {
    let layer = |handle: &Handle, _: &Time| TelemetryLayer::new(handle.clone()).span_closings(true);
    let events = sent(layer, |handle, _| {
        info!("before");
        info!(field = ?Panics, "lost");
        info!("after");
        assert_eq!(handle.stats().refused.unencodable, 1);
        info_span!("span", field = ?Panics).in_scope(|| info!("inside"));
        assert_eq!(handle.stats().refused.unencodable, 2);
        let span = info_span!("span", field = tracing::field::Empty);
        span.record("field", tracing::field::debug(Panics));
        drop(span);
        assert_eq!(handle.stats().refused.unencodable, 3);
    });
    let (report, events) = events.split_last().expect("events");
    assert_eq!(messages(events), ["before", "after", "inside"]);
    assert_eq!(report["event_name"], "tinkex.telemetry.report");
}

#[test]
fn in_the_steady_state_an_event_allocates_nothing() {
    let (reporter, driver) = Reporter::builder("s")
        .transport(Keep::default())
        .clock(Time::default())
        .enabled(true)
        .build()
        .expect("the defaults are valid");
    let layer = TelemetryLayer::new(reporter.handle());
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let outer = info_span!("outer");
        let _outer = outer.enter();
        let inner = info_span!("inner", request_id = 42, user = "ada");
        let _inner = inner.enter();
        let work = || {
            for step in 0..50_u64 {
                info!(step, loss = 0.1, last = false, text = "a\nb", debug = ?Some(1), "step {step}");
            }
        };
        work();
        let info = allocation_counter::measure(work);
        assert_eq!(info.count_total, 0);
    });
    assert_eq!(reporter.stats().accepted, 101);
    drop(driver);
}
