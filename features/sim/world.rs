//! The state that all parts of a simulation share.

use super::SimClock;
use super::faults::{Fault, Faults};
use super::hash::mix;
use super::rng::Rng;
use super::server::Server;
use crate::clock::Clock;
use crate::time::Instant;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The clock and the shared state of a simulation.
pub(super) struct World {
    pub(super) clock: SimClock,
    state: Mutex<State>,
    /// How often the state was locked. Written under its lock only.
    accesses: AtomicU64,
}

pub(super) struct State {
    seed: u64,
    /// The number of generators drawn, by [`Draw`].
    draws: [u64; 3],
    pub(super) faults: Faults,
    pub(super) server: Server,
    pub(super) trace: u64,
    /// How often each fault occurred.
    pub(super) happened: [u32; Fault::ALL.len()],
    /// What happened when, if the run keeps a timeline.
    pub(super) timeline: Option<Vec<(Duration, String)>>,
    start: Instant,
}

impl World {
    pub(super) fn new(clock: SimClock, seed: u64, faults: Faults, has_timeline: bool) -> Arc<Self> {
        let start = clock.now();
        Arc::new(Self {
            clock,
            state: Mutex::new(State {
                seed,
                draws: [0; 3],
                faults,
                server: Server::default(),
                trace: 0,
                happened: [0; Fault::ALL.len()],
                timeline: has_timeline.then(Vec::new),
                start,
            }),
            accesses: AtomicU64::new(0),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.accesses.store(self.accesses() + 1, Ordering::Relaxed);
        state
    }

    /// How often the state was locked: as long as this is the same, so is the state.
    #[inline]
    pub(super) fn accesses(&self) -> u64 {
        self.accesses.load(Ordering::Relaxed)
    }

    /// Adds a line to the timeline, if there is one.
    pub(super) fn note(&self, what: impl fmt::Display) {
        let mut state = self.state();
        let at = self.clock.now().saturating_duration_since(state.start);
        if let Some(timeline) = &mut state.timeline {
            timeline.push((at, format!("{what}")));
        }
    }
}

/// The purpose of a generator.
#[derive(Clone, Copy)]
pub(super) enum Draw {
    Exchange,
    Host,
    Scenario,
}

impl State {
    /// The generator for the next exchange, host fault or question of the scenario. Each has its own, so that shrinking
    /// one away leaves the others as they were.
    pub(super) fn draw(&mut self, what: Draw) -> Rng {
        let count = &mut self.draws[what as usize];
        *count += 1;
        Rng::stream(self.seed, (what as u64 + 1) << 48 | *count)
    }

    /// Whether this fault occurs now; counts it if so.
    pub(super) fn occurs(&mut self, rng: &mut Rng, fault: Fault) -> bool {
        let occurs = rng.happens(self.faults.rate(fault));
        if occurs {
            self.happened[fault as usize] += 1;
            self.trace = mix(self.trace, fault as u64);
        }
        occurs
    }

    /// The first of these faults that occurs now.
    pub(super) fn first_to_occur(&mut self, rng: &mut Rng, faults: &[Fault]) -> Option<Fault> {
        let mut faults = faults.iter().copied();
        faults.find(|&fault| self.occurs(rng, fault))
    }
}
