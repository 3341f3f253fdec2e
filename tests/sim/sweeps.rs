//! Many seeds: no failure is found, everything is reached, and every run is reproducible.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use tinkex_telemetry::sim::{Fault, Faults, Sim, Workload, coverage};

/// The number of seeds: `TINKEX_SIM_SEEDS`, which `ci/sweep` sets, or a few.
fn count() -> u64 {
    let count = env::var_os("TINKEX_SIM_SEEDS");
    let number = |count: OsString| count.to_str().and_then(|count| count.parse().ok());
    count.map_or(2_000, |count| number(count).expect("a number of seeds"))
}

fn known() -> impl Iterator<Item = u64> {
    let lines = include_str!("seeds.txt").lines();
    let seeds = lines.filter(|line| !line.starts_with('#'));
    seeds.map(|seed| seed.trim().parse().expect("a seed"))
}

#[test]
fn a_sweep_finds_nothing_and_reaches_everything() {
    let sweep = Sim::sweep(0..count()).first(known()).jobs(2).shrink();
    let report = sweep.run_workload();
    println!("{report}");
    report.assert_ok();
    assert_eq!(report.never_reached(), Vec::<&str>::new());
    assert!(coverage().len() >= 40, "{}", coverage().len());
}

#[test]
fn two_runs_of_a_seed_are_identical() {
    Sim::sweep(0..300)
        .check_determinism()
        .run_workload()
        .assert_ok();
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let backwards = core::ops::Range { start: 5, end: 3 };
    for (sweep, runs) in [
        (Sim::sweep(backwards.clone()), 0),
        (Sim::sweep(backwards).first([7]).jobs(2), 1),
        (Sim::sweep(u64::MAX - 1..u64::MAX), 1),
    ] {
        let report = sweep.run(|_| async {});
        report.assert_ok();
        assert_eq!(report.runs, runs);
    }
}

/// Recorded once: other optimization levels and other machines must produce the same trace.
#[test]
fn a_seed_runs_identically_in_every_build() {
    const SEEDS: u64 = 200;
    let traces = (0..SEEDS).map(|seed| {
        let workload = Workload::draw(seed);
        let sim = Sim::new(seed).faults(Faults::swarm());
        sim.run(|env| workload.run(env)).trace
    });
    let all = traces.fold(0_u64, |all, trace| all.rotate_left(7) ^ trace);
    assert_eq!(all, RECORDED, "{all:#x}");
}

/// Changes whenever the engine, the driver or the simulator takes a different step: then record it again.
const RECORDED: u64 = 0x64b7_ee41_b1f5_7a8c;

#[test]
fn every_fault_happens() {
    assert!(Fault::ALL.len() >= 30);
    let mut happened = HashSet::new();
    for seed in 0..1_000 {
        let workload = Workload::draw(seed);
        let sim = Sim::new(seed).faults(Faults::swarm());
        let report = sim.run(|env| workload.run(env));
        report.assert_ok();
        happened.extend(report.happened.iter().map(|(fault, _)| *fault));
        happened.extend(report.faults.iter().filter(|fault| is_drawn_once(*fault)));
    }
    let missing: Vec<_> = Fault::ALL
        .iter()
        .filter(|fault| !happened.contains(fault) && !is_of_a_disk(**fault))
        .collect();
    assert_eq!(missing, Vec::<&Fault>::new());
}

/// The faults of a disk, which these runs do not have: those of `spools` do.
pub(crate) fn is_of_a_disk(fault: Fault) -> bool {
    let others = Fault::ALL
        .iter()
        .position(|it| *it == Fault::ServerClockOff);
    let at = Fault::ALL.iter().position(|it| *it == fault);
    at > others
}

/// The faults that are drawn once, before the run.
fn is_drawn_once(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::MonotonicEnd | Fault::Epoch1970 | Fault::Year2038
    )
}
