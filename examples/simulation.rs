//! What does an outage look like from the inside? A simulated one, reproducible from its seed.
//!
//! `cargo run --example simulation --features sim`

use core::time::Duration;
use tinkex_telemetry::sim::{Env, Fault, Faults, Sim, seed_from_env};
use tinkex_telemetry::{Options, fields};

/// Ten minutes of an application, the first five of them on a bad network.
async fn application(env: Env) {
    let options = Options {
        max_queue_size: 20,
        flush_threshold: 10,
        ..Default::default()
    };
    let telemetry = env.reporter(options);
    for minute in 0..10_u32 {
        if minute == 5 {
            env.heal();
        }
        for _ in 0..3 {
            let accepted = telemetry.log("train.step", fields! { minute: minute });
            if !accepted {
                env.note("log() returned false");
            }
            env.advance(Duration::from_secs(20)).await;
        }
    }
    let drain = telemetry.stop(Duration::from_secs(10)).await;
    assert!(drain.is_drained());
    env.note(format_args!("{:?}", telemetry.stats()));
}

fn main() {
    let seed = seed_from_env();
    let report = Sim::new(seed)
        .faults(
            Faults::none()
                .with(Fault::Refused, 300)
                .with(Fault::ResponseLost, 150)
                .with(Fault::Status503, 300)
                .with(Fault::RetryAfterSeconds, 500),
        )
        .timeline(true)
        .run(application);
    for (at, what) in &report.timeline {
        println!("{:>8.3} s  {what}", at.as_secs_f64());
    }
    println!("seed {seed}: set TINKEX_SIM_SEED for another one");
    report.assert_ok();
}
