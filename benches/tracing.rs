//! The cost of an event through `TelemetryLayer`, compared in one run with a direct `log` of the same fields.
//!
//! `cargo bench -p benches --bench tracing` prints a ratio for each row: the median over many rounds that
//! interleave all rows.

mod nowhere;

use core::hint::black_box;
use core::pin::pin;
use core::time::Duration;
use std::time::Instant;
use tinkex_telemetry::tracing::TelemetryLayer;
use tinkex_telemetry::{Handle, fields};
use tracing_subscriber::layer::SubscriberExt;

const EVENTS: usize = 80;
const ROUNDS: usize = 4_000;

/// The same values for every row.
fn values() -> (i64, bool, f64, &'static str) {
    black_box((1_234_567, true, 0.25, "a model with 25 letters.."))
}

#[inline(never)]
fn direct(handle: &Handle) {
    for _ in 0..EVENTS {
        let (tokens, cached, loss, model) = values();
        let data = fields! { tokens: tokens, cached: cached, loss: loss, model: model };
        assert!(handle.log("sampling.done", data));
    }
}

#[inline(never)]
fn traced() {
    for _ in 0..EVENTS {
        let (tokens, cached, loss, model) = values();
        tracing::info!(name: "sampling.done", tokens, cached, loss, model);
    }
}

fn time(work: impl Fn()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / EVENTS as f64
}

fn main() {
    // An argument sets the number of rounds: fewer are enough to count instructions.
    let rounds = std::env::args().find_map(|argument| argument.parse().ok());
    let rounds: usize = rounds.unwrap_or(ROUNDS);
    let (reporter, driver) = nowhere::session("tracing")
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let mut drain = |handle: &Handle| nowhere::drain(handle, driver.as_mut());

    let handle = reporter.handle();
    let filtered = TelemetryLayer::new(handle.clone()).filtered();
    let subscriber = tracing_subscriber::registry().with(filtered);
    tracing::subscriber::set_global_default(subscriber).expect("no subscriber is set");
    let mut rows: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        rows[0].push(time(|| direct(&handle)));
        drain(&handle);
        rows[1].push(time(traced));
        drain(&handle);
        let span = tracing::info_span!("request");
        rows[2].push(span.in_scope(|| time(traced)));
        drain(&handle);
        let inner = span.in_scope(|| tracing::info_span!("inner"));
        rows[3].push(inner.in_scope(|| time(traced)));
        drain(&handle);
    }
    assert_eq!(
        handle.stats().accepted as usize,
        1 + rows.len() * rounds * EVENTS
    );
    let [direct, traced, one, two] = rows.map(median);
    println!(
        "{:<40} {direct:>7.0} ns   1.00",
        "log(name, fields!), four fields"
    );
    for (name, nanos) in [
        ("info!(name: …, four fields)", traced),
        ("the same in a span", one),
        ("the same in two nested spans", two),
    ] {
        println!("{name:<40} {nanos:>7.0} ns   {:.2}", nanos / direct);
    }
}
