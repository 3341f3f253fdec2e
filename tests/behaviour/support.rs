//! A session on its own thread that sends over HTTP to a collector, and child programs to observe.

use core::error::Error;
use core::fmt;
use core::time::Duration;
use serde_json::Value;
use std::process::{Command, Stdio};
use tinkex_telemetry::collector::{Collector, EventRecord};
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq};

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Long enough never to pass.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) const SESSION: &str = "s";
pub(crate) const KEY: &str = "sk-sentinel-0123456789";

pub(crate) type OverHttp = HttpTransport<Ureq>;
pub(crate) type Session = Reporter<OverHttp, Thread, Thread>;

/// A session over HTTP to `url`, whose options a test may still change.
pub(crate) fn session(url: &str) -> Builder<OverHttp, Thread, Thread> {
    let config = Config::new(url, KEY).expect("a config");
    Reporter::builder(SESSION)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .drop_timeout(Duration::from_secs(1))
}

pub(crate) fn start(collector: &Collector) -> Session {
    session(&collector.url()).start().expect("it starts")
}

/// The session's events that the collector has stored.
pub(crate) fn events(collector: &Collector) -> Vec<EventRecord> {
    match collector.session(SESSION) {
        Some(session) => session.events().to_vec(),
        None => Vec::new(),
    }
}

/// The names of generic events and the kinds of all others.
pub(crate) fn names(collector: &Collector) -> Vec<String> {
    let name = |event: &EventRecord| match event.value().get("event_name") {
        Some(Value::String(name)) => name.clone(),
        _ => event.kind().as_str().into(),
    };
    events(collector).iter().map(name).collect()
}

/// An error with a cause.
#[derive(Debug)]
pub(crate) struct Failure(
    pub(crate) &'static str,
    pub(crate) Option<Box<dyn Error + Send + Sync>>,
);

/// The path of [`Failure`].
pub(crate) const FAILURE: &str = "behaviour::support::Failure";

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_ref().map(|source| &**source as _)
    }
}

const IS_CHILD: &str = "TINKEX_TEST_CHILD";

/// A child program: this test binary, running one of its `child_…` tests, which do nothing unless started this way.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(IS_CHILD, "1")
        .stdin(Stdio::null());
    for variable in [
        "TINKER_API_KEY",
        "TINKER_BASE_URL",
        "TINKER_TELEMETRY",
        "DO_NOT_TRACK",
        "RUST_BACKTRACE",
        "RUST_LIB_BACKTRACE",
    ] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(IS_CHILD).is_some()
}
