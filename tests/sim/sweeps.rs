//! Many seeds: nothing is found, everything is reached, and every run can be repeated.

use std::collections::HashSet;
use std::env;
use tinkex_telemetry::sim::{Fault, Faults, Sim, Workload, coverage};

/// `TINKEX_SIM_SEEDS` of them, or a few: `ci/sweep` runs as many as one likes.
fn count() -> u64 {
    let count = env::var("TINKEX_SIM_SEEDS").ok();
    count.map_or(2_000, |count| count.parse().expect("a number of seeds"))
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
fn two_runs_of_a_seed_go_the_same_way() {
    Sim::sweep(0..300)
        .check_determinism()
        .run_workload()
        .assert_ok();
}

/// Recorded once; a build with other optimizations, or another machine, must come to the same.
#[test]
fn a_seed_goes_the_same_way_in_every_build() {
    const SEEDS: u64 = 200;
    let traces = (0..SEEDS).map(|seed| {
        let workload = Workload::draw(seed);
        let sim = Sim::new(seed).faults(Faults::swarm());
        sim.run(|env| workload.run(env)).trace
    });
    let all = traces.fold(0_u64, |all, trace| all.rotate_left(7) ^ trace);
    assert_eq!(all, RECORDED, "{all:#x}");
}

/// Changes whenever the engine, the driver or the simulator takes another step than before: record it anew then.
const RECORDED: u64 = 0x5bca_9f01_5de6_984f;

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
        happened.extend(report.faults.iter().filter(|fault| is_of_the_run(*fault)));
    }
    let missing: Vec<_> = Fault::ALL
        .iter()
        .filter(|fault| !happened.contains(fault))
        .collect();
    assert_eq!(missing, Vec::<&Fault>::new());
}

/// Those that are drawn once, before anything happens.
fn is_of_the_run(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::MonotonicEnd | Fault::Epoch1970 | Fault::Year2038
    )
}
