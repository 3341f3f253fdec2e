//! The simulated disk's part of the world: its files, the process that uses them, and the spools on them.

use super::book::Book;
use super::faults::Fault;
use super::hash::mix;
use super::spawner::Tag;
use super::world::{State, World};
use crate::clock::Clock as _;
use crate::features::spool::by_hand::Watched;
use crate::features::spool::owner::Owner;
use crate::features::spool::sim::damage::Damage;
use crate::features::spool::sim::files::{Cut, Files};
use crate::features::spool::sim::machine::{DiskFault, Machine, Simulation};
use crate::features::spool::sim::rng::Rng;
use crate::time::Timestamp;
use crate::transport::Objects;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

const ROOT: &str = "/";

/// See [`State::drive`].
pub(super) struct Drive {
    pub(super) files: Files,
    pub(super) book: Book,
    pub(super) spools: Vec<Watched>,
    /// Those whose processes have ended.
    pub(super) ended: Vec<Watched>,
    pub(super) rng: Rng,
    /// Another one for each simulation of this program.
    run: u64,
    handles: u64,
    /// The process that lives, and when it began.
    pub(super) pid: u32,
    began: u64,
    boot: u32,
    pub(super) is_full: bool,
    pub(super) is_read_only: bool,
    full_until: u64,
    read_only_until: u64,
    /// No operation ends before.
    pub(super) hangs_until: u64,
    /// How often everything was healed, and who waits for the disk.
    pub(super) heals: u64,
    pub(super) waiting: Vec<Waker>,
    /// Processes that were killed within an operation.
    died: Vec<Tag>,
}

impl Drive {
    fn new(seed: u64, now: u64) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        Self {
            files: Files::new(PathBuf::from(ROOT)),
            book: Book::default(),
            spools: Vec::new(),
            ended: Vec::new(),
            rng: Rng::stream(seed, 30),
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            handles: 0,
            pid: 1,
            began: now,
            boot: 0,
            is_full: false,
            is_read_only: false,
            full_until: 0,
            read_only_until: 0,
            hangs_until: 0,
            heals: 0,
            waiting: Vec::new(),
            died: Vec::new(),
        }
    }

    /// See [`Disk::holder`](crate::features::spool::disk::Disk::holder).
    pub(super) const fn holder(&self) -> u64 {
        self.run << 32 | self.pid as u64
    }

    /// The tag of the tasks of the process that lives: no session has it.
    pub(super) const fn tag(&self) -> Tag {
        Tag::MAX - self.pid
    }

    /// The process ends. Returns the tag of its tasks.
    fn end_process(&mut self, now: u64) -> Tag {
        let tag = self.tag();
        self.files.forget_holder(self.pid);
        self.pid += 1;
        self.ended.clone_from(&self.spools);
        self.began = now;
        tag
    }

    fn intact(&self) -> BTreeSet<u64> {
        self.files.intact(Path::new(ROOT))
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> Vec<(PathBuf, u64)> {
        self.files.below(Path::new(ROOT)).into_iter().collect()
    }

    /// Does something that may destroy events.
    pub(super) fn destroy(&mut self, work: impl FnOnce(&mut Files)) {
        let (before, promised) = (self.intact(), self.files.promised());
        work(&mut self.files);
        self.book.doubt(&promised - &self.files.promised());
        self.book.excuse(&before - &self.intact());
    }

    pub(super) fn damage(&mut self, damage: Damage) -> Option<PathBuf> {
        let random = self.rng.below(u64::MAX);
        let paths = self.paths();
        let at = self.rng.below(paths.len().max(1) as u64) as usize;
        let (path, id) = paths.into_iter().nth(at)?;
        self.destroy(|files| {
            if let Ok(node) = files.node(id) {
                node.damage(damage, random);
            }
        });
        Some(path)
    }

    pub(super) fn heal(&mut self) -> Vec<Waker> {
        (self.is_full, self.is_read_only) = (false, false);
        (self.full_until, self.read_only_until, self.hangs_until) = (0, 0, 0);
        self.heals += 1;
        core::mem::take(&mut self.waiting)
    }

    /// What is wrong with what the spools have kept.
    pub(super) fn fault_in_keeping(&self) -> Option<String> {
        let left = self.intact();
        let missing = self.book.missing();
        let stats: Vec<_> = self.spools.iter().map(Watched::stats).collect();
        let counted = |stats: &crate::features::spool::SpoolStats| {
            stats.rejected + stats.evicted + stats.discarded + stats.unreadable
        };
        let counted: u64 = stats.iter().map(counted).sum();
        let lost: Vec<_> = missing.difference(&left).copied().collect();
        (lost.len() as u64 > counted).then(|| {
            format!(
                "{} confirmed events are neither at the server nor on disk, and {counted} are counted: {}",
                lost.len(),
                self.book.names(&lost)
            )
        })
    }
}

impl World {
    /// The process ends. Returns the tag of its spools' tasks, if there are any.
    pub(super) fn end_process(&self) -> Option<Tag> {
        let mut state = self.state();
        let now = Machine::now(&*state);
        state.server.may_repeat = true;
        let drive = state.drive.as_mut()?;
        Some(drive.end_process(now))
    }

    /// The power fails: the process ends, and what was not synced is lost, in part.
    pub(super) fn cut_power(&self) -> Option<Tag> {
        let mut state = self.state();
        state.note_line(|| "the power fails".into());
        state.cut_power()
    }

    /// The tags of the processes that were killed within an operation on the disk.
    pub(super) fn take_dead(&self) -> Vec<Tag> {
        let mut state = self.state();
        let drive = state.drive.as_mut();
        drive.map_or_else(Vec::new, |drive| core::mem::take(&mut drive.died))
    }
}

impl State {
    pub(super) fn drive(&mut self) -> &mut Drive {
        let (seed, now) = (self.seed(), self.clock.now().as_micros());
        self.drive
            .get_or_insert_with(|| Box::new(Drive::new(seed, now)))
    }

    fn note_line(&mut self, line: impl FnOnce() -> String) {
        let at = self.since_start();
        if let Some(timeline) = &mut self.timeline {
            timeline.push((at, line()));
        }
    }

    /// Whether a fault of the disk occurs now; counts it if so.
    pub(super) fn disk_fault_occurs(&mut self, fault: Fault) -> bool {
        let rate = self.faults.rate(fault);
        let occurs = rate > 0 && self.drive().rng.happens(rate);
        if occurs {
            self.count_disk_fault(fault);
        }
        occurs
    }

    pub(super) fn count_disk_fault(&mut self, fault: Fault) {
        self.happened[fault as usize] += 1;
        self.trace = mix(self.trace, fault as u64);
        self.server.may_repeat = true;
        self.note_line(|| format!("{fault:?}"));
    }

    /// Carries out a fault of the disk that was drawn for a moment rather than for an operation.
    pub(super) fn inject(&mut self, fault: Fault) {
        const HOUR: u64 = 3_600_000_000;
        let now = self.clock.now().as_micros();
        self.server.may_repeat = true;
        let drive = self.drive();
        let until = now.saturating_add(drive.rng.below(HOUR));
        match fault {
            Fault::DiskFull => drive.full_until = until,
            Fault::DiskReadOnly => drive.read_only_until = until,
            Fault::BitFlip => drop(drive.damage(Damage::BitFlip)),
            Fault::ZeroedSector => drop(drive.damage(Damage::ZeroedSector)),
            Fault::BadSector => drop(drive.damage(Damage::BadSector)),
            Fault::DirectoryRemoved => {
                let spools = drive.spools.len().max(1) as u64;
                let at = drive.rng.below(spools) as usize;
                if let Some(path) = drive.spools.get(at).map(|it| it.path().to_path_buf()) {
                    drive.destroy(|files| files.remove_all(&path));
                }
            }
            _ => {}
        }
    }

    fn cut_power(&mut self) -> Option<Tag> {
        let now = self.clock.now().as_micros();
        self.server.may_repeat = true;
        // A cut that the scenario asks for is not a gentle one.
        let rate = |fault, otherwise| match self.faults.rate(fault) {
            0 => otherwise,
            rate => rate,
        };
        let entry_lost = rate(Fault::EntryLost, 500);
        let unlink_undone = rate(Fault::UnlinkUndone, 500);
        let torn = rate(Fault::TornWrite, 10).saturating_mul(10);
        let drive = self.drive.as_mut()?;
        let tag = drive.end_process(now);
        drive.boot += 1;
        let (before, promised) = (drive.intact(), drive.files.promised());
        let Drive { files, rng, .. } = &mut **drive;
        let mut cut = Cut {
            rng,
            entry_lost,
            unlink_undone,
            torn,
            stale: Vec::new(),
            happened: [0; 3],
        };
        files.power_cut(&mut cut);
        let happened = cut.happened;
        let gone = &before - &drive.intact();
        let has_evicted = drive.spools.iter().any(|spool| spool.stats().evicted > 0);
        let broken = drive.book.broken_promises(&(&gone - &promised));
        drive.book.excuse(gone);
        if !has_evicted && !broken.is_empty() {
            let names = drive.book.names(&broken);
            let what = format!("a power cut loses events that were said to be synced: {names}");
            self.server.violations.push(what);
        }
        let faults = [Fault::EntryLost, Fault::UnlinkUndone, Fault::TornWrite];
        for (fault, times) in faults.into_iter().zip(happened) {
            if times > 0 {
                self.count_disk_fault(fault);
            }
        }
        Some(tag)
    }

    /// Notes the events of a request that the server stores.
    pub(super) fn note_arrival(&mut self, session: &str, body: &[u8]) {
        const LIST: &[u8] = br#""events":["#;
        let is_spooled = self.server.sessions.get(session);
        if !is_spooled.is_some_and(|record| record.is_spooled) {
            return;
        }
        let (Some(drive), Some(at)) = (&mut self.drive, memchr::memmem::find(body, LIST)) else {
            return;
        };
        for event in Objects(&body[at + LIST.len()..]) {
            if let Err(violation) = drive.book.receive(event) {
                let event = String::from_utf8_lossy(event);
                let what = format!("session {session}: {violation}: {event}");
                self.server.violations.push(what);
            }
        }
    }

    /// How long the disk does not answer, from now on, as a fault decides.
    pub(super) fn delay_of_disk(&mut self) -> Duration {
        let longest = if self.disk_fault_occurs(Fault::DiskStalled) {
            600_000_000
        } else if self.disk_fault_occurs(Fault::DiskSlow) {
            5_000_000
        } else {
            return Duration::ZERO;
        };
        Duration::from_micros(self.drive().rng.below(longest))
    }
}

impl Simulation for Arc<World> {
    type Machine = State;

    fn machine(&self) -> MutexGuard<'_, State> {
        self.state()
    }

    /// Others run between the tasks of a spool, not within them.
    fn meanwhile(&self, _: u64, _: u64) {}
}

/// The fault of the simulator, if it has one for an operation.
const fn of_operation(fault: DiskFault) -> Option<Fault> {
    Some(match fault {
        DiskFault::TornWrite => Fault::TornWrite,
        DiskFault::LostSync => Fault::LostSync,
        DiskFault::FailingSync => Fault::FailingSync,
        DiskFault::ReadError => Fault::ReadError,
        DiskFault::Killed => Fault::CrashInOperation,
        DiskFault::Slow | DiskFault::Stalled | DiskFault::OwnerSleeps | DiskFault::Preempted => {
            return None;
        }
    })
}

impl Machine for State {
    fn now(&self) -> u64 {
        self.clock.now().as_micros()
    }

    fn utc(&self) -> Timestamp {
        self.clock.utc()
    }

    fn files(&mut self) -> &mut Files {
        &mut self.drive().files
    }

    fn rng(&mut self) -> &mut Rng {
        &mut self.drive().rng
    }

    fn rate(&self, fault: DiskFault) -> u16 {
        of_operation(fault).map_or(0, |fault| self.faults.rate(fault))
    }

    fn happens(&mut self, fault: DiskFault) -> bool {
        of_operation(fault).is_some_and(|fault| self.disk_fault_occurs(fault))
    }

    fn is_full(&self) -> bool {
        let now = self.now();
        let drive = self.drive.as_ref();
        drive.is_some_and(|drive| drive.is_full || drive.full_until > now)
    }

    fn takes_nothing(&self) -> bool {
        self.drive.as_ref().is_some_and(|drive| drive.is_full)
    }

    fn is_read_only(&self) -> bool {
        let now = self.now();
        let drive = self.drive.as_ref();
        drive.is_some_and(|drive| drive.is_read_only || drive.read_only_until > now)
    }

    fn next_handle(&mut self) -> u64 {
        let drive = self.drive();
        drive.handles += 1;
        drive.handles
    }

    fn is_dead(&self, pid: u32) -> bool {
        self.drive.as_ref().is_none_or(|drive| drive.pid != pid)
    }

    fn kill(&mut self, _: u32) {
        let now = self.now();
        let drive = self.drive();
        let tag = drive.end_process(now);
        drive.died.push(tag);
        self.has_died.store(true, Ordering::Relaxed);
    }

    fn sleep(&mut self, _: u32, _: u64) {}

    fn owner(&self, pid: u32) -> Owner {
        let (boot, began) = self
            .drive
            .as_ref()
            .map_or((0, 0), |drive| (drive.boot, drive.began));
        Owner {
            place: format!("simulated boot-{boot}"),
            pid,
            start: format!("{began}"),
        }
    }

    fn started(&self, _: u32, of: u32) -> Option<String> {
        let drive = self.drive.as_ref()?;
        (drive.pid == of).then(|| format!("{}", drive.began))
    }

    fn mix(&mut self, what: u64, value: u64) {
        self.trace = mix(self.trace, mix(what, value));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.note_line(line);
    }

    fn writes_in_vain(&mut self, events: Vec<u64>) {
        self.drive().book.excuse(events);
    }
}
