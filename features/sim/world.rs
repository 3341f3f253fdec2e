//! The state that all parts of a simulation share.

use super::SimClock;
use super::faults::{Fault, Faults};
use super::hash::mix;
use super::reply::later;
use super::rng::Rng;
use super::server::{Inspected, Server};
use crate::clock::Clock;
use crate::time::{Instant, Timestamp};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
#[cfg(feature = "spool")]
use core::sync::atomic::AtomicBool;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The clock and the shared state of a simulation.
pub(super) struct World {
    pub(super) clock: SimClock,
    state: Mutex<State>,
    /// How often the state was locked. Written under its lock only.
    accesses: AtomicU64,
    /// See [`State::has_died`].
    #[cfg(feature = "spool")]
    has_died: Arc<AtomicBool>,
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
    /// The server's clock is ahead of the host's by this much, or behind it.
    server_ahead: Duration,
    server_behind: Duration,
    #[cfg(feature = "spool")]
    pub(super) clock: SimClock,
    /// The disk, once there is one.
    #[cfg(feature = "spool")]
    pub(super) drive: Option<alloc::boxed::Box<super::drive::Drive>>,
    /// A process was killed within an operation on the disk.
    #[cfg(feature = "spool")]
    pub(super) has_died: Arc<AtomicBool>,
}

impl World {
    pub(super) fn new(clock: SimClock, seed: u64, faults: Faults, has_timeline: bool) -> Arc<Self> {
        let start = clock.now();
        let mut rng = Rng::stream(seed, 18);
        let mut off = |is_off: bool| match is_off {
            true => Duration::from_millis(rng.below(3_600_000)),
            false => Duration::ZERO,
        };
        let is_off = Rng::stream(seed, 19).happens(faults.rate(Fault::ServerClockOff));
        let mut happened = [0; Fault::ALL.len()];
        happened[Fault::ServerClockOff as usize] = u32::from(is_off);
        #[cfg(feature = "spool")]
        let has_died = Arc::<AtomicBool>::default();
        Arc::new(Self {
            #[cfg(feature = "spool")]
            has_died: Arc::clone(&has_died),
            clock: clock.clone(),
            state: Mutex::new(State {
                server_ahead: off(is_off),
                server_behind: off(is_off),
                seed,
                draws: [0; 3],
                faults,
                server: Server::default(),
                trace: 0,
                happened,
                timeline: has_timeline.then(Vec::new),
                start,
                #[cfg(feature = "spool")]
                clock,
                #[cfg(feature = "spool")]
                drive: None,
                #[cfg(feature = "spool")]
                has_died,
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

    /// Whether a process was killed within an operation on the disk.
    #[cfg(feature = "spool")]
    #[inline]
    pub(super) fn has_died(&self) -> bool {
        self.has_died.load(Ordering::Relaxed) && self.has_died.swap(false, Ordering::Relaxed)
    }

    /// The process ends, with the spools that it has. There are none.
    #[cfg(not(feature = "spool"))]
    pub(super) const fn end_process(&self) -> Option<u32> {
        None
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
    #[cfg(feature = "spool")]
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    #[cfg(feature = "spool")]
    pub(super) fn since_start(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }

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

    /// What the server's clock shows.
    pub(super) fn server_utc(&self, utc: Timestamp) -> Timestamp {
        let ahead = later(utc, self.server_ahead);
        let micros = ahead.as_unix_micros();
        let behind = self.server_behind.as_micros() as u64;
        Timestamp::from_unix_micros(micros.saturating_sub(behind))
    }

    /// Whether the server refuses a request for one of its events: those that the fault has drawn, and those that the
    /// scenario names.
    pub(super) fn has_invalid_event(&mut self, request: &Inspected) -> bool {
        let rate = u64::from(self.faults.rate(Fault::InvalidEvent));
        let is_drawn = |id: u64| rate > 0 && mix(self.seed, id) % 1_000 < rate;
        let drawn = request.ids().filter(|id| is_drawn(*id)).count();
        self.happened[Fault::InvalidEvent as usize] += drawn as u32;
        drawn > 0 || self.server.refuses_events_of(request)
    }

    /// The first of these faults that occurs now.
    pub(super) fn first_to_occur(&mut self, rng: &mut Rng, faults: &[Fault]) -> Option<Fault> {
        let mut faults = faults.iter().copied();
        faults.find(|&fault| self.occurs(rng, fault))
    }
}
