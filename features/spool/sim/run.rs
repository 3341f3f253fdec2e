//! One run: a plan is carried out, everything heals, and what was confirmed must have arrived.

use super::book::{Book, Event};
use super::faults::{Fault, Faults};
use super::files::numbers;
use super::plan::{Director, Plan};
use super::process::Setup;
use super::stage::Stage;
use super::world::{Core, SECOND, World};
use crate::features::spool::disk::Kind;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use std::path::PathBuf;
use std::sync::Mutex;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) failure: Option<String>,
    pub(super) trace: u64,
    pub(super) steps: u64,
    pub(super) faults: BTreeMap<Fault, (u32, u32)>,
    pub(super) confirmed: u64,
    pub(super) received: u64,
    pub(super) simulated: u64,
    pub(super) lines: Vec<String>,
}

impl Outcome {
    /// A number that differs if anything has happened otherwise.
    pub(super) fn digest(&self) -> u64 {
        let counts = [self.steps, self.confirmed, self.received, self.simulated];
        let mix = |all: u64, count: u64| (all ^ count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        counts.into_iter().fold(self.trace, mix).rotate_left(31)
    }
}

/// A world in which nothing has happened yet.
pub(super) fn world(seed: u64, faults: Faults) -> World {
    static WORLDS: AtomicU64 = AtomicU64::new(0);
    // The folders that a process holds are known by their paths, and runs are side by side.
    let root = PathBuf::from(format!("/sim-{}", WORLDS.fetch_add(1, Ordering::Relaxed)));
    let directory = root.join("spool");
    let core = Core::new(seed, directory, root, faults);
    World(Arc::new(Mutex::new(core)))
}

/// Runs a plan.
pub(super) fn run(seed: u64, faults: &Faults, plan: &Plan, is_traced: bool) -> Outcome {
    let world = world(seed, faults.clone());
    world.lock().trace_lines = is_traced.then(Vec::new);
    let (stage, _set) = Stage::new(world.clone());
    let director = Director::new(stage, plan.setup);
    for op in &plan.ops {
        if director.stage.has_failed() {
            break;
        }
        director.apply(*op);
    }
    finish(&director);
    for process in director.stage.processes.borrow_mut().drain(..) {
        process.bury();
    }
    let mut core = world.lock();
    if core.failure.is_none() {
        check_all(&mut core, plan.setup);
    }
    let confirmed = core.book.events.iter().filter(|it| it.is_confirmed);
    Outcome {
        confirmed: confirmed.count() as u64,
        failure: core.failure.take(),
        trace: core.trace,
        steps: director.stage.steps.get(),
        received: core.book.received,
        simulated: core.now,
        faults: core::mem::take(&mut core.book.faults),
        lines: core.trace_lines.take().unwrap_or_default(),
    }
}

/// Everything heals: sessions stop, waits end, processes leave, and others come and send what is left.
pub(super) fn finish(director: &Director) {
    let stage = &director.stage;
    director.heal();
    let now = || stage.world.lock().now;
    for process in stage.living() {
        process.stop_sessions(60 * SECOND);
    }
    stage.run_until(now() + 70 * SECOND);
    wait_for_all(director, "a wait does not end");
    leave_all(director);
    // Longer than a lock counts as that of a process which lives.
    stage.run_until(now() + 300 * SECOND);
    for to in 0..2 {
        if stage.has_failed() {
            return;
        }
        let Some(process) = director.start(0, to) else {
            stage
                .world
                .lock()
                .fail(|| String::from("a spool cannot be started"));
            return;
        };
        wait_for_all(director, "what is left is not sent");
        let is_alone = stage.run_while(now() + 1_800 * SECOND, |_| {
            process.inner.shared.stats().others == 0
        });
        if !is_alone {
            stage
                .world
                .lock()
                .fail(|| String::from("folders of the dead are not claimed"));
        }
        wait_for_all(director, "what is left is not sent in the end");
        leave_all(director);
    }
}

fn wait_for_all(director: &Director, what: &str) {
    let stage = &director.stage;
    let until = stage.world.lock().now + 7_200 * SECOND;
    for process in stage.living() {
        process.wait(until);
    }
    let is_over = |stage: &Stage| {
        let mut is_over = true;
        for process in stage.living() {
            let is_paused = process.left.get().is_some_and(|left| left.is_paused);
            if is_paused && stage.world.lock().now + 60 * SECOND < until {
                // The spool tries again in a while.
                process.wait(until);
            }
            is_over &= !process.is_waiting();
        }
        is_over
    };
    if !stage.run_while(until + 60 * SECOND, is_over) {
        let fail = || format!("{what}: it outlasts its timeout");
        stage.world.lock().fail(fail);
    }
    for process in stage.living() {
        let stats = process.inner.shared.stats();
        if process.left.get().is_some_and(|left| left.pending > 0) {
            stage.world.lock().fail(|| format!("{what}: {stats:?}"));
        }
    }
}

fn leave_all(director: &Director) {
    let stage = &director.stage;
    for process in stage.living() {
        process.leave();
    }
    let until = stage.world.lock().now + 3_600 * SECOND;
    if !stage.run_while(until, |stage| stage.living().is_empty()) {
        stage
            .world
            .lock()
            .fail(|| String::from("a process does not end"));
    }
}

/// What must hold in the end.
pub(super) fn check_all(core: &mut Core, setup: Setup) {
    let directory = core.directory.clone();
    let mut rejected = BTreeSet::new();
    let mut left = BTreeSet::new();
    let is_rejected = |path: &std::path::Path| path.starts_with(directory.join("rejected"));
    for (path, id) in core.files.below(&directory) {
        if let Ok(node) = core.files.node(id)
            && node.kind == Kind::File
            && path.extension().is_some_and(|it| it == "ndjson")
        {
            if is_rejected(&path) {
                rejected.extend(numbers(&node.data));
            } else {
                left.extend(node.own());
            }
        }
    }
    let failure = failure(&core.book, setup, core.now, &rejected, &left);
    if let Some(failure) = failure {
        core.fail(|| failure);
    }
}

/// Faults after which events may arrive twice.
const REPEATING: &[Fault] = &[
    Fault::TornWrite,
    Fault::LostSync,
    Fault::FailingSync,
    Fault::ReadError,
    Fault::Slow,
    Fault::Stalled,
    Fault::OwnerSleeps,
    Fault::Killed,
    Fault::EntryLost,
    Fault::UnlinkUndone,
    Fault::BitFlip,
    Fault::ZeroedSector,
    Fault::BadSector,
    Fault::Full,
    Fault::ReadOnly,
    Fault::DirectoryRemoved,
    Fault::WallJump,
    Fault::PowerCut,
    Fault::Crash,
    Fault::AnswerLost,
];

/// Faults that may cost what is in `rejected`.
const DESTRUCTIVE: &[Fault] = &[
    Fault::BitFlip,
    Fault::ZeroedSector,
    Fault::BadSector,
    Fault::DirectoryRemoved,
    Fault::PowerCut,
];

fn failure(
    book: &Book,
    setup: Setup,
    now: u64,
    rejected: &BTreeSet<u64>,
    left: &BTreeSet<u64>,
) -> Option<String> {
    let numbered = || (0_u64..).zip(&book.events);
    let missing: Vec<_> = numbered()
        .filter(|(_, it)| it.is_missing())
        .map(|(number, _)| number)
        .collect();
    let is_evicted = |number: &u64| book.removed.contains(number);
    let lost: Vec<_> = missing.iter().filter(|it| !is_evicted(it)).collect();
    if !lost.is_empty() {
        return Some(format!("events are lost, and were not evicted: {lost:?}"));
    }
    if missing.len() as u64 > book.evicted {
        let evicted = book.evicted;
        return Some(format!(
            "{evicted} events were evicted, but {missing:?} are lost"
        ));
    }
    let is_young = now < u64::try_from(setup.max_age.as_micros()).unwrap_or(u64::MAX);
    let logged: usize = book.events.iter().map(|it| it.json.len() + 200).sum();
    let is_small = (logged as u64) < setup.max_bytes / 3;
    if is_young && is_small && !book.began_late && book.evicted > 0 {
        let evicted = book.evicted;
        return Some(format!(
            "{evicted} events were evicted, young as they are, and with room"
        ));
    }
    let mut gone = numbered()
        .filter(|(number, it)| it.was_refused && it.is_confirmed && !rejected.contains(number));
    // What is evicted before it could be written there is counted as that.
    let may_be_evicted = missing.len() as u64 + gone.clone().count() as u64 <= book.evicted;
    if !book.has_happened(DESTRUCTIVE)
        && is_small
        && let Some((number, _)) =
            gone.find(|(number, _)| !may_be_evicted || !book.removed.contains(number))
    {
        return Some(format!(
            "event {number} was refused, and is not in `rejected`"
        ));
    }
    if !book.has_happened(REPEATING)
        && let Some((number, _)) = numbered().find(|(_, it)| it.received > 1)
    {
        return Some(format!(
            "event {number} arrived twice although nothing went wrong"
        ));
    }
    // Confirmed or not, what arrives without having been handed over is counted as late, or was under way in the end.
    let uncounted = numbered().filter(|(_, it)| it.received > 0 && !it.is_confirmed);
    let uncounted = uncounted.count() as u64;
    let allowed = book.late + book.unknown + book.straight;
    if uncounted > allowed {
        return Some(format!(
            "{uncounted} events arrived unconfirmed, {allowed} are known of"
        ));
    }
    // Evicted, and there again, since a power cut has undone that: what the session's later events have overtaken may be
    // one that was sent.
    let is_overtaken = |event: &Event| {
        let mut events = book.events.iter();
        events.any(|it| it.received > 0 && it.session == event.session && it.index > event.index)
    };
    let left: Vec<_> = left
        .iter()
        .filter(|number| {
            let event = book.events.get(**number as usize);
            event.is_some_and(|it| it.is_missing() && !is_overtaken(it))
        })
        .collect();
    (!left.is_empty()).then(|| format!("{left:?} are still on disk"))
}
