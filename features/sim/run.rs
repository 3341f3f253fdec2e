//! One run: a seed, a scenario, and what became of it.

use super::env::{Command, Env, Inner, Life};
use super::executor::{SimExecutor, Turn};
use super::faults::{Fault, Faults};
use super::invariants::Invariants;
use super::net::{Draw, World};
use super::rng::Rng;
use super::server::mix;
use super::timers::Step;
use super::{SimClock, Sweep};
use crate::clock::Clock;
use crate::session::Options;
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::ops::Range;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::time::Duration;
use std::panic::catch_unwind;

/// The seed to use: `TINKEX_SIM_SEED`, or 1.
///
/// # Panics
/// When the variable is set to something that is not a number of 64 bits: to replay another seed unnoticed would be
/// worse.
#[must_use]
pub fn seed_from_env() -> u64 {
    match std::env::var("TINKEX_SIM_SEED") {
        Ok(text) => match text.trim().parse() {
            Ok(seed) => seed,
            Err(_) => panic!("TINKEX_SIM_SEED is not a number from 0 to 2^64 - 1: {text:?}"),
        },
        Err(_) => 1,
    }
}

/// A simulation: what it may do, and what must hold. [`run`](Self::run) runs it.
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
    /// A simulation without faults, that checks everything that this crate promises, for at most a simulated day.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: Faults::none(),
            limit: Duration::from_secs(24 * 3_600),
            invariants: Invariants::all(),
            has_timeline: false,
        }
    }

    /// A simulation for each of these seeds.
    pub fn sweep(seeds: Range<u64>) -> Sweep {
        Sweep::new(seeds)
    }

    /// The faults. Default: [`Faults::none`].
    pub const fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How much simulated time a run may take; one that takes more has failed. Default: a day.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What is checked after every step. Default: [`Invariants::all`].
    pub fn check(mut self, invariants: Invariants) -> Self {
        self.invariants = invariants;
        self
    }

    /// Keeps a timeline of what happens, for [`Report::timeline`]. It costs time. Default: false.
    pub const fn timeline(mut self, keep: bool) -> Self {
        self.has_timeline = keep;
        self
    }

    /// Runs `scenario` to its end, and then everything that it has left behind until all has settled.
    pub fn run<F: Future<Output = ()> + 'static>(&self, scenario: impl FnOnce(Env) -> F) -> Report {
        let mut draws = Rng::stream(self.seed, 2);
        let faults = self.faults.draw(&mut draws);
        let clock = first_clock(&faults, &mut Rng::stream(self.seed, 7));
        let world = World::new(clock.clone(), self.seed, faults.clone(), self.has_timeline);
        let mut executor = SimExecutor::with_clock(Rng::stream(self.seed, 1), clock.clone());
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
            ties: Rng::stream(self.seed, 4),
            until_disturbed: 1,
            steps: 0,
            turns: 0,
        };
        let result = run.scenario(&mut executor, &env, scenario);
        let simulated = clock.now().saturating_duration_since(start);
        // Drivers that are still there hold sessions, and those the world.
        drop(executor);
        let mut state = world.state();
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

fn first_clock(faults: &Faults, draws: &mut Rng) -> SimClock {
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

/// A task that takes more turns than this while time stands still will never end.
const TURNS_AT_ONCE: u32 = 100_000;

/// A run under way.
struct Run<'a> {
    env: Rc<Inner>,
    invariants: &'a Invariants,
    host: Rng,
    ties: Rng,
    /// Turns until something happens to the host.
    until_disturbed: u64,
    end: Instant,
    steps: u64,
    /// A hash over which task took its turn, and when.
    turns: u64,
}

impl Run<'_> {
    fn scenario<F: Future<Output = ()> + 'static>(
        &mut self,
        executor: &mut SimExecutor,
        env: &Env,
        scenario: impl FnOnce(Env) -> F,
    ) -> Result<(), Failure> {
        let future = guarded(|| Box::pin(scenario(env.clone())))?;
        self.finish(executor, future)?;
        if self.invariants.has_all() {
            env.heal();
            let settling = Box::pin(settle(env.clone()));
            self.finish(executor, settling)?;
        }
        Ok(())
    }

    /// Runs until this future has ended.
    fn finish(
        &mut self,
        executor: &mut SimExecutor,
        future: Pin<Box<impl Future<Output = ()> + 'static>>,
    ) -> Result<(), Failure> {
        let is_done = Rc::new(Cell::new(false));
        let tell = Rc::clone(&is_done);
        executor.add(
            0,
            Box::pin(async move {
                future.await;
                tell.set(true);
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
            if executor.has_news()
                && let Turn::Took(task) = guarded(|| executor.turn())?
            {
                self.after_turn(executor, task)?;
                turns_at_once += 1;
                if turns_at_once == TURNS_AT_ONCE {
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

    /// Moves to the next timer: the scenario's or another one. Of two at the same time the seed decides which is first.
    fn step_to_timer(&mut self, executor: &mut SimExecutor) -> Step {
        let own = self.env.timers.borrow().next();
        let other = self.env.world.clock.next_timer().map(Instant::as_micros);
        let is_own = match (own, other) {
            (Some(own), Some(other)) if own == other => self.ties.below(2) == 0,
            (Some(own), Some(other)) => own < other,
            (own, _) => own.is_some(),
        };
        if is_own {
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
        self.until_disturbed -= 1;
        if self.until_disturbed == 0 {
            self.until_disturbed = 1 + self.host.below(200);
            self.disturb();
        }
        if !self.env.commands.borrow().is_empty() {
            let commands = self.env.commands.take();
            for command in commands {
                self.obey(executor, command);
            }
        }
        Ok(())
    }

    /// What the host may do at any moment.
    fn disturb(&mut self) {
        const OF_THE_HOST: [Fault; 6] = [
            Fault::WallJumpsAhead,
            Fault::WallJumpsBack,
            Fault::Suspend,
            Fault::DriverDropped,
            Fault::RuntimeGone,
            Fault::Crash,
        ];
        const DAY: u64 = 86_400_000_000;
        let (mut rng, fault) = {
            let mut state = self.env.world.state();
            let mut rng = state.draw(Draw::Host);
            let amount = Rng::stream(rng.below(u64::MAX), 0);
            (amount, state.first_that_strikes(&mut rng, &OF_THE_HOST))
        };
        let Some(fault) = fault else { return };
        let clock = &self.env.world.clock;
        let utc = clock.utc().as_unix_micros();
        self.env.world.note(format_args!("{fault:?}"));
        match fault {
            Fault::WallJumpsAhead => {
                let utc = utc.saturating_add(rng.below(DAY));
                clock.set_utc(Timestamp::from_unix_micros(utc));
            }
            Fault::WallJumpsBack => {
                let utc = utc.saturating_sub(rng.below(DAY));
                clock.set_utc(Timestamp::from_unix_micros(utc));
            }
            Fault::Suspend => {
                let asleep = Duration::from_micros(rng.below(DAY / 24));
                let until = clock.after(asleep).min(self.end);
                clock.jump(until);
                while let Some(waker) = self.env.overdue(until) {
                    waker.wake();
                }
            }
            Fault::Crash => self.env.commands.borrow_mut().push(Command::Crash),
            _ => {
                let sessions = self.env.sessions.borrow();
                let count = sessions.len() as u64;
                if count > 0 {
                    let tag = sessions[rng.below(count) as usize].tag;
                    self.env.commands.borrow_mut().push(match fault {
                        Fault::DriverDropped => Command::DropDriver(tag),
                        _ => Command::EndRuntime(tag),
                    });
                }
            }
        }
    }

    fn obey(&mut self, executor: &mut SimExecutor, command: Command) {
        match command {
            Command::Crash => {
                let mut sessions = self.env.sessions.borrow_mut();
                for session in &mut *sessions {
                    executor.kill(session.tag);
                    session.life = Life::Crashed;
                }
            }
            Command::EndRuntime(tag) => {
                executor.kill(tag);
                let mut sessions = self.env.sessions.borrow_mut();
                if let Some(session) = sessions.iter_mut().find(|session| session.tag == tag)
                    && session.life == Life::Alive
                {
                    session.life = Life::WithoutRuntime;
                }
            }
            Command::DropDriver(tag) => {
                let is_alive = self
                    .env
                    .sessions
                    .borrow()
                    .iter()
                    .any(|session| session.tag == tag && session.life == Life::Alive);
                if is_alive && executor.kill(tag) {
                    let later = Duration::from_micros(self.host.below(5_000_000));
                    executor.add(
                        0,
                        Box::pin(replace_driver(Env(Rc::clone(&self.env)), tag, later)),
                    );
                }
            }
        }
    }
}

/// A new driver takes over, unless the session has gone meanwhile.
async fn replace_driver(env: Env, tag: u32, later: Duration) {
    use crate::spawner::Spawner as _;
    env.advance(later).await;
    let reporter = {
        let sessions = env.0.sessions.borrow();
        let session = sessions.iter().find(|session| session.tag == tag);
        session
            .filter(|session| session.life == Life::Alive)
            .and_then(|session| session.reporter.upgrade())
    };
    if let Some(reporter) = reporter
        && let Ok(driver) = reporter.new_driver(env.transport())
    {
        let _ = env.0.spawner.tagged(tag).spawn(driver.run());
    }
}

/// Every session that lives has settled within the bound that its options give, once faults are healed.
async fn settle(env: Env) {
    // A driver that was dropped is replaced within five seconds.
    env.advance(Duration::from_secs(6)).await;
    let sessions: Vec<_> = {
        let sessions = env.0.sessions.borrow();
        let alive = sessions
            .iter()
            .filter(|session| session.life == Life::Alive && session.handle.stats().driver_alive);
        alive
            .map(|session| {
                (
                    session.handle.clone(),
                    session.options.clone(),
                    session.id.clone(),
                )
            })
            .collect()
    };
    for (handle, options, id) in sessions {
        let bound = settling_bound(&options, handle.stats().queued);
        let drain = handle.wait_until_drained(bound).await;
        let stats = handle.stats();
        assert!(
            drain.is_drained() || !stats.driver_alive,
            "session {id} has not settled {bound:?} after the faults were healed: {stats:?}"
        );
    }
}

/// The attempt under way ends, its retry waits, and everything is sent, at the worst event by event.
pub(super) fn settling_bound(options: &Options, queued: u64) -> Duration {
    const ROUND_TRIP: Duration = Duration::from_millis(30);
    let queued = u32::try_from(queued + 2).unwrap_or(u32::MAX);
    let retry = options
        .retry_max_delay
        .saturating_add(options.retry_max_delay / 10);
    options
        .http_timeout
        .saturating_add(retry)
        .saturating_add(ROUND_TRIP.saturating_mul(queued))
}

/// Runs code of the scenario's.
fn guarded<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Failure::Panicked(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is not text".into())
}

/// Why a run has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Something that must hold does not.
    Invariant(String),
    /// The scenario panicked: an assertion of its own, most likely.
    Panicked(String),
    /// The scenario waits, and nothing is left that could ever happen.
    Stuck,
    /// Tasks go on and on while time stands still.
    Spins,
    /// The run took more simulated time than it may.
    TimeLimit,
    /// Two runs of the same seed went different ways.
    NotDeterministic,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(what) => write!(f, "what must hold does not: {what}"),
            Self::Panicked(what) => write!(f, "the scenario panicked: {what}"),
            Self::Stuck => f.write_str("the scenario waits, and nothing is left to happen"),
            Self::Spins => f.write_str("tasks go on and on while time stands still"),
            Self::TimeLimit => f.write_str("the run took more simulated time than it may"),
            Self::NotDeterministic => f.write_str("two runs of the same seed went different ways"),
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
#[must_use = "assert_ok() says whether it failed"]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
    /// A hash over every step: equal for two runs that went the same way.
    pub trace: u64,
    /// How many turns tasks took.
    pub steps: u64,
    /// The time that passed in the simulation.
    pub simulated: Duration,
    /// The faults that the seed drew, with their rates.
    pub faults: Faults,
    /// The faults that happened, with how often they did.
    pub happened: Vec<(Fault, u32)>,
    /// What happened when, if it was asked for with [`Sim::timeline`].
    pub timeline: Vec<(Duration, String)>,
    /// What a failure was reduced to, as one can run it again.
    pub script: Option<String>,
}

impl Report {
    /// Panics when the run has failed, and says how to run it again.
    ///
    /// # Panics
    /// See above.
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
        writeln!(f, "  what happened: {:?}", self.happened)?;
        if let Some(script) = &self.script {
            writeln!(f, "  reduced to: {script}")?;
        }
        for (at, what) in &self.timeline {
            writeln!(f, "  {:>12.6} {what}", at.as_secs_f64())?;
        }
        let name = std::thread::current().name().unwrap_or("").to_string();
        write!(
            f,
            "run it again: TINKEX_SIM_SEED={} cargo test {name}",
            self.seed
        )
    }
}
