//! The simulated host: clock jumps, suspension, crashes, and drivers and runtimes that end.

use super::env::{Command, Env, Life};
use super::executor::SimExecutor;
use super::faults::Fault;
use super::rng::Rng;
use super::run::Run;
#[cfg(feature = "spool")]
use super::spools::DISK_FAULTS;
use super::world::Draw;
use crate::clock::Clock;
use crate::time::Timestamp;
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::time::Duration;

const HOST_FAULTS: [Fault; 6] = [
    Fault::WallJumpsAhead,
    Fault::WallJumpsBack,
    Fault::Suspend,
    Fault::DriverDropped,
    Fault::RuntimeGone,
    Fault::Crash,
];

/// In microseconds.
const DAY: u64 = 86_400_000_000;

impl Run<'_> {
    /// Injects a fault of the host, if one occurs now.
    pub(super) fn inject_host_fault(&mut self) {
        let (mut rng, fault) = {
            let mut state = self.env.world.state();
            let mut rng = state.draw(Draw::Host);
            let amount = Rng::stream(rng.below(u64::MAX), 0);
            let fault = state.first_to_occur(&mut rng, &HOST_FAULTS);
            #[cfg(feature = "spool")]
            let fault = match (fault, &state.drive) {
                (None, Some(_)) => state.first_to_occur(&mut rng, &DISK_FAULTS),
                (fault, _) => fault,
            };
            (amount, fault)
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
            Fault::Suspend => self.suspend(Duration::from_micros(rng.below(DAY / 24))),
            Fault::Crash => self.env.crash(),
            #[cfg(feature = "spool")]
            Fault::PowerCut => {
                let process = self.env.world.cut_power();
                self.env.end_process(process);
            }
            #[cfg(feature = "spool")]
            fault if DISK_FAULTS.contains(&fault) => self.env.world.state().inject(fault),
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

    fn suspend(&self, duration: Duration) {
        let clock = &self.env.world.clock;
        let until = clock.after(duration).min(self.end);
        clock.jump(until);
        while let Some(waker) = self.env.overdue(until) {
            waker.wake();
        }
    }

    /// Applies what the scenario or a fault does to the process.
    pub(super) fn apply(&mut self, executor: &mut SimExecutor, command: Command) {
        match command {
            Command::Crash {
                sessions: count,
                process,
            } => {
                let mut sessions = self.env.sessions.borrow_mut();
                for session in sessions.iter_mut().take(count) {
                    executor.kill(session.tag);
                    session.life = Life::Crashed;
                }
                drop(sessions);
                if let Some(tag) = process {
                    executor.kill(tag);
                }
            }
            Command::EndRuntime(tag) => {
                executor.kill(tag);
                let mut sessions = self.env.sessions.borrow_mut();
                if let Some(session) = sessions.iter_mut().find(|session| session.tag == tag)
                    && session.life == Life::Alive
                {
                    session.life = Life::RuntimeGone;
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
                    let delay = Duration::from_micros(self.host.below(5_000_000));
                    executor.add(
                        0,
                        Box::pin(replace_driver(Env(Rc::clone(&self.env)), tag, delay)),
                    );
                }
            }
        }
    }
}

/// Starts a new driver after `delay`, unless the session has gone meanwhile.
async fn replace_driver(env: Env, tag: u32, delay: Duration) {
    use crate::spawner::Spawner as _;
    env.advance(delay).await;
    let driver = {
        let sessions = env.0.sessions.borrow();
        let session = sessions.iter().find(|session| session.tag == tag);
        session
            .filter(|session| session.life == Life::Alive)
            .and_then(|session| (session.new_driver)(&env))
    };
    if let Some(driver) = driver {
        let _ = env.0.spawner.tagged(tag).spawn(driver);
    }
}
