//! The cost of a traced event that no subscriber wants. In a separate process: tracing caches its interest per process,
//! and other tests do want their events.

use tinkex_telemetry::Handle;
use tinkex_telemetry::tracing::TelemetryLayer;
use tracing::{Level, error};
use tracing_subscriber::{Registry, layer::SubscriberExt};

#[test]
fn a_disabled_session_does_not_even_compute_the_fields() {
    let layer = TelemetryLayer::new(Handle::off()).span_closings(true);
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let expensive = || -> u64 { panic!("the field is computed") };
        error!(n = expensive());
        assert!(!tracing::enabled!(Level::ERROR));
    });
}
