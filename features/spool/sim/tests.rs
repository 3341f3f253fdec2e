//! What single faults must not do.

use super::disk::ProcessDisk;
use super::faults::Faults;
use super::plan::Director;
use super::process::{Process, Setup};
use super::run;
use super::stage::{Set, Stage};
use super::world::{SECOND, World};
use crate::features::spool::disk::Disk as _;
use crate::features::spool::writer::Sync;
use alloc::rc::Rc;
use core::time::Duration;

const DAY: u64 = 86_400 * SECOND;

/// A process with a session that has logged twenty events, and a backend that does not take them.
fn begin() -> (World, Director, Set, Rc<Process>) {
    let world = run::world(1, Faults::none());
    world.lock().unauthorized_until = [1_000 * DAY; 2];
    let (stage, set) = Stage::new(world.clone());
    let setup = Setup {
        max_bytes: 64 << 20,
        max_age: Duration::from_secs(14 * 86_400),
        sync: Sync::OnStop,
    };
    let director = Director::new(stage, setup);
    let process = director.start(0, 0).expect("a spool");
    process.open(0, "session".into());
    log(&process, 20);
    director.stage.run_until(5 * SECOND);
    assert!(process.inner.shared.stats().pending > 20);
    (world, director, set, process)
}

fn log(process: &Process, count: u64) {
    process.with_session(0, |session| {
        for _ in 0..count {
            session.log("GENERIC_EVENT", 50, false);
        }
    });
}

/// Heals, lets others send what is left, and checks.
fn end(world: &World, director: &Director) {
    run::finish(director);
    let mut core = world.lock();
    run::check_all(&mut core, director.setup);
    assert_eq!(core.failure, None);
    let lost = core.book.events.iter().filter(|it| it.received == 0);
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_wall_clock_that_jumps_to_2038_evicts_nothing() {
    let (world, director, _set, process) = begin();
    process.stop_sessions(SECOND);
    director.stage.run_until(DAY);
    world.lock().wall = (12 * 365 * DAY) as i64;
    director.stage.run_until(13 * DAY);
    let stats = process.inner.shared.stats();
    assert!(stats.evicted == 0 && stats.pending > 20, "{stats:?}");
    // Time that has passed counts.
    director.stage.run_until(16 * DAY);
    let stats = process.inner.shared.stats();
    assert!(stats.evicted > 20, "{stats:?}");
    assert_eq!(stats.pending, 1, "the session's start is kept");
}

#[test]
fn a_lock_that_cannot_be_read_does_not_keep_its_folder() {
    let (world, director, _set, process) = begin();
    let mut core = world.lock();
    core.kill(process.pid);
    let files = core.files.below(&core.directory);
    for (path, id) in files {
        if path.ends_with("lock") {
            core.files.node(id).expect("a file").bad.push(0..4096);
        }
    }
    drop(core);
    director.stage.bury();
    end(&world, &director);
}

#[test]
fn a_lock_from_the_future_does_not_keep_its_folder() {
    let (world, director, _set, process) = begin();
    let mut core = world.lock();
    core.wall = (12 * 365 * DAY) as i64;
    drop(core);
    director.stage.run_until(200 * SECOND);
    let mut core = world.lock();
    core.kill(process.pid);
    // Another boot, and the clock is right again: nothing tells when the owner has ended.
    core.wall = 0;
    core.boots = [1; 2];
    drop(core);
    director.stage.bury();
    end(&world, &director);
}

#[test]
fn a_directory_that_is_removed_is_made_again() {
    let (world, director, _set, process) = begin();
    let mut core = world.lock();
    let directory = core.directory.clone();
    core.destroy(|core| core.files.remove_all(&directory));
    drop(core);
    log(&process, 20);
    director.stage.run_until(60 * SECOND);
    let stats = process.inner.shared.stats();
    assert!(stats.straight == 0 && stats.pending >= 20, "{stats:?}");
    let core = world.lock();
    assert!(core.files.below(&core.directory).len() >= 3);
}

#[test]
fn a_forwarder_that_waits_for_the_backend_lets_others_run() {
    // A run's own time passes while the backend refuses all: a wait until then would be none, again and again.
    let (world, director, _set, process) = begin();
    world.lock().faults = Faults::none().with(super::faults::Fault::Failed, 1_000);
    world.lock().unauthorized_until = [0; 2];
    director.stage.run_until(3_600 * SECOND);
    world.lock().unauthorized_until = [1_000 * DAY; 2];
    world.lock().faults = Faults::none();
    director.stage.run_until(2 * 3_600 * SECOND);
    assert!(process.inner.shared.stats().is_paused);
    world.lock().unauthorized_until = [0; 2];
    end(&world, &director);
}

#[test]
fn a_line_that_a_power_cut_leaves_in_another_file_is_not_one_that_was_left_behind() {
    let (world, director, _set, process) = begin();
    let mut core = world.lock();
    core.kill(process.pid);
    let files = core.files.below(&core.directory);
    let segment = files.iter().find(|(path, _)| {
        let name = path.extension();
        name.is_some_and(|it| it == "ndjson")
    });
    let (path, id) = segment.map(|(path, id)| (path.clone(), *id)).expect("one");
    let all = core.files.node(id).expect("a file").own();
    assert_eq!(all.len(), 21);
    // Evicted, as far as the book knows.
    core.book.removed.extend(&all);
    core.book.evicted += all.len() as u64;
    core.book.began_late = true;
    run::check_all(&mut core, director.setup);
    let failure = core.failure.take().expect("they are there, and unsent");
    assert!(failure.ends_with("are still on disk"), "{failure}");
    // The same bytes where another file was: no one can believe them there.
    let data = core.files.node(id).expect("a file").data.clone();
    let now = core.utc();
    core.files
        .remove(&path, crate::features::spool::disk::Kind::File, now)
        .expect("removed");
    let other = core
        .files
        .create(&path, crate::features::spool::disk::Kind::File, now);
    let other = other.expect("another file");
    let node = core.files.node(other).expect("a file");
    node.append(&alloc::vec![b'\n'; data.len()], now);
    node.data = data;
    run::check_all(&mut core, director.setup);
    assert_eq!(core.failure, None);
}

#[test]
fn what_is_appended_to_a_file_that_was_removed_is_not_there_again() {
    let (world, _director, _set, process) = begin();
    let disk = ProcessDisk {
        simulation: world.clone(),
        pid: process.pid,
        holder: process.pid.into(),
    };
    let mut core = world.lock();
    let path = core.directory.join("segment.ndjson");
    let line = core.book.events[3].json.clone() + "\n";
    core.book.removed.insert(3);
    drop(core);
    let is_gone = || world.lock().book.removed.contains(&3);
    let mut file = disk.create(&path).expect("a file");
    disk.remove_file(&path).expect("it is removed");
    file.append(line.as_bytes()).expect("no one sees it");
    assert!(is_gone());
    let mut file = disk.create(&path).expect("another file");
    file.append(line.as_bytes()).expect("it is written");
    assert!(!is_gone());
}

#[test]
fn a_disk_that_removes_nothing_evicts_nothing() {
    let world = run::world(1, Faults::none());
    world.lock().unauthorized_until = [1_000 * DAY; 2];
    let (stage, _set) = Stage::new(world.clone());
    let setup = Setup {
        max_bytes: 64 << 10,
        max_age: Duration::from_secs(14 * 86_400),
        sync: Sync::OnStop,
    };
    let director = Director::new(stage, setup);
    let process = director.start(0, 0).expect("a spool");
    process.open(0, "session".into());
    let log = |count: u64| {
        process.with_session(0, |session| {
            session.most = 100;
            for _ in 0..count {
                session.log("GENERIC_EVENT", 3_000, false);
            }
        });
    };
    log(17);
    director.stage.run_until(5 * SECOND);
    let stats = process.inner.shared.stats();
    assert!(stats.pending > 17 && stats.evicted == 0, "{stats:?}");
    world.lock().read_only_until = 60 * SECOND;
    log(10);
    director.stage.run_until(50 * SECOND);
    let stats = process.inner.shared.stats();
    assert!(stats.pending > 17 && stats.evicted == 0, "{stats:?}");
    // Then there is room again, and the oldest make it.
    director.stage.run_until(300 * SECOND);
    let stats = process.inner.shared.stats();
    assert!(stats.evicted > 0 && stats.is_balanced(), "{stats:?}");
    run::finish(&director);
    let mut core = world.lock();
    run::check_all(&mut core, setup);
    assert_eq!(core.failure, None);
}
