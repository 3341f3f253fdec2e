//! What does an hour without the backend cost? Simulated: by default and with `GiveUp::WhenFull`, at several rates.
//!
//! `cargo run --example outage --features sim`

use core::time::Duration;
use tinkex_telemetry::sim::{Env, Faults, Reply, Sim};
use tinkex_telemetry::{GiveUp, Options, fields};

/// An hour in which the backend does this, while so many events a second are logged.
#[derive(Clone)]
struct Outage {
    name: &'static str,
    reply: Reply,
    per_second: u32,
    give_up: GiveUp,
}

/// Logs through the outage, gives the session two minutes after it, and prints what has become of the events.
async fn outage(env: Env, outage: Outage) {
    let Outage {
        name,
        reply,
        per_second,
        give_up,
    } = outage;
    let options = Options {
        give_up,
        ..Default::default()
    };
    let telemetry = env.reporter(options);
    let (id, server) = (telemetry.session_id().unwrap_or_default(), env.server());
    server.always(reply);
    for second in 0..3_600_u32 {
        for _ in 0..per_second {
            telemetry.log("train.step", fields! { second: second });
        }
        env.advance(Duration::from_secs(1)).await;
    }
    let requests = server.requests(id);
    env.heal();
    let drain = telemetry.wait_until_drained(Duration::from_secs(120)).await;
    assert!(drain.is_drained());
    let stats = telemetry.stats();
    // One of them is the start of the session.
    let logged = stats.accepted + stats.refused.total();
    let delivered = stats.delivered;
    let retries = stats.dropped.retries_exhausted;
    let full = stats.refused.queue_full;
    assert_eq!(logged, delivered + retries + full, "these are all reasons");
    println!(
        "| {name} | {per_second} | `{give_up:?}` | {logged} | {delivered} | {retries} | {full} | {requests} |"
    );
}

fn main() {
    println!(
        "| an hour of | a second | `give_up` | logged | delivered | dropped: `retries_exhausted` | refused: `queue_full` | requests in it |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, reply, per_second) in [
        ("503", Reply::status(503), 1),
        ("503", Reply::status(503), 10),
        ("503", Reply::status(503), 100),
        ("no response", Reply::stall(), 1),
        ("502 from a proxy", Reply::status(502), 1),
    ] {
        for give_up in [GiveUp::AfterRetries, GiveUp::WhenFull] {
            let hour = Outage {
                name,
                reply: reply.clone(),
                per_second,
                give_up,
            };
            Sim::new(1)
                .faults(Faults::none())
                .run(|env| outage(env, hour))
                .assert_ok();
        }
    }
}
