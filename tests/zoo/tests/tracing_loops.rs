//! What HTTP clients trace while they send telemetry is not sent in turn. The subscriber is global, so that it covers
//! the clients' threads.
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::runtime::{Runtime, Smol};
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Config, Handle, HttpTransport, Reporter, Reqwest, Thread, Tokio, Ureq};
use tracing::{Level, Subscriber, error, trace};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

const BOUND: Duration = Duration::from_secs(20);
const ROUNDS: u64 = 30;
const SESSIONS: [&str; 3] = ["reqwest", "ureq", "surf"];

/// The number of traced events of each origin, whether sent or not.
static TRACED: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let normalized = event.normalized_metadata();
        let target = normalized
            .as_ref()
            .map_or(event.metadata().target(), |metadata| metadata.target());
        let origin = target.split(':').next().unwrap_or_default();
        let mut traced = TRACED.lock().expect("no panic");
        *traced.entry(origin.to_owned()).or_default() += 1;
    }
}

fn traced(origin: &str) -> u64 {
    let traced = TRACED.lock().expect("no panic");
    traced.get(origin).copied().unwrap_or(0)
}

struct Sessions {
    collector: Collector,
    handles: [Handle; 3],
    reentrant: Handle,
}

fn start<R: Runtime>(url: &str, id: &str, client: impl HttpClient, runtime: R) -> Handle {
    let config = Config::new(url, "any key").expect("a config");
    let reporter = Reporter::builder(id)
        .transport(HttpTransport::new(config, client))
        .runtime(runtime)
        .enabled(true)
        // Sends every event at once, so that a loop would show immediately.
        .flush_interval(Duration::from_millis(1))
        .flush_threshold(1)
        .start()
        .expect("the session starts");
    let handle = reporter.handle();
    // The sessions live as long as the process.
    core::mem::forget(reporter);
    handle
}

fn sessions() -> &'static Sessions {
    static SESSIONS_OF_ALL: OnceLock<Sessions> = OnceLock::new();
    SESSIONS_OF_ALL.get_or_init(|| {
        let collector = Collector::start().expect("a collector");
        let url = collector.url();
        let tokio = Box::leak(Box::new(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime"),
        ));
        let on_tokio = Tokio::on(tokio.handle().clone());
        let reqwest = Reqwest::on(tokio.handle().clone()).expect("a client");
        let handles = [
            start(&url, SESSIONS[0], reqwest, on_tokio),
            start(&url, SESSIONS[1], Ureq::new(), Thread),
            start(&url, SESSIONS[2], Surf::new(surf::Client::new), Smol),
        ];
        let reentrant = start(&url, "reentrant", Ureq::new(), Thread);
        let layer = |at: usize| {
            TelemetryLayer::new(Handle::clone(&handles[at]))
                .level(Level::TRACE)
                .target("reentrant", LevelFilter::OFF)
                .span_closings(true)
        };
        let only_reentrant = TelemetryLayer::new(reentrant.clone())
            .level(LevelFilter::OFF)
            .target("reentrant", Level::TRACE);
        let subscriber = tracing_subscriber::registry()
            .with(layer(0))
            .with(layer(1).filtered())
            .with(layer(2))
            .with(only_reentrant)
            .with(Counting);
        tracing::subscriber::set_global_default(subscriber).expect("no other is set");
        tracing_log::LogTracer::init().expect("no other is set");
        Sessions {
            collector,
            handles,
            reentrant,
        }
    })
}

#[test]
fn at_the_most_verbose_level_no_client_creates_events() {
    let Sessions {
        collector, handles, ..
    } = sessions();
    for round in 0..ROUNDS {
        trace!(target: "app", round, "traced");
        log::trace!(target: "app", "logged {round}");
        for handle in handles {
            let drain = handle.wait_until_drained_blocking(BOUND);
            assert!(drain.is_ok_and(|drain| drain.all_delivered()));
        }
    }
    // Nothing follows, however many flushes.
    for handle in handles {
        for _ in 0..20 {
            handle.flush();
            let drain = handle.wait_until_drained_blocking(BOUND);
            assert!(drain.is_ok_and(|drain| drain.all_delivered()));
        }
        assert_eq!(handle.stats().accepted, 1 + 2 * ROUNDS);
        assert_eq!(handle.stats().refused.total(), 0);
        let drain = handle.stop_blocking(BOUND);
        assert!(drain.is_ok_and(|drain| drain.all_delivered()));
    }
    for id in SESSIONS {
        let session = collector.session(id).expect("the session arrived");
        assert_eq!(session.len() as u64, 2 + 2 * ROUNDS);
        for event in &session.events()[1..=2 * ROUNDS as usize] {
            assert_eq!(event.value()["event_data"]["target"], "app");
            assert_eq!(event.value()["event_name"], "app");
        }
    }
    // The clients did trace, at least once per request.
    for origin in ["reqwest", "ureq", "ureq_proto", "async_h1", "http_client"] {
        let count = traced(origin);
        assert!(count >= ROUNDS, "{origin} only {count}");
    }
    let traced = TRACED.lock().expect("no panic");
    let unknown: Vec<_> = traced
        .keys()
        .filter(|origin| !TelemetryLayer::EXCLUDED.contains(&origin.as_str()))
        .collect();
    assert!(
        unknown
            .iter()
            .all(|origin| ["app", "reentrant"].contains(&origin.as_str())),
        "{unknown:?} should be excluded"
    );
}

#[test]
fn events_traced_while_a_field_is_recorded_are_ignored() {
    struct Traces;
    impl fmt::Debug for Traces {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            // If this event were recorded, it would recurse forever.
            error!(target: "reentrant", field = ?Self, "inner");
            f.write_str("shown")
        }
    }
    let handle = &sessions().reentrant;
    error!(target: "reentrant", field = ?Traces, "outer");
    let drain = handle.wait_until_drained_blocking(BOUND);
    assert!(drain.is_ok_and(|drain| drain.all_delivered()));
    assert_eq!(handle.stats().accepted, 2);
    let session = sessions().collector.session("reentrant");
    let session = session.expect("the session arrived");
    let fields = &session.events()[1].value()["event_data"]["fields"];
    assert_eq!(fields["field"], "shown");
}
