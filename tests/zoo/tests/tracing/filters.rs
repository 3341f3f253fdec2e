//! What a layer leaves out: by level and target, and what the session itself traces.

use super::{Keep, Panics, Time, everything, messages, sent};
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Waker};
use std::sync::Arc;
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Handle, Reporter};
use tracing::{Level, debug, error, info, info_span, trace, warn};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

#[test]
fn levels_and_targets_filter_events() {
    let layer = |handle: &Handle, _: &Time| {
        TelemetryLayer::new(handle.clone())
            .level(Level::WARN)
            .target("app", LevelFilter::DEBUG)
            .target("app::noisy", LevelFilter::OFF)
            .exclude("secret")
    };
    let work = |_: &Handle, _: &Time| {
        info!("no");
        warn!("one");
        debug!(target: "app", "two");
        trace!(target: "app", "no");
        error!(target: "app::noisy::more", "no");
        debug!(target: "application", "no");
        error!(target: "secret::key", "no");
        error!(target: "reqwest::connect", "no");
        error!(target: "tinkex_telemetry", "no");
    };
    assert_eq!(messages(&sent(layer, work)), ["one", "two"]);
    let filtered = |handle: &Handle, time: &Time| layer(handle, time).filtered();
    assert_eq!(messages(&sent(filtered, work)), ["one", "two"]);
}

#[test]
fn the_default_is_info_and_above() {
    let layer = |handle: &Handle, _: &Time| TelemetryLayer::new(handle.clone());
    let events = sent(layer, |_, _| {
        debug!("no");
        info!("yes");
    });
    assert_eq!(messages(&events), ["yes"]);
}

#[test]
fn the_subscribers_own_filters_apply_too() {
    let work = |_: &Handle, _: &Time| {
        debug!(target: "app", "debug");
        info!(target: "app", "info");
        error!(target: "other", "error");
    };
    let with_env_filter = |handle: &Handle, time: &Time| {
        everything(handle, time).with_filter(EnvFilter::new("app=info"))
    };
    assert_eq!(messages(&sent(with_env_filter, work)), ["info"]);
    // The filters of other layers do not affect this one, nor the reverse.
    let with_others = |handle: &Handle, time: &Time| {
        let others = tracing_subscriber::fmt::layer()
            .with_writer(std::io::sink)
            .with_filter(LevelFilter::TRACE);
        let quiet = TelemetryLayer::new(Handle::off()).filtered();
        quiet.and_then(others).and_then(everything(handle, time))
    };
    assert_eq!(
        messages(&sent(with_others, work)),
        ["debug", "info", "error"]
    );
}

#[test]
fn a_layer_hides_no_events_from_other_layers() {
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU64>);
    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let work = || {
        trace!("one");
        error!(target: "hyper", "two");
    };
    let count = Count::default();
    let plain = TelemetryLayer::new(Handle::off()).and_then(count.clone());
    tracing::subscriber::with_default(Registry::default().with(plain), work);
    assert_eq!(count.0.swap(0, Ordering::SeqCst), 2);
    let subscriber = Registry::default()
        .with(TelemetryLayer::new(Handle::off()).filtered())
        .with(count.clone());
    tracing::subscriber::with_default(subscriber, work);
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
}

#[test]
fn a_disabled_session_inspects_no_field() {
    let (reporter, _driver) = Reporter::builder("s")
        .transport(Keep::default())
        .clock(Time::default())
        .enabled(false)
        .build()
        .expect("the defaults are valid");
    let layer = TelemetryLayer::new(reporter.handle()).span_closings(true);
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        info_span!("span", field = ?Panics).in_scope(|| error!(field = ?Panics));
    });
    assert_eq!(reporter.stats().refused.total(), 0);
}

#[test]
fn events_traced_by_a_transport_are_left_out() {
    // `Keep` traces once per batch, under a target that no filter excludes.
    let events = sent(everything, |_, _| info!("one"));
    assert_eq!(messages(&events), ["one"]);
}

#[test]
fn events_traced_by_an_observer_are_left_out() {
    let (reporter, driver) = Reporter::builder("s")
        .transport(Keep::default())
        .clock(Time::default())
        .enabled(true)
        .on_diagnostic(|diagnostic| error!(target: "app", "{diagnostic}"))
        .build()
        .expect("the defaults are valid");
    let layer = everything(&reporter, &Time::default());
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        // A `RawValue` that not every reader takes.
        let raw = serde_json::value::RawValue::from_string("1e999".into());
        assert!(!reporter.log("unencodable", raw.expect("it takes it")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(driver.run()).poll(&mut context).is_pending());
    });
    assert_eq!(reporter.stats().refused.unencodable, 1);
    assert_eq!(reporter.stats().accepted, 1);
}
