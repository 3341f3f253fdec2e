//! Sessions whose events go through a spool, on a disk that fails.

use crate::sweeps::is_of_a_disk;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;
use std::collections::HashSet;
use tinkex_telemetry::sim::{Env, Fault, Faults, Reply, Sim, SimSpoolReporter};
use tinkex_telemetry::spool::{Spool, Sync};
use tinkex_telemetry::{Options, fields};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn begin(env: &Env, sync: Sync) -> Spool {
    let builder = env.spool("telemetry").sync(sync);
    builder.start().expect("a spool")
}

async fn log(env: &Env, reporter: &SimSpoolReporter, count: u32) {
    for n in 0..count {
        assert!(reporter.log("step", fields! { n: n }));
    }
    reporter.flush();
    env.advance(secs(1)).await;
}

#[test]
fn what_was_on_disk_at_a_crash_in_an_outage_is_sent_by_the_next_process() {
    Sim::new(1)
        .run(|env| async move {
            env.server().always(Reply::status(503));
            let spool = begin(&env, Sync::OnStop);
            let reporter = env.reporter_in(&spool, Options::default());
            log(&env, &reporter, 30).await;
            let stats = reporter.stats();
            assert_eq!((stats.handed_over, stats.delivered), (31, 0));
            env.crash();
            env.advance(secs(1)).await;
            assert!(!reporter.stats().driver_alive);
            assert_eq!(env.server().events("s0"), 0);

            env.heal();
            let spool = begin(&env, Sync::OnStop);
            let left = spool.wait_until_delivered(secs(60)).await;
            let stats = spool.stats();
            assert!(left.is_empty() && stats.recovered == 31, "{stats:?}");
            assert_eq!(stats.delivered, 31);
            assert_eq!(env.server().events("s0"), 31);
        })
        .assert_ok();
}

/// How many of the events are at the server when the power has failed and come back.
fn after_a_power_cut(seed: u64, sync: Sync) -> u64 {
    let events = Rc::new(Cell::new(0));
    let found = Rc::clone(&events);
    Sim::new(seed)
        .run(move |env| async move {
            env.server().always(Reply::status(503));
            let spool = begin(&env, sync);
            let reporter = env.reporter_in(&spool, Options::default());
            log(&env, &reporter, 30).await;
            env.advance(secs(10)).await;
            assert_eq!(reporter.stats().handed_over, 31);
            env.power_cut();
            env.advance(secs(1)).await;
            env.heal();
            let spool = begin(&env, sync);
            env.advance(secs(600)).await;
            assert_eq!(spool.stats().pending, 0);
            found.set(env.server().events("s0"));
        })
        .assert_ok();
    events.get()
}

#[test]
fn a_power_cut_costs_what_was_not_synced_and_nothing_else() {
    let synced = Sync::Every(secs(2));
    assert!((0..30).all(|seed| after_a_power_cut(seed, synced) == 31));
    let left: BTreeSet<_> = (0..30)
        .map(|seed| after_a_power_cut(seed, Sync::Never))
        .collect();
    assert!(
        left.len() > 1 && left.iter().all(|it| *it <= 31),
        "{left:?}"
    );
}

#[test]
fn a_full_disk_costs_nothing_while_the_backend_is_there() {
    Sim::new(1)
        .run(|env| async move {
            let spool = begin(&env, Sync::OnStop);
            let reporter = env.reporter_in(&spool, Options::default());
            log(&env, &reporter, 5).await;
            assert_eq!(env.server().events("s0"), 6);
            env.disk().set_full(true);
            log(&env, &reporter, 20).await;
            env.advance(secs(30)).await;
            let stats = spool.stats();
            assert!(stats.straight >= 20 && stats.pending == 0, "{stats:?}");
            assert_eq!(env.server().events("s0"), 26);
            env.disk().set_full(false);
            env.advance(secs(61)).await;
            log(&env, &reporter, 1).await;
            assert_eq!(
                spool.stats().straight,
                stats.straight,
                "it is written again"
            );
            assert!(reporter.stop(secs(5)).await.all_safe());
        })
        .assert_ok();
}

#[test]
fn a_stop_ends_in_time_although_the_disk_hangs() {
    Sim::new(1)
        .run(|env| async move {
            let spool = begin(&env, Sync::OnStop);
            let reporter = env.reporter_in(&spool, Options::default());
            log(&env, &reporter, 5).await;
            env.disk().stall(secs(3_600));
            for n in 0..20_u32 {
                reporter.log("late", fields! { n: n });
            }
            let start = env.now();
            let drain = reporter.stop(secs(2)).await;
            assert_eq!(env.now().saturating_duration_since(start), secs(2));
            assert!(drain.handed_over == 0 && !drain.all_safe(), "{drain:?}");
            // The driver learns of it a moment later.
            env.advance(Duration::from_millis(1)).await;
            assert_eq!(reporter.stats().dropped.total(), 21);
            assert_eq!(spool.stats().stalled, 21);
            env.disk().stall(Duration::ZERO);
            env.advance(secs(1)).await;
            let stats = spool.stats();
            assert_eq!((stats.stalled, stats.late, stats.pending), (0, 0, 0));
            assert_eq!(env.server().events("s0"), 6);
        })
        .assert_ok();
}

#[test]
fn damage_to_a_file_costs_what_it_hits_and_is_counted() {
    let sweep = Sim::sweep(0..60).faults(Faults::none());
    let report = sweep.run(|env| async move {
        env.server().always(Reply::status(503));
        let spool = begin(&env, Sync::OnStop);
        let reporter = env.reporter_in(&spool, Options::default());
        log(&env, &reporter, 30).await;
        env.disk().flip_bit().expect("a file");
        env.disk().zero_sector().expect("a file");
        env.crash();
        env.advance(secs(1)).await;
        env.heal();
        let spool = begin(&env, Sync::OnStop);
        env.advance(secs(600)).await;
        let stats = spool.stats();
        assert_eq!(stats.pending, 0, "{stats:?}");
        assert!(
            env.server().events("s0") + stats.unreadable <= 31,
            "{stats:?}"
        );
    });
    report.assert_ok();
}

/// A program that logs through a spool, crashes, and begins again.
async fn program(env: Env) {
    for _ in 0..4 {
        let Ok(spool) = env.spool("telemetry").sync(Sync::Every(secs(5))).start() else {
            // The disk is full, say.
            env.advance(secs(600)).await;
            continue;
        };
        let reporter = env.reporter_in(&spool, Options::default());
        for n in 0..40_u32 {
            reporter.log("step", fields! { n: n });
            env.advance(Duration::from_millis(env.random(4_000))).await;
        }
        match env.random(4) {
            0 => env.crash(),
            1 => env.power_cut(),
            _ => {
                let _ = reporter.stop(secs(5)).await;
                let _ = spool.wait_until_delivered(secs(20)).await;
            }
        }
        env.advance(secs(1)).await;
    }
}

#[test]
fn a_sweep_with_spools_finds_nothing_and_every_fault_of_a_disk_happens() {
    let report = Sim::sweep(0..300).jobs(2).run(program);
    report.assert_ok();
    let mut happened = HashSet::new();
    for seed in 0..100 {
        let report = Sim::new(seed).faults(Faults::swarm()).run(program);
        happened.extend(report.happened.iter().map(|(fault, _)| *fault));
    }
    let faults = Fault::ALL.iter().filter(|fault| is_of_a_disk(**fault));
    let missing: Vec<_> = faults.filter(|fault| !happened.contains(*fault)).collect();
    assert_eq!(missing, Vec::<&Fault>::new());
}

#[test]
fn a_scenario_with_a_spool_is_the_same_each_time() {
    let report = Sim::sweep(0..60).check_determinism().run(program);
    report.assert_ok();
    let trace = |seed| Sim::new(seed).faults(Faults::swarm()).run(program).trace;
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_scenario_sees_the_files_on_its_disk() {
    Sim::new(1)
        .run(|env| async move {
            assert!(env.disk().files().is_empty());
            assert_eq!(env.disk().flip_bit(), None);
            let spool = begin(&env, Sync::OnStop);
            assert_eq!(spool.path().file_name(), Some("telemetry".as_ref()));
            let files = env.disk().files();
            let readme = files.iter().find(|path| path.ends_with("README"));
            let text = env
                .disk()
                .read(readme.expect("a file"))
                .expect("it is there");
            assert!(text.starts_with(b"Telemetry events"));
            env.disk().remove_dir("telemetry");
            assert!(env.disk().files().is_empty());
            let reporter = env.reporter_in(&spool, Options::default());
            log(&env, &reporter, 3).await;
            assert!(!env.disk().files().is_empty(), "it is made again");
        })
        .assert_ok();
}
