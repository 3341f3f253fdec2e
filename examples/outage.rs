//! What does an hour without the backend cost? Simulated: one event a second, by default and with `GiveUp::WhenFull`.
//!
//! `cargo run --example outage --features sim`

use core::time::Duration;
use tinkex_telemetry::sim::{Env, Faults, Reply, Sim};
use tinkex_telemetry::{GiveUp, Options, fields};

/// Logs through the outage, gives the session two minutes after it, and prints what has become of the events.
async fn outage(env: Env, name: &str, reply: Reply, give_up: GiveUp) {
    let options = Options {
        give_up,
        ..Default::default()
    };
    let telemetry = env.reporter(options);
    let (id, server) = (telemetry.session_id().unwrap_or_default(), env.server());
    server.always(reply);
    for second in 0..3_600_u32 {
        telemetry.log("train.step", fields! { second: second });
        env.advance(Duration::from_secs(1)).await;
    }
    let requests = server.requests(id);
    env.heal();
    let drain = telemetry.wait_until_drained(Duration::from_secs(120)).await;
    assert!(drain.is_drained());
    let stats = telemetry.stats();
    let (dropped, refused) = (stats.dropped.total(), stats.refused.total());
    // One of them is the start of the session.
    let logged = stats.accepted + refused;
    let delivered = stats.delivered;
    println!(
        "| {name} | `{give_up:?}` | {logged} | {delivered} | {dropped} | {refused} | {requests} |"
    );
}

fn main() {
    println!(
        "| an hour of | `give_up` | logged | delivered | dropped | refused | requests in it |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, reply) in [
        ("503", Reply::status(503)),
        ("no response", Reply::stall()),
        ("502 from a proxy", Reply::status(502)),
    ] {
        for give_up in [GiveUp::AfterRetries, GiveUp::WhenFull] {
            let reply = reply.clone();
            Sim::new(1)
                .faults(Faults::none())
                .run(|env| outage(env, name, reply, give_up))
                .assert_ok();
        }
    }
}
