//! Making a failure smaller: fewer faults, fewer operations, as long as it still fails.

use super::faults::{Fault, Faults};
use super::rng::Rng;
use super::run::{Report, Sim};
use super::workload::{Op, Workload};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::discriminant;

/// Whether it fails in the same way, if not with the same words.
fn is_same(report: &Report, wanted: &Report) -> bool {
    match (&report.failure, &wanted.failure) {
        (Some(found), Some(wanted)) => discriminant(found) == discriminant(wanted),
        _ => false,
    }
}

/// The faults that a failure needs, as code.
pub(super) fn faults(sim: &Sim, failure: &Report, run: impl Fn(&Sim) -> Report) -> String {
    let faults = fewer_faults(sim, failure, &run);
    format!("{}.faults({})", head(sim), code(&faults))
}

/// The faults and the operations that a failure of a workload needs, as code.
pub(super) fn workload(sim: &Sim, failure: &Report) -> String {
    let mut workload = Workload::draw(sim.seed);
    let run_ops = |sim: &Sim, ops: &[Op]| {
        let workload = Workload {
            options: Workload::draw(sim.seed).options,
            ops: ops.to_vec(),
        };
        sim.run(|env| workload.run(env))
    };
    let fails = |sim: &Sim, ops: &[Op]| is_same(&run_ops(sim, ops), failure);
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
        head(&sim),
        code(&sim.faults),
        workload.ops
    )
}

fn head(sim: &Sim) -> String {
    format!("Sim::new({})", sim.seed)
}

fn code(faults: &Faults) -> String {
    let with = faults
        .iter()
        .map(|fault| format!(".with(Fault::{fault:?}, {})", faults.rate(fault)));
    format!("Faults::none(){}", with.collect::<String>())
}

/// Takes one fault after the other away. What is drawn later then goes another way, so each is tried more than once.
fn fewer_faults(sim: &Sim, failure: &Report, run: &impl Fn(&Sim) -> Report) -> Faults {
    let mut best = sim.faults.draw(&mut Rng::stream(sim.seed, 2));
    let fails = |faults: &Faults| is_same(&run(&sim.clone().faults(faults.clone())), failure);
    if !fails(&best) {
        // The draws of a fixed set differ from those of a swarm.
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

/// Halves, quarters and so on are taken away as long as the rest still fails.
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
