//! Sweeps: one run for each of many seeds. A failure is shrunk, and names its seed.

use super::faults::{Fault, Faults};
use super::plan::{Op, Plan};
use super::rng::Rng;
use super::run::{Outcome, run};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::println;
use std::sync::{Mutex, PoisonError};

fn faults(seed: u64) -> Faults {
    Faults::swarm(&mut Rng::stream(seed, 2))
}

/// A run whose panics are failures.
fn try_run(seed: u64, faults: &Faults, plan: &Plan) -> Outcome {
    let caught = catch_unwind(AssertUnwindSafe(|| run(seed, faults, plan, false)));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| String::from(*it)));
        Outcome {
            failure: Some(format!("panic: {}", text.unwrap_or_default())),
            ..Outcome::default()
        }
    })
}

/// The kind of a failure: its text up to the first number.
fn kind(outcome: &Outcome) -> Option<String> {
    let text = outcome.failure.as_ref()?;
    Some(
        text.chars()
            .filter(|it| !it.is_ascii_digit())
            .take(30)
            .collect(),
    )
}

/// Fewer faults and operations that fail alike.
fn shrink(seed: u64, mut faults: Faults, mut plan: Plan, original: &Outcome) -> (Faults, Plan) {
    let original = kind(original);
    // Long enough to be understood is better than never.
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let fails = |faults: &Faults, plan: &Plan| {
        std::time::Instant::now() < until && kind(&try_run(seed, faults, plan)) == original
    };
    loop {
        let before = (faults.clone(), plan.ops.len());
        for fault in faults.present() {
            let fewer = faults.clone().with(fault, 0);
            if fails(&fewer, &plan) {
                faults = fewer;
            }
        }
        let mut chunk = plan.ops.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < plan.ops.len() {
                let mut fewer: Vec<Op> = plan.ops.clone();
                fewer.drain(at..(at + chunk).min(fewer.len()));
                let fewer = Plan {
                    ops: fewer,
                    ..plan.clone()
                };
                if fails(&faults, &fewer) {
                    plan = fewer;
                } else {
                    at += chunk;
                }
            }
            if chunk == 1 {
                break;
            }
            chunk = chunk.div_ceil(2);
        }
        if before == (faults.clone(), plan.ops.len()) {
            return (faults, plan);
        }
    }
}

/// Shows a failure in as few steps as it needs, and how to see it again.
fn explain(seed: u64, outcome: &Outcome) -> String {
    let faults = faults(seed);
    let plan = Plan::draw(seed, &faults);
    let (faults, plan) = shrink(seed, faults, plan, outcome);
    let caught = catch_unwind(AssertUnwindSafe(|| run(seed, &faults, &plan, true)));
    let shrunk = caught.unwrap_or_default();
    let lines = shrunk.lines;
    let text = outcome.failure.clone().unwrap_or_default();
    let in_short = shrunk.failure.unwrap_or_default();
    let shown = lines.len().saturating_sub(lines_shown());
    format!(
        "{text}\nTINKEX_SIM_SEED={seed}\nshrunk to {faults:?} and {plan:?}\n{}\n{in_short}",
        lines[shown..].join("\n")
    )
}

fn lines_shown() -> usize {
    let count = std::env::var("TINKEX_SPOOL_LINES").ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(60)
}

#[derive(Default)]
struct Total {
    seeds: u64,
    steps: u64,
    confirmed: u64,
    received: u64,
    simulated: u64,
    /// In how many seeds each fault could have cost an event.
    reached: BTreeMap<Fault, u64>,
    failure: Option<(u64, Outcome)>,
}

fn sweep(seeds: core::ops::Range<u64>, jobs: usize) -> Total {
    let next = AtomicU64::new(seeds.start);
    let has_failed = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let faults = faults(seed);
            let plan = Plan::draw(seed, &faults);
            let outcome = try_run(seed, &faults, &plan);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.seeds += 1;
            total.steps += outcome.steps;
            total.confirmed += outcome.confirmed;
            total.received += outcome.received;
            total.simulated += outcome.simulated / 1_000_000;
            for (fault, (_, costly)) in &outcome.faults {
                *total.reached.entry(*fault).or_default() += u64::from(*costly > 0);
            }
            if outcome.failure.is_some() {
                has_failed.store(true, Ordering::Relaxed);
                if total
                    .failure
                    .as_ref()
                    .is_none_or(|(other, _)| seed < *other)
                {
                    total.failure = Some((seed, outcome));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(work);
        }
        work();
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How many seeds: `TINKEX_SPOOL_SEEDS`, which `ci/sweep` sets, or a few.
fn count() -> u64 {
    let count = std::env::var("TINKEX_SPOOL_SEEDS").ok();
    count.map_or(1_000, |count| count.parse().expect("a number of seeds"))
}

#[test]
fn the_spools_sweep_finds_nothing_and_reaches_every_fault() {
    let begin = std::time::Instant::now();
    let first = std::env::var("TINKEX_SPOOL_FIRST").ok();
    let first = first.map_or(0, |first| first.parse().expect("a seed"));
    let count = count();
    let total = sweep(first..first + count, 2);
    let Total {
        seeds,
        steps,
        confirmed,
        received,
        simulated,
        ..
    } = total;
    println!(
        "{seeds} seeds in {:.1?}: {steps} steps, {confirmed} events confirmed, {received} received, {} simulated hours",
        begin.elapsed(),
        simulated / 3600
    );
    if let Some((seed, outcome)) = &total.failure {
        panic!("{}", explain(*seed, outcome));
    }
    let mut rare = Vec::new();
    for fault in Fault::ALL {
        let reached = total.reached.get(fault).copied().unwrap_or(0);
        let percent = reached as f64 * 100.0 / seeds as f64;
        println!("{fault:?}: {percent:.1} %");
        if percent < 1.0 {
            rare.push(fault);
        }
    }
    assert!(
        count < 1_000 || rare.is_empty(),
        "in under 1 % of the seeds: {rare:?}"
    );
}

#[test]
fn a_seed_decides_everything_in_debug_and_release() {
    let mut all = 0_u64;
    for seed in 0..60 {
        let faults = faults(seed);
        let plan = Plan::draw(seed, &faults);
        let one = try_run(seed, &faults, &plan);
        let two = try_run(seed, &faults, &plan);
        assert_eq!(one.digest(), two.digest(), "seed {seed}");
        all = all.rotate_left(7) ^ one.digest();
    }
    assert_eq!(all, RECORDED, "{all:#x}");
}

/// Changes whenever the spool or its simulation takes a different step: then record it again.
const RECORDED: u64 = 0x9123_0f9b_9ae8_8cc8;
