//! HTTP events under every fault: each request that starts ends exactly once, and the session receives both events.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::sync::Arc;
use bytes::Bytes;
use core::cell::Cell;
use core::time::Duration;
use http::{Request, Uri};
use std::sync::Mutex;
use tinkex_telemetry::bus::{Bus, Event, EventNames, HTTP_REQUEST_START};
use tinkex_telemetry::http::{HttpClient as _, HttpEvents};
use tinkex_telemetry::session::Entropy;
use tinkex_telemetry::sim::{Env, Faults, Sim};
use tinkex_telemetry::{Config, HttpTransport, Options, Reporter};

/// The requests of a run, as the bus reports them.
#[derive(Default)]
struct Tally {
    open: u32,
    started: u64,
    /// The kinds of ends that occurred.
    ends: BTreeSet<String>,
}

/// Sends requests one after another, with retries and timeouts, through a network with every fault. They come from a
/// session whose transport hides that they are a reporter's own.
async fn requests(env: &Env, events: &HttpEvents) {
    let client = events.wrap(env.server().http());
    let disguised = move |request: Request<Bytes>| {
        let mut client = client.clone();
        async move {
            let (mut parts, body) = request.into_parts();
            parts.extensions.clear();
            parts.uri = Uri::from_static("http://simulated.invalid/x?secret");
            client.send(Request::from_parts(parts, body)).await
        }
    };
    let config = Config::new("http://simulated.invalid", "key").expect("a config");
    let app = Reporter::builder("app")
        .transport(HttpTransport::new(config, disguised))
        .clock(env.clock())
        .spawner(env.spawner())
        .bus(Bus::new())
        .entropy(Entropy::new([7; 32]))
        .process_uuid(None)
        .http_timeout(Duration::from_millis(15 + env.random(500)))
        .retry_base_delay(Duration::from_millis(1))
        .enabled(true)
        .start()
        .expect("it starts");
    for _ in 0..30 {
        app.log("x", ());
        app.flush();
        env.advance(Duration::from_millis(env.random(1_000))).await;
    }
    env.heal();
    let _ = app.stop(Duration::from_secs(600)).await;
    // Let the driver finish, too.
    env.advance(Duration::from_secs(1)).await;
}

async fn scenario(env: Env, total: Arc<Mutex<BTreeSet<String>>>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let shared = Arc::clone(&tally);
    let attached = env.bus().attach_many("tally", EventNames::AUTOMATIC, {
        move |event: &Event<'_>| {
            let mut tally = shared.lock().expect("not poisoned");
            if event.name() == HTTP_REQUEST_START {
                assert_eq!(tally.open, 0, "the previous request has ended");
                tally.open += 1;
                tally.started += 1;
            } else {
                assert_eq!(tally.open, 1, "each end has its own start");
                tally.open -= 1;
                let end = event.metadata().str("kind").unwrap_or("stop");
                tally.ends.insert(end.into());
                let lasted = event.measurements().u64("duration").expect("a number");
                assert!(
                    lasted.is_multiple_of(1_000),
                    "simulated time is in whole microseconds"
                );
            }
        }
    });
    attached.expect("the id is free");
    let options = Options {
        max_retries: 1_000,
        ..Default::default()
    };
    let session = env.reporter(options);
    requests(&env, &HttpEvents::new(&session)).await;

    let tally = tally.lock().expect("not poisoned");
    // Still attached: a failed assertion in the handler would have detached it.
    assert!(env.bus().detach("tally"));
    assert_eq!(tally.open, 0);
    assert!(tally.started > 0);
    // `SESSION_START`, and a start and an end for each request.
    let stats = session.stats();
    assert_eq!(
        stats.accepted - stats.reports + stats.refused.total(),
        1 + 2 * tally.started
    );
    let mut total = total.lock().expect("not poisoned");
    total.extend(tally.ends.iter().cloned());
}

#[test]
fn each_start_has_exactly_one_end_whatever_the_network_does() {
    let ends = Arc::new(Mutex::new(BTreeSet::new()));
    for seed in 0..300 {
        let ends = Arc::clone(&ends);
        let sim = Sim::new(seed).faults(Faults::swarm());
        sim.run(|env| scenario(env, ends)).assert_ok();
    }
    let ends: Vec<_> = ends.lock().expect("not poisoned").iter().cloned().collect();
    assert_eq!(ends, ["cancelled", "error", "panic", "stop"]);
}

#[test]
fn every_run_of_a_seed_emits_the_same_events() {
    let report = Sim::sweep(0..100)
        .check_determinism()
        .run(|env| scenario(env, Arc::default()));
    report.assert_ok();
}

#[test]
fn a_simulated_session_uses_the_bus_of_its_own_run() {
    let seen = Rc::new(Cell::new(0));
    for seed in 0..2 {
        let seen = Rc::clone(&seen);
        let run = async move |env: Env| {
            let _first = env.reporter(Options::default());
            let _second = env.reporter(Options::default());
            let sessions = env.bus().list().into_iter().map(|one| one.handler_id);
            assert_eq!(
                sessions.collect::<Vec<_>>(),
                ["tinkex-telemetry-s0", "tinkex-telemetry-s1"]
            );
            seen.set(seen.get() + 1);
        };
        Sim::new(seed).run(run).assert_ok();
    }
    assert_eq!(seen.get(), 2);
}
