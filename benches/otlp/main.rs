//! The OTLP transport beside `opentelemetry-otlp` and `emit_otlp`, in one run: the same event into a collector of the same
//! kind, as protobuf. Rounds interleave all contestants.
//!
//! `cargo bench -p bench-otlp --profile release` compares. `-- transcode` sends nothing: for callgrind to count the
//! instructions of the transcoding, with `--toggle-collect='*otlp::request::Encoder::encode*'`.
//!
//! Each contestant has its default queue. Bursts of 2 000 events fit into all of them, and a flush follows each, so that
//! none drops any: `opentelemetry_sdk` drops what its queue of 2 048 has no room for, and `emit` clears its own.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

mod collector;
mod contestants;

use benches::cpu;
use benches::figures::median;
use bytes::Bytes;
use collector::{Collector, Counts};
use contestants::{Contestant, Emit, OpenTelemetry, Ours, Outcome};
use core::time::Duration;
use http::{Request, Response};
use std::env;
use std::time::Instant;
use tinkex_telemetry::http::HttpError;

const ROUNDS: u64 = 10;
const BURSTS: u64 = 50;
const BURST: u64 = 2_000;

fn main() -> Outcome<()> {
    if collector::is_this_process() {
        return Ok(());
    }
    if env::args().any(|word| word == "transcode") {
        return transcode();
    }
    compare()
}

struct Row {
    name: &'static str,
    contestant: Box<dyn Contestant>,
    collector: Collector,
    /// Before the first round.
    before: Counts,
    rates: Vec<f64>,
    cpu: Duration,
}

fn row<C: Contestant + 'static>(
    name: &'static str,
    start: impl FnOnce(&str) -> Outcome<C>,
) -> Outcome<Row> {
    let mut collector = Collector::start()?;
    let mut contestant = start(&collector.url)?;
    contestant.log(BURST);
    contestant.flush()?;
    Ok(Row {
        name,
        contestant: Box::new(contestant),
        before: collector.counts()?,
        collector,
        rates: Vec::new(),
        cpu: Duration::ZERO,
    })
}

fn compare() -> Outcome<()> {
    let mut rows = [
        row("opentelemetry-otlp, 512", |url| {
            OpenTelemetry::start(url, None, true)
        })?,
        row("opentelemetry-otlp, 100", |url| {
            OpenTelemetry::start(url, Some(100), true)
        })?,
        row("  without ids, 512", |url| {
            OpenTelemetry::start(url, None, false)
        })?,
        row("  without ids, 100", |url| {
            OpenTelemetry::start(url, Some(100), false)
        })?,
        row("emit_otlp", |url| Ok(Emit::start(url)))?,
        row("ours, 512", |url| Ours::start(url, 512))?,
        row("ours, 100", |url| Ours::start(url, 100))?,
    ];
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let (start, cpu) = (Instant::now(), cpu::time());
            for _ in 0..BURSTS {
                row.contestant.log(BURST);
                row.contestant.flush()?;
            }
            let rate = (BURSTS * BURST) as f64 / start.elapsed().as_secs_f64();
            row.rates.push(rate);
            row.cpu += cpu::time() - cpu;
        }
    }
    println!("{ROUNDS} rounds of {BURSTS} bursts of {BURST} events, each followed by a flush");
    println!(
        "{:<24}{:>10}{:>14}{:>9}{:>14}",
        "", "events/s", "CPU ns/event", "requests", "bytes/event"
    );
    for row in &mut rows {
        let counts = row.collector.counts()?;
        let timed = ROUNDS * BURSTS * BURST;
        let records = counts.records - row.contestant.extra_records();
        assert_eq!(records, timed + BURST, "{} has lost events", row.name);
        let cpu = row.cpu.as_nanos() as f64 / timed as f64;
        let bytes = (counts.bytes - row.before.bytes) / timed;
        let requests = counts.requests - row.before.requests;
        let rate = median(row.rates.clone());
        println!(
            "{:<24}{rate:>10.0}{cpu:>14.0}{requests:>9}{bytes:>14}",
            row.name
        );
    }
    println!("the collectors have counted every record: nothing is lost");
    let [sdk, sdk_100, bare, bare_100, emit, ours, ours_100] = &rows;
    println!("\n{:<48}{:>10}{:>8}", "", "events/s", "CPU");
    for (what, ours, rival) in [
        ("batches of 512, over opentelemetry-otlp's", ours, sdk),
        (
            "batches of 100, over opentelemetry-otlp's",
            ours_100,
            sdk_100,
        ),
        ("batches of 512, over its own without ids", ours, bare),
        (
            "batches of 100, over its own without ids",
            ours_100,
            bare_100,
        ),
        ("batches of 512, over emit_otlp", ours, emit),
        ("batches of 100, over emit_otlp", ours_100, emit),
    ] {
        let ratios = ours.rates.iter().zip(&rival.rates).map(|(a, b)| a / b);
        let cpu = ours.cpu.as_secs_f64() / rival.cpu.as_secs_f64();
        println!("{what:<48}{:>10.2}{cpu:>8.2}", median(ratios.collect()));
    }
    Ok(())
}

/// Encodes events for a collector that is not there.
fn transcode() -> Outcome<()> {
    let nowhere = async |_: Request<Bytes>| Ok::<_, HttpError>(Response::new(Bytes::new()));
    let mut ours = Ours::over(nowhere, "http://127.0.0.1:4318", 100)?;
    const EVENTS: u64 = 10_000;
    for _ in 0..EVENTS / BURST {
        ours.log(BURST);
        ours.flush()?;
    }
    println!("{EVENTS} events and a SESSION_START");
    Ok(())
}
