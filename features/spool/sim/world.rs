//! What everything in a simulation shares: the time, the files, the faults, and the book of all events.

use super::book::Book;
use super::faults::{Fault, Faults};
use super::files::Files;
use super::machine::{DiskFault, Machine, Simulation};
use super::rng::Rng;
use super::stage;
use crate::clock::Clock;
use crate::features::spool::owner::Owner;
use crate::features::spool::time::Time;
use crate::time::{Instant, Timestamp};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The wall clock at the beginning: some day in November 2025.
const BEGINNING: u64 = 1_764_000_000_000_000;

pub(super) const SECOND: u64 = 1_000_000;

pub(super) struct Core {
    pub(super) rng: Rng,
    /// Microseconds since the beginning.
    pub(super) now: u64,
    /// By how much the wall clock is off, and how often it has jumped.
    pub(super) wall: i64,
    pub(super) jumps: u32,
    timers: BTreeMap<(u64, u64), Waker>,
    last_timer: u64,
    pub(super) files: Files,
    pub(super) directory: PathBuf,
    pub(super) faults: Faults,
    pub(super) book: Book,
    pub(super) processes: BTreeMap<u32, Alive>,
    pub(super) full_until: u64,
    pub(super) read_only_until: u64,
    /// The backends, by destination.
    pub(super) unauthorized_until: [u64; 2],
    /// When requests arrived, for a test that asks for them.
    pub(super) requests: Option<Vec<u64>>,
    pub(super) boots: [u32; 2],
    pub(super) handles: u64,
    pub(super) failure: Option<String>,
    pub(super) trace: u64,
    pub(super) trace_lines: Option<Vec<String>>,
}

/// A process as the operating system sees it.
pub(super) struct Alive {
    pub(super) host: usize,
    pub(super) start: String,
    pub(super) is_dead: bool,
    pub(super) asleep_until: u64,
}

#[derive(Clone)]
pub(super) struct World(pub(super) Arc<Mutex<Core>>);

impl World {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    pub(super) fn new(seed: u64, directory: PathBuf, root: PathBuf, faults: Faults) -> Self {
        Self {
            rng: Rng::stream(seed, 1),
            now: 0,
            wall: 0,
            jumps: 0,
            timers: BTreeMap::new(),
            last_timer: 0,
            files: Files::new(root),
            directory,
            faults,
            book: Book::default(),
            processes: BTreeMap::new(),
            full_until: 0,
            read_only_until: 0,
            unauthorized_until: [0; 2],
            requests: None,
            boots: [0; 2],
            handles: 0,
            failure: None,
            trace: 0,
            trace_lines: None,
        }
    }

    pub(super) fn utc(&self) -> Timestamp {
        let utc = (BEGINNING + self.now).saturating_add_signed(self.wall);
        Timestamp::from_unix_micros(utc)
    }

    /// Whether the fault happens now. If so, it is counted.
    pub(super) fn happens(&mut self, fault: Fault) -> bool {
        let rate = self.faults.rate(fault);
        let happens = rate > 0 && self.rng.happens(rate);
        if happens {
            self.count(fault);
        }
        happens
    }

    /// Counts a fault, and whether it could have cost something.
    pub(super) fn count(&mut self, fault: Fault) {
        self.mix(100 + fault as u64, 0);
        self.note(|| alloc::format!("fault {fault:?}"));
        self.book.count(fault);
    }

    pub(super) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(what());
        }
    }

    /// Mixes a step into the trace.
    pub(super) fn mix(&mut self, what: u64, value: u64) {
        let mixed = self.trace ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ value ^ self.now << 20;
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.trace = mixed ^ (mixed >> 27);
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace_lines {
            let (s, ms) = (self.now / SECOND, self.now % SECOND / 1000);
            lines.push(alloc::format!("{s:>7}.{ms:03} {}", line()));
        }
    }

    pub(super) fn is_dead(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_none_or(|it| it.is_dead)
    }

    pub(super) fn kill(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.is_dead = true;
        }
        // Another process may get its number.
        self.files.forget_holder(pid);
        self.note(|| alloc::format!("process {pid} dies"));
    }

    /// Does something to the files that may destroy events. The book learns which are gone.
    pub(super) fn destroy(&mut self, work: impl FnOnce(&mut Self)) {
        let before = self.files.intact(&self.directory);
        let promised = self.files.promised();
        work(self);
        let after = self.files.intact(&self.directory);
        // Such as lines that have to be read by a copy of their head that no sync has reached yet.
        for number in promised.difference(&self.files.promised()) {
            if let Some(event) = self.book.event(*number) {
                (event.is_durable, event.is_damaged) = (false, true);
            }
        }
        let gone: Vec<_> = before.difference(&after).copied().collect();
        self.note(|| alloc::format!("destroyed: {gone:?}"));
        self.book.excuse(gone);
    }

    /// When the next timer is due.
    pub(super) fn next_timer(&self) -> Option<u64> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the timers that are due.
    pub(super) fn due(&mut self) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= self.now
        {
            due.push(entry.remove());
        }
        due
    }
}

impl Simulation for World {
    type Machine = Core;

    fn machine(&self) -> MutexGuard<'_, Core> {
        self.lock()
    }

    fn meanwhile(&self, until: u64, steps: u64) {
        stage::meanwhile(until, steps);
    }
}

impl Machine for Core {
    fn now(&self) -> u64 {
        self.now
    }

    fn utc(&self) -> Timestamp {
        self.utc()
    }

    fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn rate(&self, fault: DiskFault) -> u16 {
        self.faults.rate(fault.into())
    }

    fn happens(&mut self, fault: DiskFault) -> bool {
        self.happens(fault.into())
    }

    fn is_full(&self) -> bool {
        self.full_until > self.now
    }

    fn is_read_only(&self) -> bool {
        self.read_only_until > self.now
    }

    fn next_handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    fn is_dead(&self, pid: u32) -> bool {
        self.is_dead(pid)
    }

    fn kill(&mut self, pid: u32) {
        self.kill(pid);
    }

    fn sleep(&mut self, pid: u32, until: u64) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.asleep_until = until;
        }
    }

    fn owner(&self, pid: u32) -> Owner {
        let process = self.processes.get(&pid);
        let host = process.map_or(0, |it| it.host);
        Owner {
            place: alloc::format!("host-{host} boot-{}", self.boots[host]),
            pid,
            start: process.map(|it| it.start.clone()).unwrap_or_default(),
        }
    }

    fn started(&self, pid: u32, of: u32) -> Option<String> {
        let host = self.processes.get(&pid)?.host;
        let process = self.processes.get(&of)?;
        (process.host == host && !process.is_dead).then(|| process.start.clone())
    }

    fn mix(&mut self, what: u64, value: u64) {
        self.mix(what, value);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.note(line);
    }

    fn claims(&mut self, pid: u32, folder: u64, path: &Path) {
        stage::check_claim(self, pid, folder, path);
    }

    fn removes(&mut self, path: &Path) {
        stage::check_removal(self, path);
    }

    fn writes(&mut self, file: u64, is_rejected: bool, events: Vec<u64>) {
        let removed = &self.book.removed;
        let again: Vec<_> = events
            .into_iter()
            .filter(|it| removed.contains(it))
            .collect();
        // Not in a file that was removed meanwhile, nor in a copy of one whose session no one can tell, which may have a
        // line of another file.
        if !again.is_empty() && !is_rejected && self.files.is_below(&self.directory, file) {
            for number in again {
                self.book.removed.remove(&number);
            }
        }
    }

    fn writes_in_vain(&mut self, events: Vec<u64>) {
        self.book.excuse(events);
    }
}

impl From<DiskFault> for Fault {
    fn from(fault: DiskFault) -> Self {
        match fault {
            DiskFault::TornWrite => Self::TornWrite,
            DiskFault::LostSync => Self::LostSync,
            DiskFault::FailingSync => Self::FailingSync,
            DiskFault::ReadError => Self::ReadError,
            DiskFault::Slow => Self::Slow,
            DiskFault::Stalled => Self::Stalled,
            DiskFault::OwnerSleeps => Self::OwnerSleeps,
            DiskFault::Preempted => Self::Preempted,
            DiskFault::Killed => Self::Killed,
        }
    }
}

impl Time for World {
    fn now(&self) -> Instant {
        Instant::from_micros(self.lock().now)
    }

    fn utc(&self) -> Timestamp {
        self.lock().utc()
    }
}

impl Clock for World {
    fn now(&self) -> Instant {
        Time::now(self)
    }

    fn utc(&self) -> Timestamp {
        Time::utc(self)
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        Sleep {
            world: self.clone(),
            at: at.as_micros(),
            id: None,
        }
    }
}

struct Sleep {
    world: World,
    at: u64,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut core = this.world.lock();
        if core.now >= this.at {
            return Poll::Ready(());
        }
        let id = *this.id.get_or_insert_with(|| {
            core.last_timer += 1;
            core.last_timer
        });
        core.timers.insert((this.at, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.world.lock().timers.remove(&(self.at, id));
        }
    }
}
