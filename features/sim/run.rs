//! A run: one seed and one scenario, step by step.

use super::SimClock;
use super::env::{Env, Inner};
use super::executor::{SimExecutor, Turn};
use super::faults::{Fault, Faults};
use super::hash::mix;
use super::invariants::Invariants;
use super::report::{Failure, Report};
use super::rng::Rng;
use super::settling::settle;
use super::timers::Step;
use super::world::World;
use crate::clock::Clock;
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::any::Any;
use core::cell::Cell;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::time::Duration;
use std::panic::catch_unwind;

/// The seed in the environment variable `TINKEX_SIM_SEED`, or 1 if that is not set.
///
/// # Panics
/// If the variable is not a number from 0 to 2^64 - 1: a silent fallback would replay another seed.
#[must_use]
pub fn seed_from_env() -> u64 {
    let Some(text) = std::env::var_os("TINKEX_SIM_SEED") else {
        return 1;
    };
    // Whatever is not Unicode is no number either.
    match text.to_str().and_then(|text| text.trim().parse().ok()) {
        Some(seed) => seed,
        None => panic!("TINKEX_SIM_SEED is not a number from 0 to 2^64 - 1: {text:?}"),
    }
}

/// A simulation: a seed, the faults to inject, and the invariants to check. [`run`](Self::run) starts it.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is run"]
pub struct Sim {
    pub(super) seed: u64,
    pub(super) faults: Faults,
    pub(super) limit: Duration,
    pub(super) invariants: Invariants,
    has_timeline: bool,
}

impl Sim {
    /// A simulation without faults that checks all invariants, for at most one simulated day.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: Faults::none(),
            limit: Duration::from_secs(24 * 3_600),
            invariants: Invariants::all(),
            has_timeline: false,
        }
    }

    /// Sets the faults to inject. Default: [`Faults::none`].
    pub const fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Sets the maximum simulated time of a run; beyond it, the run fails. Default: one day.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the invariants to check after every step. Default: [`Invariants::all`].
    pub fn check(mut self, invariants: Invariants) -> Self {
        self.invariants = invariants;
        self
    }

    /// Sets whether to record a timeline for [`Report::timeline`], which slows the run down. Default: false.
    pub const fn timeline(mut self, keep: bool) -> Self {
        self.has_timeline = keep;
        self
    }

    /// Runs `scenario` to completion. With [`Invariants::all`], then heals all faults and waits until every session has
    /// settled.
    pub fn run<F: Future<Output = ()> + 'static>(&self, scenario: impl FnOnce(Env) -> F) -> Report {
        let mut draws = Rng::stream(self.seed, 2);
        let faults = self.faults.draw(&mut draws);
        let clock = draw_clock(&faults, &mut Rng::stream(self.seed, 7));
        let world = World::new(clock.clone(), self.seed, faults.clone(), self.has_timeline);
        let mut executor = SimExecutor::with_clock(Rng::stream(self.seed, 1), clock.clone());
        // In a quarter of the runs tasks move: the seed decides, by a stream of its own.
        let mut moves = Rng::stream(self.seed, 8);
        if moves.below(4) == 0 {
            executor.move_tasks(moves);
        }
        let env = Env::new(
            Arc::clone(&world),
            executor.spawner(),
            executor.local_spawner(),
            self.seed,
        );
        let start = clock.now();
        let mut run = Run {
            end: clock.after(self.limit),
            env: Rc::clone(&env.0),
            invariants: &self.invariants,
            host: Rng::stream(self.seed, 5),
            tie_breaks: Rng::stream(self.seed, 4),
            turns_until_host_fault: 1,
            steps: 0,
            turns: 0,
        };
        let result = run.scenario(&mut executor, &env, scenario);
        let simulated = clock.now().saturating_duration_since(start);
        // Remaining drivers hold sessions, which hold the world.
        drop(executor);
        let mut state = world.state();
        #[cfg(feature = "spool")]
        {
            // What is in it holds the world.
            let drive = state.drive.take();
            drop(state);
            drop(drive);
            state = world.state();
        }
        Report {
            seed: self.seed,
            failure: result.err(),
            trace: mix(state.trace, mix(run.turns, run.steps)),
            steps: run.steps,
            simulated,
            happened: Fault::ALL
                .iter()
                .map(|&fault| (fault, state.happened[fault as usize]))
                .filter(|(_, count)| *count > 0)
                .collect(),
            faults,
            timeline: state.timeline.take().unwrap_or_default(),
            script: None,
        }
    }
}

/// The clock of a run, whose start the faults and the seed decide.
fn draw_clock(faults: &Faults, draws: &mut Rng) -> SimClock {
    const MINUTE: u64 = 60_000_000;
    let now = if draws.happens(faults.rate(Fault::MonotonicEnd)) {
        u64::MAX - MINUTE * (1 + draws.below(30))
    } else {
        draws.below(60 * MINUTE)
    };
    let utc = if draws.happens(faults.rate(Fault::Epoch1970)) {
        draws.below(MINUTE)
    } else if draws.happens(faults.rate(Fault::Year2038)) {
        (i32::MAX as u64) * 1_000_000 - draws.below(10 * MINUTE)
    } else {
        1_735_689_600_000_000 + draws.below(MINUTE * 525_600)
    };
    SimClock::starting(Instant::from_micros(now), Timestamp::from_unix_micros(utc))
}

/// More turns than this without time passing mean that tasks spin.
const MAX_TURNS_AT_ONCE: u32 = 100_000;

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) env: Rc<Inner>,
    invariants: &'a Invariants,
    pub(super) host: Rng,
    tie_breaks: Rng,
    turns_until_host_fault: u64,
    pub(super) end: Instant,
    steps: u64,
    /// A hash of which task was polled when.
    turns: u64,
}

impl Run<'_> {
    fn scenario<F: Future<Output = ()> + 'static>(
        &mut self,
        executor: &mut SimExecutor,
        env: &Env,
        scenario: impl FnOnce(Env) -> F,
    ) -> Result<(), Failure> {
        let future = catch_panic(|| Box::pin(scenario(env.clone())))?;
        self.finish(executor, future)?;
        if self.invariants.has_all() {
            env.heal();
            let settling = Box::pin(settle(env.clone()));
            self.finish(executor, settling)?;
        }
        Ok(())
    }

    /// Runs this future to completion.
    fn finish(
        &mut self,
        executor: &mut SimExecutor,
        future: Pin<Box<impl Future<Output = ()> + 'static>>,
    ) -> Result<(), Failure> {
        let is_done = Rc::new(Cell::new(false));
        let done = Rc::clone(&is_done);
        executor.add(
            0,
            Box::pin(async move {
                future.await;
                done.set(true);
            }),
        );
        self.run_until(executor, &is_done)
    }

    fn run_until(
        &mut self,
        executor: &mut SimExecutor,
        is_done: &Cell<bool>,
    ) -> Result<(), Failure> {
        let mut turns_at_once = 0;
        while !is_done.get() {
            if executor.may_have_work()
                && let Turn::Polled(task) = catch_panic(|| executor.turn())?
            {
                self.after_turn(executor, task)?;
                turns_at_once += 1;
                if turns_at_once == MAX_TURNS_AT_ONCE {
                    return Err(Failure::Spins);
                }
                continue;
            }
            turns_at_once = 0;
            match self.step_to_timer(executor) {
                Step::Timer => {}
                Step::Beyond => return Err(Failure::TimeLimit),
                Step::NoTimer => return Err(Failure::Stuck),
            }
        }
        Ok(())
    }

    /// Moves to the next timer, whether the scenario's or another. Between simultaneous ones the seed decides.
    fn step_to_timer(&mut self, executor: &mut SimExecutor) -> Step {
        let scenario = self.env.timers.borrow().next();
        let other = self.env.world.clock.next_timer().map(Instant::as_micros);
        let is_scenario = match (scenario, other) {
            (Some(scenario), Some(other)) if scenario == other => self.tie_breaks.below(2) == 0,
            (Some(scenario), Some(other)) => scenario < other,
            (scenario, _) => scenario.is_some(),
        };
        if is_scenario {
            executor.step_to_timer_of(&self.env.timers, self.end)
        } else {
            executor.step_to_timer(self.end)
        }
    }

    fn after_turn(&mut self, executor: &mut SimExecutor, task: usize) -> Result<(), Failure> {
        self.steps += 1;
        self.env.turns.set(self.steps);
        self.turns = mix(
            mix(self.turns, task as u64),
            self.env.world.clock.now().as_micros(),
        );
        self.invariants
            .check(&self.env)
            .map_err(Failure::Invariant)?;
        #[cfg(feature = "spool")]
        if self.env.world.has_died() {
            for process in self.env.world.take_dead() {
                self.env.end_process(Some(process));
            }
        }
        self.turns_until_host_fault -= 1;
        if self.turns_until_host_fault == 0 {
            self.turns_until_host_fault = 1 + self.host.below(200);
            self.inject_host_fault();
        }
        if !self.env.commands.borrow().is_empty() {
            let commands = self.env.commands.take();
            for command in commands {
                self.apply(executor, command);
            }
        }
        Ok(())
    }
}

/// Runs code of the scenario; a panic becomes a failure.
fn catch_panic<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Failure::Panicked(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is not text".into())
}
