//! Shrinking a failure: fewer faults and fewer operations that still fail.

use super::faults::{Fault, Faults};
use super::op::Op;
use super::report::Report;
use super::rng::Rng;
use super::run::Sim;
use super::workload::Workload;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::discriminant;

/// Whether both runs failed with the same kind of failure.
fn fails_alike(report: &Report, original: &Report) -> bool {
    match (&report.failure, &original.failure) {
        (Some(found), Some(original)) => discriminant(found) == discriminant(original),
        _ => false,
    }
}

/// The faults that a failure needs, as code.
pub(super) fn faults(sim: &Sim, failure: &Report, run: impl Fn(&Sim) -> Report) -> String {
    let faults = fewer_faults(sim, failure, &run);
    format!("{}.faults({})", sim_code(sim), faults_code(&faults))
}

/// The faults and the operations that a failure of a workload needs, as code.
pub(super) fn workload(sim: &Sim, failure: &Report) -> String {
    let mut workload = Workload::draw(sim.seed);
    let run_ops = |sim: &Sim, ops: &[Op]| {
        let workload = Workload {
            ops: ops.to_vec(),
            ..Workload::draw(sim.seed)
        };
        sim.run(|env| workload.run(env))
    };
    let fails = |sim: &Sim, ops: &[Op]| fails_alike(&run_ops(sim, ops), failure);
    let mut sim = sim.clone();
    loop {
        let before = (sim.faults.clone(), workload.ops.len());
        sim.faults = fewer_faults(&sim, failure, &|sim| run_ops(sim, &workload.ops));
        workload.ops = fewer_ops(workload.ops, |ops| fails(&sim, ops));
        if before == (sim.faults.clone(), workload.ops.len()) {
            break;
        }
    }
    format!(
        "{}.faults({}) with the operations {:?}",
        sim_code(&sim),
        faults_code(&sim.faults),
        workload.ops
    )
}

fn sim_code(sim: &Sim) -> String {
    format!("Sim::new({})", sim.seed)
}

fn faults_code(faults: &Faults) -> String {
    let with = faults
        .iter()
        .map(|fault| format!(".with(Fault::{fault:?}, {})", faults.rate(fault)));
    format!("Faults::none(){}", with.collect::<String>())
}

/// Removes one fault after another. A removal changes later draws, so each fault is tried more than once.
fn fewer_faults(sim: &Sim, failure: &Report, run: &impl Fn(&Sim) -> Report) -> Faults {
    let mut best = sim.faults.draw(&mut Rng::stream(sim.seed, 2));
    let fails = |faults: &Faults| fails_alike(&run(&sim.clone().faults(faults.clone())), failure);
    if !fails(&best) {
        // A fixed set draws differently than a swarm, so the failure may not recur.
        return sim.faults.clone();
    }
    loop {
        let present: Vec<Fault> = best.iter().collect();
        let without = present.into_iter().map(|fault| best.clone().without(fault));
        match without.into_iter().find(|faults| fails(faults)) {
            Some(fewer) => best = fewer,
            None => return best,
        }
    }
}

/// Removes halves, quarters and so on, as long as the rest still fails.
fn fewer_ops(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut chunk = ops.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 {
            return ops;
        }
        chunk = chunk.div_ceil(2);
    }
}
