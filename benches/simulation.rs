//! The simulator's speed on one thread, with the real encoder, engine and driver, compared with the same hour in
//! tokio's paused time, with a transport that accepts everything and without checks.
//!
//! `cargo bench -p benches --bench simulation`

use core::time::Duration;
use std::time::Instant;
use tinkex_telemetry::sim::{Env, Sim};
use tinkex_telemetry::{Options, fields};

/// Ten events a second.
const EVENTS: u32 = 36_000;

/// The time between two events.
const PAUSE: Duration = Duration::from_millis(100);

fn options() -> Options {
    Options {
        max_queue_size: 100_000,
        ..Default::default()
    }
}

/// One simulated hour.
async fn hour(env: Env) {
    let reporter = env.reporter(options());
    for n in 0..EVENTS {
        assert!(reporter.log("train.step", fields! { step: n, is_last: false }));
        env.advance(PAUSE).await;
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

mod paused {
    use super::{EVENTS, PAUSE, options};
    use core::time::Duration;
    use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Tokio, Transport, fields};

    struct Accept;

    impl Transport for Accept {
        async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
            Ok(Receipt::delivered())
        }
    }

    /// One hour in tokio's paused time.
    pub(crate) fn hour() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.expect("a runtime").block_on(async {
            let reporter = Reporter::builder("s")
                .options(options())
                .transport(Accept)
                .runtime(Tokio)
                .enabled(true)
                .start()
                .expect("the session starts");
            for n in 0..EVENTS {
                assert!(reporter.log("train.step", fields! { step: n, is_last: false }));
                tokio::time::sleep(PAUSE).await;
            }
            assert!(reporter.stop(Duration::from_secs(5)).await.all_delivered());
        });
    }
}

/// Measures and prints the runs per second.
fn measure(what: &str, runs: u64, mut run: impl FnMut(u64)) -> f64 {
    run(u64::MAX);
    let start = Instant::now();
    (0..runs).for_each(run);
    let rate = runs as f64 / start.elapsed().as_secs_f64();
    println!("{what:<48}{rate:>10.0} seeds/s");
    rate
}

fn main() {
    if let Ok(hours) = std::env::var("SIM_HOURS") {
        // For profilers.
        let hours: u64 = hours.parse().expect("SIM_HOURS is a number");
        return (0..hours).for_each(|seed| Sim::new(seed).run(hour).assert_ok());
    }
    for _ in 0..5 {
        let ours = measure("an hour, 10 events a second", 50, |seed| {
            Sim::new(seed).run(hour).assert_ok();
        });
        let tokios = measure("  the same in tokio's paused time", 15, |_| paused::hour());
        println!("{:>59.1} times as many", ours / tokios);
    }
    measure("1 000 events", 5_000, |seed| {
        Sim::new(seed).run(thousand).assert_ok();
    });
    measure("workloads in a swarm of faults", 5_000, |seed| {
        Sim::sweep(seed..seed + 1).run_workload().assert_ok();
    });
}
