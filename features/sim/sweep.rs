//! A sweep: one run for each of many seeds.

use super::coverage::coverage;
use super::env::Env;
use super::faults::Faults;
use super::invariants::Invariants;
use super::report::{Failure, Report};
use super::run::Sim;
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

/// One simulation for each seed of a range. Default: a swarm of faults, all invariants, one thread.
#[derive(Debug)]
#[must_use = "it does nothing until it is run"]
pub struct Sweep {
    seeds: Range<u64>,
    first_seeds: Vec<u64>,
    jobs: usize,
    faults: Faults,
    limit: Duration,
    checks_determinism: bool,
    shrinks: bool,
}

impl Sim {
    /// A sweep over these seeds; over none, if the range is empty or ends before it starts.
    pub fn sweep(seeds: Range<u64>) -> Sweep {
        Sweep::new(seeds)
    }
}

impl Sweep {
    const fn new(seeds: Range<u64>) -> Self {
        Self {
            seeds,
            first_seeds: Vec::new(),
            jobs: 1,
            faults: Faults::swarm(),
            limit: Duration::from_secs(24 * 3_600),
            checks_determinism: false,
            shrinks: false,
        }
    }

    /// Sets the number of threads. Default: 1.
    pub const fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Runs these seeds before all others: for example, those that once found a bug.
    pub fn first(mut self, seeds: impl IntoIterator<Item = u64>) -> Self {
        self.first_seeds.extend(seeds);
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

    /// Runs every seed twice, and fails if the traces differ.
    pub const fn check_determinism(mut self) -> Self {
        self.checks_determinism = true;
        self
    }

    /// Shrinks a failure to the faults and operations that it needs.
    pub const fn shrink(mut self) -> Self {
        self.shrinks = true;
        self
    }

    /// Runs a [`Workload`] drawn from each seed.
    pub fn run_workload(&self) -> SweepReport {
        let report = self.run_all(|sim| {
            let workload = Workload::draw(sim.seed);
            sim.run(|env| workload.run(env))
        });
        self.shrink_failure(report, shrink::workload)
    }

    /// Runs `scenario` with each seed.
    pub fn run<F: Future<Output = ()> + 'static>(
        &self,
        scenario: impl Fn(Env) -> F + Sync,
    ) -> SweepReport {
        let report = self.run_all(|sim| sim.run(&scenario));
        self.shrink_failure(report, |sim, failure| {
            shrink::faults(sim, failure, |sim| sim.run(&scenario))
        })
    }

    fn sim(&self, seed: u64) -> Sim {
        Sim::new(seed)
            .faults(self.faults.clone())
            .limit(self.limit)
            .check(Invariants::all())
    }

    /// The seed of the n-th run, counted from 0.
    fn seed(&self, number: u64) -> Option<u64> {
        let first = usize::try_from(number)
            .ok()
            .and_then(|number| self.first_seeds.get(number));
        first.copied().or_else(|| {
            let number = number - self.first_seeds.len() as u64;
            let seed = self.seeds.start.checked_add(number)?;
            self.seeds.contains(&seed).then_some(seed)
        })
    }

    fn run_all(&self, run: impl Fn(&Sim) -> Report + Sync) -> SweepReport {
        let (next, steps) = (AtomicU64::new(0), AtomicU64::new(0));
        let simulated = AtomicU64::new(0);
        let has_failed = AtomicBool::new(false);
        let failures = Mutex::new(Vec::new());
        let work = || {
            while !has_failed.load(Ordering::Relaxed)
                && let Some(seed) = self.seed(next.fetch_add(1, Ordering::Relaxed))
            {
                let sim = self.sim(seed);
                let mut report = run(&sim);
                if self.checks_determinism && run(&sim).trace != report.trace {
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
        let range = self.seeds.end.saturating_sub(self.seeds.start);
        let planned = (self.first_seeds.len() as u64).saturating_add(range);
        SweepReport {
            runs: next.into_inner().min(planned),
            steps: steps.into_inner(),
            simulated: Duration::from_millis(simulated.into_inner()),
            failure: failures.into_iter().next(),
        }
    }

    fn shrink_failure(
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

/// The result of a sweep.
#[derive(Clone, Debug)]
#[must_use = "assert_ok() says whether it failed"]
#[non_exhaustive]
pub struct SweepReport {
    /// The number of seeds that were run. A failure ends the sweep.
    pub runs: u64,
    /// The number of times that a task was polled, over all runs.
    pub steps: u64,
    /// The simulated time that passed, over all runs.
    pub simulated: Duration,
    /// The failed run with the lowest seed, if any failed.
    pub failure: Option<Report>,
}

impl SweepReport {
    /// Asserts that all runs succeeded.
    ///
    /// # Panics
    /// If one failed; the message says how to replay it.
    #[track_caller]
    pub fn assert_ok(&self) {
        if let Some(failure) = &self.failure {
            panic!("{failure}");
        }
    }

    /// The [`sometimes!`](crate::sometimes) points that this process has executed and whose condition was never true.
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
            None => f.write_str("all invariants hold"),
            Some(failure) => f.write_str(&format!("{failure}")),
        }
    }
}
