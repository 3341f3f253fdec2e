//! How fast the simulator is, one thread, with the real encoder, engine and driver.
//!
//! `cargo bench --bench simulation --features sim`

use core::time::Duration;
use std::time::Instant;
use tinkex_telemetry::sim::{Env, Sim};
use tinkex_telemetry::{Options, fields};

/// One simulated hour, ten events a second.
async fn hour(env: Env) {
    let mut options = Options::default();
    options.max_queue_size = 100_000;
    let reporter = env.reporter(options);
    for n in 0..36_000_u32 {
        assert!(reporter.log("train.step", fields! { step: n, is_last: false }));
        env.advance(Duration::from_millis(100)).await;
    }
    assert!(reporter.stop(Duration::from_secs(5)).await.all_delivered());
}

/// A thousand events, in bursts.
async fn thousand(env: Env) {
    let reporter = env.reporter(Options::default());
    for _ in 0..10 {
        for n in 0..100_u32 {
            assert!(reporter.log("train.step", fields! { step: n, is_last: false }));
        }
        env.advance(Duration::from_secs(1)).await;
    }
    assert!(reporter.stop(Duration::from_secs(5)).await.all_delivered());
}

fn measure(what: &str, seeds: u64, run: impl Fn(u64) -> u64) {
    run(u64::MAX);
    let start = Instant::now();
    let steps: u64 = (0..seeds).map(&run).sum();
    let took = start.elapsed();
    let rate = seeds as f64 / took.as_secs_f64();
    let per_step = took.as_nanos() as f64 / steps as f64;
    println!("{what:<48}{rate:>10.0} seeds/s{per_step:>10.0} ns a step");
}

fn main() {
    if let Ok(hours) = std::env::var("SIM_HOURS") {
        // For a profiler.
        let hours: u64 = hours.parse().expect("SIM_HOURS is a number");
        return (0..hours).for_each(|seed| Sim::new(seed).run(hour).assert_ok());
    }
    measure("an hour, 10 events a second", 100, |seed| {
        let report = Sim::new(seed).run(hour);
        report.assert_ok();
        report.steps
    });
    measure("1 000 events", 5_000, |seed| {
        let report = Sim::new(seed).run(thousand);
        report.assert_ok();
        report.steps
    });
    measure("workloads in a swarm of faults", 5_000, |seed| {
        let report = Sim::sweep(seed..seed + 1).run_workload();
        report.assert_ok();
        report.steps
    });
}
