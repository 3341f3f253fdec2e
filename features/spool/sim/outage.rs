//! An hour without a backend: what it costs, and how soon what is left has been sent.

use super::faults::{Fault, Faults};
use super::plan::Director;
use super::process::Setup;
use super::run;
use super::stage::Stage;
use super::world::SECOND;
use crate::features::spool::pace::Pace;
use crate::features::spool::stats::SpoolStats;
use crate::features::spool::writer::Sync;
use alloc::vec::Vec;
use core::time::Duration;
use std::println;

/// What a session has logged, the spool's ledger at the end of the outage and in the end, and when requests arrived after
/// the first that was accepted.
struct Outage {
    logged: u64,
    before: SpoolStats,
    after: SpoolStats,
    requests: Vec<u64>,
}

/// Logs so many events a second for so many seconds, in which the backend answers 503; then it accepts all.
fn outage(per_second: u64, seconds: u64) -> Outage {
    let world = run::world(1, Faults::none().with(Fault::Busy, 1_000));
    let (stage, _set) = Stage::new(world.clone());
    let setup = Setup {
        max_bytes: 256 << 20,
        max_age: Duration::from_secs(14 * 86_400),
        sync: Sync::OnStop,
    };
    let director = Director::new(stage, setup);
    let process = director.start(0, 0).expect("a spool");
    process.open(0, "session".into());
    process.with_session(0, |session| session.most = 100);
    for second in 1..=seconds {
        process.with_session(0, |session| {
            for _ in 0..per_second {
                session.log("GENERIC_EVENT", 50, false);
            }
        });
        director.stage.run_until(second * SECOND);
    }
    let before = process.inner.shared.stats();
    let mut core = world.lock();
    core.faults = Faults::none();
    core.requests = Some(Vec::new());
    let healed = core.now;
    drop(core);
    let is_over = |_: &Stage| process.inner.shared.stats().pending == 0;
    let is_sent = director.stage.run_while(healed + 600 * SECOND, is_over);
    let after = process.inner.shared.stats();
    assert!(is_sent, "{after:?}");
    let mut core = world.lock();
    assert_eq!(core.failure, None);
    let is_once = core.book.events.iter().all(|event| event.received == 1);
    assert!(is_once, "each event has arrived, and once");
    Outage {
        logged: core.book.events.len() as u64,
        before,
        after,
        requests: core.requests.take().unwrap_or_default(),
    }
}

#[test]
fn an_hour_without_a_backend_costs_no_event_at_any_rate() {
    println!(
        "| events a second | logged | on disk after the hour | delivered | dropped | sent in |"
    );
    println!("|---|---|---|---|---|---|");
    // With a hundred a second an hour takes a minute of the test's time: the variable asks for it.
    let whole = std::env::var_os("TINKEX_SPOOL_HOUR").is_some();
    for (per_second, seconds) in [
        (1, 3_600),
        (10, 3_600),
        (100, if whole { 3_600 } else { 360 }),
    ] {
        let Outage {
            logged,
            before,
            after,
            requests,
        } = outage(per_second, seconds);
        let (stored, pending, delivered) = (after.stored, before.pending, after.delivered);
        let dropped = logged - delivered;
        let took = requests.last().unwrap_or(&0) - requests.first().unwrap_or(&0);
        let took = took as f64 / SECOND as f64;
        println!("| {per_second} | {logged} | {pending} | {delivered} | {dropped} | {took:.1} s |");
        assert!(after.is_balanced(), "{after:?}");
        assert_eq!((stored, delivered, dropped), (logged, logged, 0));
        assert_eq!((after.evicted, after.straight, after.late), (0, 0, 0));
        // A tenth of the time that it would take at the slowest pace.
        assert!(took < 10.0, "{took} s");
    }
}

#[test]
fn what_an_outage_leaves_is_sent_slowly_at_first_and_never_all_at_once() {
    let requests = outage(100, 120).requests;
    let micros = |pause: Duration| u64::try_from(pause.as_micros()).expect("in range");
    let pauses: Vec<_> = requests.windows(2).map(|two| two[1] - two[0]).collect();
    let quickest = micros(Pace::QUICKEST);
    assert!(pauses.len() > 100 && pauses.iter().all(|it| *it >= quickest));
    let slow = pauses.iter().take(4);
    assert!(
        slow.clone().all(|it| *it > micros(Pace::SLOWEST) / 2),
        "{pauses:?}"
    );
    assert!(pauses.contains(&quickest), "{pauses:?}");
}
