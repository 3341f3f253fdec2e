//! How do I send my program's `tracing` events? With a `TelemetryLayer`, which also takes records of the `log` facade.
//!
//! `cargo run -p example-tracing`

use core::time::Duration;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq};
use tracing::{Level, debug, info, info_span, warn};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;
    let telemetry = Reporter::builder("session-123")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;

    let layer = TelemetryLayer::new(telemetry.handle())
        .level(Level::INFO)
        .target("tracing::cache", Level::DEBUG)
        .span_closings(true);
    tracing_subscriber::registry().with(layer.filtered()).init();
    tracing_log::LogTracer::init()?;

    info_span!("train", model = "small").in_scope(|| {
        info!(name: "train.step", step = 1, loss = 0.5, last = false);
        debug!(target: "tracing::cache", hits = 7, "warm");
        debug!("below the configured level");
        warn!(error = %std::io::Error::other("the disk is slow"), "still going");
    });
    log::info!(target: "old::module", "a record of the log facade");

    let drain = telemetry.stop_blocking(Duration::from_secs(5))?;
    assert!(drain.all_delivered());
    let session = collector
        .session("session-123")
        .ok_or("no events arrived")?;
    for event in session.events() {
        println!("{}", event.json());
    }
    assert_eq!(session.len(), 7);
    Ok(())
}
