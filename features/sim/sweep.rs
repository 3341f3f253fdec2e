//! Many runs: a seed each.

use super::coverage::coverage;
use super::env::Env;
use super::faults::Faults;
use super::invariants::Invariants;
use super::run::{Failure, Report, Sim};
use super::shrink;
use super::workload::Workload;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A simulation for each seed of a range. Default: a swarm of faults, all invariants, one thread.
#[derive(Debug)]
#[must_use = "it does nothing until it is run"]
pub struct Sweep {
    seeds: Range<u64>,
    first: Vec<u64>,
    jobs: usize,
    faults: Faults,
    limit: Duration,
    runs_twice: bool,
    shrinks: bool,
}

impl Sweep {
    pub(super) const fn new(seeds: Range<u64>) -> Self {
        Self {
            seeds,
            first: Vec::new(),
            jobs: 1,
            faults: Faults::swarm(),
            limit: Duration::from_secs(24 * 3_600),
            runs_twice: false,
            shrinks: false,
        }
    }

    /// So many threads.
    pub const fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// These seeds before all others: those that have once found a bug.
    pub fn first(mut self, seeds: impl IntoIterator<Item = u64>) -> Self {
        self.first.extend(seeds);
        self
    }

    /// See [`Sim::faults`].
    pub const fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// See [`Sim::limit`].
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs every seed twice; two different traces are a failure.
    pub const fn check_determinism(mut self) -> Self {
        self.runs_twice = true;
        self
    }

    /// Reduces a failure to the faults and operations that it needs.
    pub const fn shrink(mut self) -> Self {
        self.shrinks = true;
        self
    }

    /// Runs a [`Workload`] drawn from each seed.
    pub fn run_workload(&self) -> SweepReport {
        let report = self.all(|sim| {
            let workload = Workload::draw(sim.seed);
            sim.run(|env| workload.run(env))
        });
        self.shrunk(report, shrink::workload)
    }

    /// Runs `scenario` with each seed.
    pub fn run<F: Future<Output = ()> + 'static>(
        &self,
        scenario: impl Fn(Env) -> F + Sync,
    ) -> SweepReport {
        let report = self.all(|sim| sim.run(&scenario));
        self.shrunk(report, |sim, failure| {
            shrink::faults(sim, failure, |sim| sim.run(&scenario))
        })
    }

    fn sim(&self, seed: u64) -> Sim {
        Sim::new(seed)
            .faults(self.faults.clone())
            .limit(self.limit)
            .check(Invariants::all())
    }

    fn all(&self, run: impl Fn(&Sim) -> Report + Sync) -> SweepReport {
        let (next, steps) = (AtomicU64::new(0), AtomicU64::new(0));
        let simulated = AtomicU64::new(0);
        let has_failed = AtomicBool::new(false);
        let failures = Mutex::new(Vec::new());
        let (first, rest) = (self.first.len() as u64, self.seeds.end - self.seeds.start);
        let work = || {
            while !has_failed.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let seed = match usize::try_from(number).ok().and_then(|n| self.first.get(n)) {
                    Some(seed) => *seed,
                    None if number - first < rest => self.seeds.start + number - first,
                    None => break,
                };
                let sim = self.sim(seed);
                let mut report = run(&sim);
                if self.runs_twice && run(&sim).trace != report.trace {
                    report.failure = Some(Failure::NotDeterministic);
                }
                steps.fetch_add(report.steps, Ordering::Relaxed);
                let millis = report.simulated.as_millis();
                simulated.fetch_add(u64::try_from(millis).unwrap_or(0), Ordering::Relaxed);
                if report.failure.is_some() {
                    has_failed.store(true, Ordering::Relaxed);
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.push(report);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.jobs.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let mut failures = failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        failures.sort_by_key(|report| report.seed);
        let planned = first + rest;
        SweepReport {
            runs: next.into_inner().min(planned),
            steps: steps.into_inner(),
            simulated: Duration::from_millis(simulated.into_inner()),
            failure: failures.into_iter().next(),
        }
    }

    fn shrunk(
        &self,
        mut report: SweepReport,
        shrink: impl Fn(&Sim, &Report) -> String,
    ) -> SweepReport {
        if let Some(failure) = &mut report.failure
            && self.shrinks
            && failure.failure != Some(Failure::NotDeterministic)
        {
            failure.script = Some(shrink(&self.sim(failure.seed), failure));
        }
        report
    }
}

/// What became of a sweep.
#[derive(Clone, Debug)]
#[must_use = "assert_ok() says whether it failed"]
#[non_exhaustive]
pub struct SweepReport {
    /// How many seeds were run. A failure ends the sweep.
    pub runs: u64,
    /// The turns that tasks took, in all runs.
    pub steps: u64,
    /// The time that passed in all simulations.
    pub simulated: Duration,
    /// The first failure.
    pub failure: Option<Report>,
}

impl SweepReport {
    /// Panics when a run has failed, and says how to run it again.
    ///
    /// # Panics
    /// See above.
    #[track_caller]
    pub fn assert_ok(&self) {
        if let Some(failure) = &self.failure {
            panic!("{failure}");
        }
    }

    /// The [`sometimes!`](crate::sometimes) points that were passed in this process and never reached.
    #[must_use]
    pub fn never_reached(&self) -> Vec<&'static str> {
        let points = coverage().into_iter();
        points
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs() / 3_600;
        write!(
            f,
            "{} seeds, {} steps, {hours} simulated hours: ",
            self.runs, self.steps
        )?;
        match &self.failure {
            None => f.write_str("all hold"),
            Some(failure) => f.write_str(&format!("{failure}")),
        }
    }
}
