//! The cost of `log` to its caller, compared in one run with `serde_json::to_writer` of the same event as a prepared
//! struct (with id and timestamp) into a reused `Vec`.
//!
//! `cargo bench -p benches --bench hot_path` prints a ratio for each row: the median over many rounds that interleave
//! all rows. The figures of `log` include everything it does: clock, id, lock, ring.

mod nowhere;

use core::hint::black_box;
use core::pin::pin;
use core::time::Duration;
use serde::Serialize;
use std::time::Instant;
use tinkex_telemetry::{Handle, fields};

const EVENTS: usize = 100;
const ROUNDS: usize = 4_000;

#[derive(Serialize)]
struct Data<'a> {
    tokens: i64,
    cached: bool,
    model: &'a str,
}

const DATA: Data<'_> = Data {
    tokens: 1_234_567,
    cached: true,
    model: "a model with 25 letters..",
};

/// The event on the wire, prepared.
#[derive(Serialize)]
struct Ready<'a> {
    event: &'a str,
    event_id: &'a str,
    event_session_index: u64,
    severity: &'a str,
    timestamp: &'a str,
    event_name: &'a str,
    event_data: Data<'a>,
}

fn time(work: impl Fn()) -> Duration {
    let start = Instant::now();
    for _ in 0..EVENTS {
        work();
    }
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / EVENTS as f64
}

fn main() {
    let (reporter, driver) = nowhere::session("hot-path")
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let mut drain = |handle: &Handle| nowhere::drain(handle, driver.as_mut());

    let handle = reporter.handle();
    let mut buffer = Vec::with_capacity(4_096);
    let ready = || Ready {
        event: "GENERIC_EVENT",
        event_id: "0b7ae1d4-66a7-4e7e-a9b1-1f3a42ca3d5b",
        event_session_index: black_box(123_456),
        severity: "INFO",
        timestamp: "2026-01-02T03:04:05.678901Z",
        event_name: black_box("sampling.done"),
        event_data: black_box(DATA),
    };
    let part = handle.with(fields! { request_id: 42, user: "ada", shard: 7 });
    let mut rows: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let buffer = core::cell::RefCell::new(&mut buffer);
        rows[0].push(time(|| {
            let mut buffer = buffer.borrow_mut();
            buffer.clear();
            serde_json::to_writer(&mut **buffer, &ready()).expect("the event can be encoded");
            black_box(&**buffer);
        }));
        rows[1].push(time(|| {
            assert!(handle.log(black_box("sampling.done"), black_box(DATA)));
        }));
        drain(&handle);
        rows[2].push(time(|| {
            let data = black_box(DATA);
            assert!(handle.log(
                black_box("sampling.done"),
                fields! { tokens: data.tokens, cached: data.cached, model: data.model },
            ));
        }));
        drain(&handle);
        rows[3].push(time(|| {
            let data = black_box(DATA);
            assert!(part.log(
                black_box("sampling.done"),
                fields! { tokens: data.tokens, cached: data.cached, model: data.model },
            ));
        }));
        drain(&handle);
    }
    let [json, structs, fields, context] = rows.map(median);
    println!("events in total: {}", handle.stats().accepted);
    println!(
        "{:<40} {json:>7.0} ns   1.00",
        "serde_json::to_writer, prepared struct"
    );
    for (name, nanos) in [
        ("log(name, struct)", structs),
        ("log(name, fields!)", fields),
        ("the same with a context of three fields", context),
    ] {
        println!("{name:<40} {nanos:>7.0} ns   {:.2}", nanos / json);
    }
}
