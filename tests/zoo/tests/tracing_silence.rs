//! A subscriber that takes no warnings is no logger: a session that ends with losses says so on stderr.
//!
//! The subscriber is that of the whole process, so each program is a separate one: this test binary, running one of its
//! `child_…` tests.

use std::process::Command;
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

const IS_CHILD: &str = "TINKEX_TEST_CHILD";

struct Refuses;

impl Transport for Refuses {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Err(SendError::rejected("not today"))
    }
}

fn stderr_of(child: &str) -> String {
    let program = std::env::current_exe().expect("the path of this binary");
    let output = Command::new(program)
        .args(["--exact", child, "--nocapture"])
        .env(IS_CHILD, "1")
        .env_remove("TINKER_LOG")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// Loses events, with a subscriber for events and for records of the `log` facade up to a level.
fn lose(level: LevelFilter) {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let session = Reporter::builder("s")
        .transport(Refuses)
        .runtime(Thread)
        .enabled(true)
        .loss_report(false)
        .start()
        .expect("the session starts");
    let shown = fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .with_filter(LevelFilter::INFO);
    let subscriber = Registry::default()
        .with(TelemetryLayer::new(session.handle()).filtered())
        .with(shown)
        .with(level);
    tracing::subscriber::set_global_default(subscriber).expect("there is no other");
    tracing_log::LogTracer::init().expect("there is no other");
    log::warn!("the program's own warning");
    drop(session);
}

#[test]
fn where_a_subscriber_takes_no_warnings_losses_are_told_on_stderr() {
    let stderr = stderr_of("child_takes_errors");
    assert!(!stderr.contains("the program's own warning"), "{stderr}");
    let expected = "tinkex-telemetry: session \"s\" has lost events. Telemetry rejected by the backend: not today (2 events dropped)\n";
    assert_eq!(stderr.matches(expected).count(), 1, "{stderr}");
}

#[test]
fn child_takes_errors() {
    lose(LevelFilter::ERROR);
}

#[test]
fn where_a_subscriber_takes_warnings_losses_are_among_them() {
    let stderr = stderr_of("child_takes_warnings");
    assert!(stderr.contains("the program's own warning"), "{stderr}");
    assert!(stderr.contains("WARN"), "{stderr}");
    let expected = "Telemetry rejected by the backend: not today (3 events dropped)";
    assert_eq!(stderr.matches(expected).count(), 1, "{stderr}");
    assert!(!stderr.contains("tinkex-telemetry: "), "{stderr}");
}

#[test]
fn child_takes_warnings() {
    lose(LevelFilter::WARN);
}
