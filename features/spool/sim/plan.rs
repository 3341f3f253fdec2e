//! Plans: what happens to a directory and its processes, drawn from a seed and kept as a list, so that it can be shrunk.

use super::damage::Damage;
use super::faults::{Fault, Faults};
use super::files::Cut;
use super::process::{Process, Setup};
use super::rng::Rng;
use super::session::Session;
use super::stage::Stage;
use super::world::{Core, SECOND};
use crate::features::spool::writer::Sync;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

const DAY: u64 = 86_400 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Start,
    Open,
    Log,
    Stop,
    Exit,
    Pass,
    Fault(Fault),
}

/// One step. What the numbers mean depends on what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) what: What,
    a: u64,
    b: u64,
}

impl core::fmt::Debug for Op {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}({}, {})", self.what, self.a % 1000, self.b % 1000)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) setup: Setup,
    pub(super) ops: Vec<Op>,
}

/// The faults that are steps of a plan.
const STEPS: [Fault; 10] = [
    Fault::BitFlip,
    Fault::ZeroedSector,
    Fault::BadSector,
    Fault::Full,
    Fault::ReadOnly,
    Fault::DirectoryRemoved,
    Fault::WallJump,
    Fault::PowerCut,
    Fault::PowerCut,
    Fault::Crash,
];

impl Plan {
    pub(super) fn draw(seed: u64, faults: &Faults) -> Self {
        let mut rng = Rng::stream(seed, 3);
        let sync = [
            Sync::Never,
            Sync::OnStop,
            Sync::OnStop,
            Sync::Every(Duration::from_secs(2)),
        ];
        let setup = Setup {
            max_bytes: rng.pick(&[64 << 10, 64 << 10, 1 << 20, 64 << 20]),
            max_age: Duration::from_secs(rng.pick(&[14 * 86_400, 14 * 86_400, 14 * 86_400, 1_800])),
            sync: rng.pick(&sync),
        };
        let count = rng.pick(&[8, 20, 60]);
        let mut ops = Vec::new();
        for at in 0..count {
            let what = match rng.below(16) {
                _ if at == 0 => What::Start,
                _ if at == 1 => What::Open,
                0 => What::Start,
                1 => What::Open,
                2..7 => What::Log,
                7 => What::Stop,
                8 if rng.below(2) == 0 => What::Exit,
                8..11 => What::Pass,
                _ => {
                    let fault = rng.pick(&STEPS);
                    if rng.happens(faults.rate(fault)) {
                        What::Fault(fault)
                    } else {
                        What::Log
                    }
                }
            };
            let (a, b) = (rng.below(u64::MAX), rng.below(u64::MAX));
            ops.push(Op { what, a, b });
        }
        Self { setup, ops }
    }
}

/// Carries out the steps of a plan.
pub(super) struct Director {
    pub(super) stage: Rc<Stage>,
    pub(super) setup: Setup,
    pids: Cell<u32>,
    sessions: Cell<u64>,
}

impl Director {
    pub(super) const fn new(stage: Rc<Stage>, setup: Setup) -> Self {
        Self {
            stage,
            setup,
            pids: Cell::new(100),
            sessions: Cell::new(0),
        }
    }

    pub(super) fn apply(&self, op: Op) {
        let (a, b) = (op.a, op.b);
        self.stage.world.lock().note(|| format!("{op:?}"));
        let living = self.stage.living();
        let chosen = (!living.is_empty()).then(|| &living[(a % living.len() as u64) as usize]);
        match op.what {
            What::Start => {
                if living.len() < 4 {
                    let to = usize::from(b.is_multiple_of(8));
                    let host = (a % 3 / 2) as usize;
                    self.start(host, to);
                }
            }
            What::Open => {
                if let Some(process) = chosen {
                    self.open(process, b);
                }
            }
            What::Log => {
                if let Some(process) = chosen {
                    process.with_session(b, |session| log(session, a, b));
                }
            }
            What::Stop => {
                if let Some(process) = chosen {
                    process.with_session(b, |session| session.stop((a % 40) * SECOND));
                }
            }
            What::Exit => {
                if let Some(process) = chosen {
                    process.stop_sessions(5 * SECOND);
                    let now = self.stage.world.lock().now;
                    process.wait(now + b % (20 * SECOND));
                    self.stage.run_until(now + 20 * SECOND);
                    process.leave();
                }
            }
            What::Pass => {
                let time = [SECOND / 10, SECOND, 30 * SECOND, 700 * SECOND][(a % 4) as usize];
                let now = self.stage.world.lock().now;
                self.stage.run_until(now + b % time);
            }
            What::Fault(fault) => self.fault(fault, chosen, a, b),
        }
        let mut core = self.stage.world.lock();
        let until = core.now + core.rng.below(SECOND);
        drop(core);
        self.stage.run_until(until);
    }

    pub(super) fn start(&self, host: usize, to: usize) -> Option<Rc<Process>> {
        self.stage.bury();
        // Numbers come again, as those of an operating system do.
        let mut pid = self.pids.get();
        self.pids.set(if pid > 105 { 100 } else { pid + 1 });
        while !self.stage.world.lock().is_dead(pid) {
            pid += 1;
        }
        let process = Process::start(&self.stage.world, pid, host, to, self.setup).ok();
        let Some(process) = process else {
            self.stage.world.lock().kill(pid);
            return None;
        };
        let process = Rc::new(process);
        self.stage.processes.borrow_mut().push(Rc::clone(&process));
        self.stage.bury();
        Some(process)
    }

    fn open(&self, process: &Process, b: u64) {
        let number = self.sessions.get();
        self.sessions.set(number + 1);
        // Some have the same id.
        process.open(number, format!("session-{}", b % 3));
    }

    fn fault(&self, fault: Fault, chosen: Option<&Rc<Process>>, a: u64, b: u64) {
        if fault == Fault::PowerCut && b.is_multiple_of(2) {
            self.wait_for_removal();
        }
        let mut core = self.stage.world.lock();
        let core = &mut *core;
        core.count(fault);
        match fault {
            Fault::Full => core.full_until = core.now + b % (3_600 * SECOND),
            Fault::ReadOnly => core.read_only_until = core.now + b % (3_600 * SECOND),
            Fault::DirectoryRemoved => {
                let directory = core.directory.clone();
                core.destroy(|core| core.files.remove_all(&directory));
            }
            Fault::WallJump => {
                let by = [300 * SECOND, DAY, 30 * DAY, 12 * 365 * DAY, 55 * 365 * DAY];
                let by = by[(a % 5) as usize] as i64;
                core.wall = match b % 3 {
                    0 => 0,
                    1 => core.wall.saturating_add(by),
                    // Not before 1970.
                    _ => core.wall.saturating_sub(by).max(-1_764_000_000_000_000),
                };
                core.jumps += 1;
            }
            Fault::Crash => {
                if let Some(process) = chosen {
                    core.kill(process.pid);
                }
            }
            Fault::PowerCut => power_cut(core),
            Fault::BitFlip | Fault::ZeroedSector | Fault::BadSector => {
                let files = core.files.below(&core.directory);
                if !files.is_empty() {
                    let at = (a % files.len() as u64) as usize;
                    let (path, id) = files
                        .iter()
                        .nth(at)
                        .map(|(path, id)| (path.clone(), *id))
                        .unwrap_or_default();
                    core.note(|| format!("in {path:?}"));
                    let damage = match fault {
                        Fault::BitFlip => Damage::BitFlip,
                        Fault::ZeroedSector => Damage::ZeroedSector,
                        _ => Damage::BadSector,
                    };
                    core.destroy(|core| {
                        if let Ok(node) = core.files.node(id) {
                            node.damage(damage, b);
                        }
                    });
                }
            }
            _ => {}
        }
    }

    /// While others still have events to send: until a moment after a file was removed, if one was.
    fn wait_for_removal(&self) {
        let (mut before, until) = {
            let core = self.stage.world.lock();
            (core.files.removals, core.now + 600 * SECOND)
        };
        while self.stage.advance(until) {
            let core = self.stage.world.lock();
            let removals = core.files.removals;
            if core::mem::replace(&mut before, removals) < removals && !core.book.open.is_empty() {
                break;
            }
        }
    }

    /// From now on nothing fails.
    pub(super) fn heal(&self) {
        let mut core = self.stage.world.lock();
        core.faults = Faults::none();
        core.full_until = 0;
        core.read_only_until = 0;
        core.unauthorized_until = [0; 2];
        let now = core.now;
        for process in core.processes.values_mut() {
            process.asleep_until = now;
        }
        core.note(|| String::from("healed"));
    }
}

fn log(session: &mut Session, a: u64, b: u64) {
    let count = [1, 3, 20, 120][(a % 4) as usize];
    let data = [10, 50, 400, 3_000][(b % 4) as usize];
    for at in 0..count {
        let is_error = (a >> 8).is_multiple_of(16) && at == 0;
        session.log("GENERIC_EVENT", data, is_error);
    }
}

/// The power fails: all processes die, and what was not synced is lost, in part.
fn power_cut(core: &mut Core) {
    let living: Vec<_> = core
        .processes
        .iter()
        .filter(|(_, it)| !it.is_dead)
        .collect();
    let pids: Vec<_> = living.into_iter().map(|(pid, _)| *pid).collect();
    for pid in pids {
        core.kill(pid);
    }
    core.boots[0] += 1;
    core.boots[1] += 1;
    let before = core.files.intact(&core.directory);
    let promised = core.files.promised();
    let Core {
        files, rng, faults, ..
    } = core;
    let mut cut = Cut {
        rng,
        entry_lost: faults.rate(Fault::EntryLost),
        unlink_undone: faults.rate(Fault::UnlinkUndone),
        torn: faults.rate(Fault::TornWrite).saturating_mul(10),
        stale: Vec::new(),
        happened: [0; 3],
    };
    files.power_cut(&mut cut);
    let happened = cut.happened;
    let faults = [Fault::EntryLost, Fault::UnlinkUndone, Fault::TornWrite];
    for (fault, times) in faults.into_iter().zip(happened) {
        if times > 0 {
            core.count(fault);
        }
    }
    let after = core.files.intact(&core.directory);
    for number in before.difference(&after) {
        let is_removed = core.book.removed.contains(number);
        let event = core.book.events.get(*number as usize);
        let was_durable = event
            .is_some_and(|it| it.is_durable && it.is_missing() && !core.book.may_be_unsynced(it));
        // What is lost although it was promised was lost by a sync that has lied.
        if was_durable && !is_removed && !promised.contains(number) {
            core.fail(|| format!("a power cut loses event {number}, which was synced"));
        }
    }
    let gone: Vec<_> = before.difference(&after).copied().collect();
    core.note(|| format!("the power cut costs {gone:?}"));
    core.book.excuse(gone);
}
