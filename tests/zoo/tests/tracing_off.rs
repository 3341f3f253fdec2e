//! What a traced event costs when nobody wants it. In a process of its own: whether an event is wanted is asked once for
//! the whole process, and other tests want theirs.

use tinkex_telemetry::Handle;
use tinkex_telemetry::tracing::TelemetryLayer;
use tracing::{Level, error};
use tracing_subscriber::{Registry, layer::SubscriberExt};

#[test]
fn on_a_session_that_is_switched_off_not_even_the_fields_are_computed() {
    let layer = TelemetryLayer::new(Handle::off()).span_closings(true);
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let expensive = || -> u64 { panic!("it is computed") };
        error!(n = expensive());
        assert!(!tracing::enabled!(Level::ERROR));
    });
}
