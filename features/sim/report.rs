//! The result of a run.

use super::faults::{Fault, Faults};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// The reason why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// An invariant was violated.
    Invariant(String),
    /// The scenario panicked, most likely in one of its assertions.
    Panicked(String),
    /// The scenario waits, but no task is ready and no timer is left.
    Stuck,
    /// Tasks run without end while no time passes.
    Spins,
    /// The run exceeded its limit of simulated time.
    TimeLimit,
    /// Two runs of the same seed differed.
    NotDeterministic,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(what) => write!(f, "invariant violated: {what}"),
            Self::Panicked(what) => write!(f, "the scenario panicked: {what}"),
            Self::Stuck => {
                f.write_str("the scenario is stuck: no task is ready and no timer is left")
            }
            Self::Spins => f.write_str("tasks run without end while no time passes"),
            Self::TimeLimit => f.write_str("the run exceeded its limit of simulated time"),
            Self::NotDeterministic => f.write_str("two runs of the same seed differed"),
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
#[must_use = "assert_ok() says whether it failed"]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The failure, if the run failed.
    pub failure: Option<Failure>,
    /// A hash of every step: equal for two runs with the same steps.
    pub trace: u64,
    /// The number of times that a task was polled.
    pub steps: u64,
    /// The simulated time that passed.
    pub simulated: Duration,
    /// The faults that the seed drew, with their rates.
    pub faults: Faults,
    /// The faults that occurred, with their counts.
    pub happened: Vec<(Fault, u32)>,
    /// What happened when, if [`Sim::timeline`](super::Sim::timeline) is set.
    pub timeline: Vec<(Duration, String)>,
    /// What a failure was reduced to, as code, if [`Sweep::shrink`](super::Sweep::shrink) is set.
    pub script: Option<String>,
}

impl Report {
    /// Asserts that the run succeeded.
    ///
    /// # Panics
    /// If it failed; the message says how to replay it.
    #[track_caller]
    pub fn assert_ok(&self) {
        assert!(self.failure.is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failure) = &self.failure else {
            return write!(f, "seed {}: ok after {} steps", self.seed, self.steps);
        };
        writeln!(f, "the simulation failed: {failure}")?;
        writeln!(f, "  after {} steps, {:?}", self.steps, self.simulated)?;
        writeln!(f, "  faults that occurred: {:?}", self.happened)?;
        if let Some(script) = &self.script {
            writeln!(f, "  reduced to: {script}")?;
        }
        for (at, what) in &self.timeline {
            writeln!(f, "  {:>12.6} {what}", at.as_secs_f64())?;
        }
        let name = std::thread::current().name().unwrap_or("").to_string();
        write!(f, "replay: TINKEX_SIM_SEED={} cargo test {name}", self.seed)
    }
}
