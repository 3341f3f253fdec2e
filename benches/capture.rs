//! The cost of capture, on success and on failure.
//!
//! `cargo bench -p benches --bench capture` prints how much longer a captured block takes than the same block without
//! capture: the median over many rounds that interleave all rows.

mod nowhere;

use core::future::Future;
use core::hint::black_box;
use core::num::ParseIntError;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::env;
use std::process::{Command, exit};
use std::time::Instant;
use tinkex_telemetry::{Handle, Severity, capture};

const CALLS: usize = 1_000;
const ROUNDS: usize = 2_000;

#[inline(never)]
fn work(n: u64) -> Result<u64, ParseIntError> {
    Ok(black_box(n).wrapping_mul(31))
}

#[inline(never)]
fn number(n: u64) -> u64 {
    black_box(n).wrapping_mul(31)
}

fn fail() -> Result<u64, ParseIntError> {
    black_box("x").parse()
}

fn ready<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the future never waits"),
    }
}

fn time(calls: usize, mut work: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    for n in 0..calls as u64 {
        work(n);
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn asks_for_stacks(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|wish| wish != "0")
}

/// Runs this program again without stack traces: they would dominate the cost of each exception, and a process reads the
/// setting only once.
fn without_stacks() {
    let program = env::current_exe().expect("the path of this program");
    let status = Command::new(program)
        .args(env::args_os().skip(1))
        .env("RUST_BACKTRACE", "0")
        .env("RUST_LIB_BACKTRACE", "0")
        .status();
    exit(status.expect("the program runs").code().unwrap_or(1));
}

fn main() {
    if asks_for_stacks("RUST_BACKTRACE") || asks_for_stacks("RUST_LIB_BACKTRACE") {
        return without_stacks();
    }
    let (reporter, driver) = nowhere::session("capture")
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let mut drain = |handle: &Handle| nowhere::drain(handle, driver.as_mut());
    let handle = reporter.handle();
    let off = Handle::off();
    if let Some(row) = env::var_os("CAPTURE_ROW") {
        // For a profiler, which counts instructions: a thousand calls, of which the plain ones are row 0.
        let row = row.to_str().and_then(|row| row.parse().ok());
        return for n in 0..1_000 {
            match row {
                Some(0) => drop(black_box(work(n))),
                Some(1) => drop(black_box(capture!(reporter = handle, { work(n) }))),
                Some(2) => drop(black_box(handle.capture().run(|| work(n)))),
                Some(3) => drop(black_box(capture!(reporter = off, { work(n) }))),
                _ => panic!("CAPTURE_ROW must be 0 to 3"),
            }
        };
    }
    let names = [
        "capture! of a block, a number",
        "catch_unwind of the same",
        "catch_unwind of a Result, which is copied",
        "capture! of the same",
        "Handle::capture().run",
        "capture! without a session",
        "capture! of a future",
        "capture! of an Err",
        "log_exception of the same",
    ];
    let mut rows: [Vec<f64>; 9] = Default::default();
    for _ in 0..ROUNDS {
        let plain = time(CALLS, |n| {
            let _ = black_box(work(n));
        });
        let plain_future = time(CALLS, |n| drop(black_box(ready(async { work(n) }))));
        let plain_number = time(CALLS, |n| {
            let _ = black_box(number(n));
        });
        let times = [
            time(CALLS, |n| {
                let _ = black_box(capture!(reporter = handle, { number(n) }));
            }) - plain_number,
            time(CALLS, |n| {
                let _ = black_box(std::panic::catch_unwind(|| number(n)));
            }) - plain_number,
            time(CALLS, |n| {
                let _ = black_box(std::panic::catch_unwind(|| work(n)));
            }) - plain,
            time(CALLS, |n| {
                let _ = black_box(capture!(reporter = handle, { work(n) }));
            }) - plain,
            time(CALLS, |n| {
                let _ = black_box(handle.capture().run(|| work(n)));
            }) - plain,
            time(CALLS, |n| {
                let _ = black_box(capture!(reporter = off, { work(n) }));
            }) - plain,
            time(CALLS, |n| {
                let _ = black_box(ready(capture!(reporter = handle, async { work(n) })));
            }) - plain_future,
            time(100, |_| {
                let _ = black_box(capture!(reporter = handle, { fail() }));
            }),
            {
                drain(&handle);
                time(100, |_| {
                    let error = fail().expect_err("not a number");
                    black_box(handle.log_exception(&error, Severity::Error));
                })
            },
        ];
        drain(&handle);
        for (row, time) in rows.iter_mut().zip(times) {
            row.push(time);
        }
    }
    for (name, row) in names.into_iter().zip(rows) {
        println!("{name:<40}{:>8.1} ns", median(row));
    }
}
