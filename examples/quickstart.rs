//! What does a session do? Events of every kind, a server that fails twice, and a ledger that balances.
//!
//! `cargo run --example quickstart --features thread,ureq,collector`
//!
//! The backend is embedded, unless `TINKER_BASE_URL` and `TINKER_API_KEY` name a real one.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::error::Error;
use core::fmt::{self, Display};
use core::time::Duration;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, io};
use tinkex_telemetry::collector::{Collector, Reply, ReplyKind};
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::{
    Config, Handle, HttpTransport, Reporter, Severity, Stats, Thread, Ureq, fields,
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let has = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let (config, collector) = if has("TINKER_BASE_URL") && has("TINKER_API_KEY") {
        (Config::from_env()?, None)
    } else {
        let (busy, limited) = (Reply::status(503), Reply::status(429).retry_after("1"));
        let collector = Collector::start()?;
        collector.script([busy, Reply::accept(), limited]);
        (Config::new(&collector.url(), "any key")?, Some(collector))
    };

    let start = Instant::now();
    // A fresh id for each run: the backend would take a second run under the same id for the first.
    let mut builder = Reporter::builder(SessionId::random())
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(50));
    if collector.is_some() {
        // To its own backend a demonstration sends, whatever the environment says.
        builder = builder.enabled(true);
    }
    let telemetry = builder.start()?;
    if !telemetry.is_enabled() {
        println!("TINKER_TELEMETRY or DO_NOT_TRACK switches telemetry off: nothing was sent");
        return Ok(ExitCode::SUCCESS);
    }
    let session = telemetry.session_id().unwrap_or_default().to_owned();
    work(&telemetry);
    let logged = start.elapsed();
    let drain = telemetry.stop_blocking(Duration::from_secs(30))?;
    let (stats, stopped) = (telemetry.stats(), start.elapsed());

    println!("session {session}: logged in {logged:.1?}, sent and stopped in {stopped:.1?}");
    let is_received = match &collector {
        Some(collector) => print_received(collector, &session, start) == stats.accepted,
        None => true,
    };
    print_ledger(&stats);
    if is_received && drain.all_delivered() && stats.is_balanced() && stats.refused.total() == 0 {
        println!("\nNothing was lost.");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("\nSOMETHING WAS LOST.");
        Ok(ExitCode::FAILURE)
    }
}

/// What an application logs. Nothing here waits for the network.
fn work(telemetry: &Handle) {
    let (model, tokens) = ("small", 512);
    telemetry.log("app.started", fields! { version: "1.0.0", dry_run: true });
    // Anything that implements `Serialize`.
    telemetry.log("sampled", json!({ "model": model, "tokens": tokens }));
    telemetry.log_with("cache.miss", fields! { key: "prompt" }, Severity::Debug);
    telemetry.log_with("queue.slow", fields! { depth: 12 }, Severity::Warning);
    telemetry.log_with("disk.full", (), Severity::Critical);

    let cause = io::Error::new(io::ErrorKind::TimedOut, "the disk did not respond");
    telemetry.log_exception(&CheckpointError(cause), Severity::Error);
    // A user error: an event named `user_error`, not an exception.
    telemetry.log_exception(&StatusError::new(404), Severity::Error);

    for step in 0..250 {
        let loss = 1.0 / f64::from(step + 1);
        telemetry.log("train.step", fields! { step: step, loss: loss });
    }
}

/// An error with a cause. The event contains both.
#[derive(Debug)]
struct CheckpointError(io::Error);

impl Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the checkpoint was not written")
    }
}

impl Error for CheckpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Prints what the backend received. Returns the number of events before the first gap.
fn print_received(collector: &Collector, session: &str, start: Instant) -> u64 {
    header("REQUEST", "RESPONSE");
    for request in collector.requests() {
        let after = (request.arrived() - start).as_millis();
        let response = match request.reply() {
            ReplyKind::Status(status) => status.to_string(),
            other => format!("{other:?}"),
        };
        row(format!("after {after} ms"), response, request.event_count());
    }
    let Some(session) = collector.session(session) else {
        return 0;
    };
    let mut counts = BTreeMap::new();
    for event in session.events() {
        let kind = (event.kind().as_str(), event.severity());
        *counts.entry(kind).or_insert(0) += 1;
    }
    header("RECEIVED", "SEVERITY");
    for ((kind, severity), events) in counts {
        row(kind, severity, events);
    }
    let gaps = session.gaps();
    row("gaps in their indices", "", gaps.len());
    row("duplicates", "", session.duplicates());
    gaps.first()
        .map_or(session.len() as u64, |gap| *gap.start())
}

fn print_ledger(stats: &Stats) {
    header("LEDGER", "");
    row("accepted", "", stats.accepted);
    row("= delivered", "", stats.delivered);
    row("+ handed over", "", stats.handed_over);
    row("+ dropped", "", stats.dropped.total());
    row("+ queued", "", stats.queued);
    row("refused", "", stats.refused.total());
}

fn header(what: &str, detail: &str) {
    println!();
    row(what, detail, "EVENTS");
}

fn row(what: impl Display, detail: impl Display, events: impl Display) {
    println!("{what:<24}{detail:<12}{events:>8}");
}
