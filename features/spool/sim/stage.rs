//! The stage: runs the processes step by step, in an order that the seed decides, and checks after each step.

use super::faults::Fault;
use super::process::{Actor, Process};
use super::world::{Core, SECOND, World};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use std::path::Path;

/// More steps than this at one instant are an endless loop.
const MOST_STEPS: u64 = 20_000;

std::thread_local! {
    /// The stage of the simulation that runs on this thread: a disk operation may let others run.
    static STAGE: RefCell<Option<Rc<Stage>>> = const { RefCell::new(None) };
}

pub(super) struct Stage {
    pub(super) world: World,
    pub(super) processes: RefCell<Vec<Rc<Process>>>,
    depth: Cell<u32>,
    steps_now: Cell<(u64, u64)>,
    pub(super) steps: Cell<u64>,
}

/// Sets the stage for this thread until it is dropped.
pub(super) struct Set;

impl Drop for Set {
    fn drop(&mut self) {
        STAGE.with(|stage| stage.borrow_mut().take());
    }
}

/// Runs others in the middle of an operation: until a time, or for some steps.
pub(super) fn meanwhile(until: u64, steps: u64) {
    let stage = STAGE.with(|stage| stage.borrow().clone());
    let Some(stage) = stage else {
        return;
    };
    // Deep enough for one to sleep while another stalls.
    if stage.depth.get() >= 3 {
        return;
    }
    stage.depth.set(stage.depth.get() + 1);
    if until > stage.world.lock().now {
        stage.run_until(until);
    } else {
        for _ in 0..steps {
            if !stage.step() {
                break;
            }
        }
    }
    stage.depth.set(stage.depth.get() - 1);
}

/// A process has renamed a folder. Its holder must be dead, or seem so to another host.
pub(super) fn check_claim(core: &mut Core, pid: u32, folder: u64, path: &Path) {
    core.count(Fault::Claimant);
    let Ok(holder) = core.files.node(folder).map(|node| node.holder) else {
        return;
    };
    let Some(holder) = holder.filter(|holder| !core.is_dead(*holder)) else {
        return;
    };
    let host = |pid: u32| core.processes.get(&pid).map(|process| process.host);
    // To another host it seems dead when its lock has not been touched for a while.
    if host(holder) == host(pid) && holder != pid {
        core.fail(|| format!("process {pid} claims {path:?} of process {holder}, which lives"));
    }
}

/// A file is removed. What it has must have arrived or be in another file, or it is evicted: the oldest first.
pub(super) fn check_removal(core: &mut Core, path: &Path) {
    let is_segment = path.extension().is_some_and(|it| it == "ndjson");
    let is_kept = path.starts_with(core.directory.join("rejected"));
    let (Ok(id), Some(folder)) = (core.files.find(path), path.parent()) else {
        return;
    };
    let Ok(events) = core.files.node(id).map(|node| node.intact()) else {
        return;
    };
    if !is_segment || is_kept {
        return;
    }
    let book = &core.book;
    let is_unsent = |number: &u64| {
        book.events
            .get(*number as usize)
            .is_some_and(|it| it.is_unsent())
    };
    let is_refused = |number: &u64| {
        let event = book.events.get(*number as usize);
        event.is_some_and(|it| it.was_refused && it.received == 0 && !it.is_excused)
    };
    let mut unsent: Vec<_> = events.iter().copied().filter(is_unsent).collect();
    let mut refused: Vec<_> = events.iter().copied().filter(is_refused).collect();
    if unsent.is_empty() && refused.is_empty() {
        return;
    }
    let lines = core.files.intact_lines(&core.directory);
    // Evicted before it was in `rejected`, or it is there.
    refused.retain(|number| !lines.iter().any(|(file, it)| it == number && *file != id));
    core.book.removed.extend(refused);
    let book = &core.book;
    unsent.retain(|number| {
        !lines
            .iter()
            .any(|(file, other)| other == number && *file != id)
    });
    let Some(oldest) = unsent.first().and_then(|it| book.events.get(*it as usize)) else {
        return;
    };
    // Not the start, which is kept; and one file may be on its way to the backend.
    let is_older = |number: &u64| {
        let event = book.events.get(*number as usize);
        event.is_some_and(|it| {
            it.is_unsent() && it.session == oldest.session && (1..oldest.index).contains(&it.index)
        })
    };
    let others = core
        .files
        .below(folder)
        .into_values()
        .filter(|it| *it != id);
    let others: BTreeSet<_> = others.collect();
    // Copies of what it has itself are no older.
    let older = lines.iter().filter(|(file, number)| {
        others.contains(file) && is_older(number) && !events.contains(number)
    });
    // With it stay the copies of what it has, which alone may be durable.
    let older = groups(older.copied());
    // What is too old goes by the dates of files.
    let by_age = core.now > 1_700 * SECOND || core.jumps > 0;
    if older > 1 && !by_age {
        core.fail(|| format!("{path:?} is evicted, and older events of its session are not"));
    }
    core.note(|| format!("it had {unsent:?}"));
    core.book.removed.extend(unsent);
}

/// In how many files these events are, each with its file; files that have an event in common are one.
fn groups(lines: impl Iterator<Item = (u64, u64)>) -> usize {
    let mut files: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (file, number) in lines {
        files.entry(file).or_default().insert(number);
    }
    let mut groups: Vec<BTreeSet<u64>> = Vec::new();
    for mut numbers in files.into_values() {
        let (joined, mut apart): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| !group.is_disjoint(&numbers));
        numbers.extend(joined.into_iter().flatten());
        apart.push(numbers);
        groups = apart;
    }
    groups.len()
}

impl Stage {
    pub(super) fn new(world: World) -> (Rc<Self>, Set) {
        let stage = Rc::new(Self {
            world,
            processes: RefCell::default(),
            depth: Cell::new(0),
            steps_now: Cell::new((0, 0)),
            steps: Cell::new(0),
        });
        STAGE.with(|current| *current.borrow_mut() = Some(Rc::clone(&stage)));
        (stage, Set)
    }

    /// The processes that live.
    pub(super) fn living(&self) -> Vec<Rc<Process>> {
        let core = self.world.lock();
        let processes = self.processes.borrow();
        let living = processes.iter().filter(|it| !core.is_dead(it.pid));
        living.cloned().collect()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.world.lock().failure.is_some()
    }

    /// Lets time pass until then, with all that happens in it.
    pub(super) fn run_until(&self, until: u64) {
        while self.advance(until) {}
    }

    /// Does one step, or lets time pass until there is one to do. Returns false at this time.
    pub(super) fn advance(&self, until: u64) -> bool {
        if self.has_failed() {
            return false;
        }
        if self.step() {
            return true;
        }
        let next = self.next_time();
        let mut core = self.world.lock();
        if core.now >= until {
            return false;
        }
        core.now = next.unwrap_or(until).clamp(core.now, until);
        let due = core.due();
        drop(core);
        due.into_iter().for_each(|waker| waker.wake());
        true
    }

    /// Runs until a condition holds, at most until a time. Returns whether it holds.
    pub(super) fn run_while(&self, until: u64, is_over: impl Fn(&Self) -> bool) -> bool {
        while !self.has_failed() && !is_over(self) {
            let now = self.world.lock().now;
            if now >= until {
                return false;
            }
            self.run_until((now + SECOND * 5).min(until));
        }
        is_over(self)
    }

    fn next_time(&self) -> Option<u64> {
        let living = self.living();
        let core = self.world.lock();
        let now = core.now;
        let mut next = core.next_timer();
        for process in living {
            let asleep = core
                .processes
                .get(&process.pid)
                .map_or(0, |it| it.asleep_until);
            let own = if asleep > now {
                Some(asleep)
            } else {
                process.due()
            };
            next = [next, own].into_iter().flatten().min();
        }
        next
    }

    /// Does one step of one of those who have something to do.
    pub(super) fn step(&self) -> bool {
        let living = self.living();
        let mut core = self.world.lock();
        let now = core.now;
        let mut runnable: Vec<(&Rc<Process>, Actor)> = Vec::new();
        for process in &living {
            let is_asleep = core
                .processes
                .get(&process.pid)
                .is_some_and(|it| it.asleep_until > now);
            if !is_asleep {
                let actors = process.runnable(now);
                runnable.extend(actors.into_iter().map(|actor| (process, actor)));
            }
        }
        if runnable.is_empty() || core.failure.is_some() {
            return false;
        }
        let (process, actor) = core.rng.pick(&runnable);
        core.mix(u64::from(process.pid), actor.number());
        let (at, steps) = self.steps_now.get();
        let steps = if at == now { steps + 1 } else { 0 };
        self.steps_now.set((now, steps));
        if steps > MOST_STEPS {
            core.fail(|| format!("work without an end: process {} {actor:?}", process.pid));
            return false;
        }
        drop(core);
        self.steps.set(self.steps.get() + 1);
        process.step(actor);
        self.check(process);
        self.bury();
        true
    }

    /// What must hold after each step.
    fn check(&self, process: &Process) {
        let stats = process.inner.shared.stats();
        if !stats.is_balanced() {
            self.world
                .lock()
                .fail(|| format!("the ledger of {} does not balance: {stats:?}", process.pid));
        }
    }

    /// Removes those that have ended. Not one that is in the middle of an operation.
    pub(super) fn bury(&self) {
        let all = self.processes.borrow().clone();
        for process in all.into_iter().filter(|it| !it.is_working()) {
            if self.world.lock().is_dead(process.pid) || process.is_over() {
                process.bury();
                self.processes
                    .borrow_mut()
                    .retain(|other| !Rc::ptr_eq(other, &process));
            }
        }
    }
}

impl Actor {
    const fn number(self) -> u64 {
        match self {
            Self::Writer => 0,
            Self::Keeper => 1,
            Self::Forwarder => 2,
            Self::Wait => 3,
            Self::Session(at) => 4 + at as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn files_with_an_event_in_common_are_one() {
        assert_eq!(groups([].into_iter()), 0);
        assert_eq!(groups([(1, 10), (1, 11), (2, 12)].into_iter()), 2);
        assert_eq!(
            groups([(1, 10), (2, 10), (2, 11), (3, 11), (4, 9)].into_iter()),
            2
        );
    }
}
