//! Discarding all that is on disk: nothing of it arrives, whichever process wrote it, and nothing of it is left.

use super::faults::Faults;
use super::files::numbers;
use super::plan::Director;
use super::process::{Process, Setup};
use super::run;
use super::stage::{Set, Stage};
use super::world::{SECOND, World};
use crate::features::spool::stats::Left;
use crate::features::spool::writer::Sync;
use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::future::Future as _;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

const DAY: u64 = 86_400 * SECOND;

/// A world whose backend takes nothing.
fn begin() -> (World, Director, Set) {
    let world = run::world(1, Faults::none());
    world.lock().unauthorized_until = [DAY; 2];
    let (stage, set) = Stage::new(world.clone());
    let setup = Setup {
        max_bytes: 64 << 20,
        max_age: Duration::from_secs(14 * 86_400),
        sync: Sync::OnStop,
    };
    (world, Director::new(stage, setup), set)
}

/// A process whose session, of this number, has events on disk.
fn process(director: &Director, session: u64) -> Rc<Process> {
    let process = director.start(0, 0).expect("a spool");
    process.open(session, alloc::format!("session-{session}"));
    log(director, &process);
    assert!(process.inner.shared.stats().pending > 20);
    process
}

fn log(director: &Director, process: &Process) {
    process.with_session(0, |session| {
        for _ in 0..20 {
            session.log("GENERIC_EVENT", 50, false);
        }
    });
    let now = director.stage.world.lock().now;
    director.stage.run_until(now + 10 * SECOND);
}

/// Discards within ten seconds.
fn discard(director: &Director, process: &Process) -> Left {
    let done = process.inner.begin_discard();
    let now = director.stage.world.lock().now;
    director.stage.run_until(now + 10 * SECOND);
    let deadline = Some(crate::time::Instant::from_micros(now + 10 * SECOND));
    let wait = Arc::clone(&process.inner).discarded(done, deadline);
    match pin!(wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(left) => left,
        Poll::Pending => panic!("it outlasts its timeout"),
    }
}

/// From now on the backend takes everything, and everyone tries again.
fn heal(world: &World, director: &Director) {
    world.lock().unauthorized_until = [0; 2];
    let now = world.lock().now;
    director.stage.run_until(now + 1_000 * SECOND);
    assert_eq!(world.lock().failure, None);
}

/// The sessions of the events that have arrived, and of those that are on disk.
fn sessions(world: &World) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut core = world.lock();
    let core = &mut *core;
    let files = core.files.below(&core.directory);
    let mut on_disk = BTreeSet::new();
    for (path, id) in files {
        if path.extension().is_some_and(|it| it == "ndjson") {
            let node = core.files.node(id).expect("a file");
            on_disk.extend(numbers(&node.data));
        }
    }
    let of = |number: &u64| core.book.events[*number as usize].session;
    let on_disk = on_disk.iter().map(of).collect();
    let arrived = core.book.events.iter().filter(|event| event.received > 0);
    (arrived.map(|event| event.session).collect(), on_disk)
}

#[test]
fn what_is_discarded_neither_arrives_nor_stays_and_others_keep_theirs() {
    let (world, director, _set) = begin();
    let own = process(&director, 0);
    let ended = process(&director, 1);
    let other = process(&director, 2);
    // Its folder has not been claimed: the next look is in a minute.
    world.lock().kill(ended.pid);
    director.stage.bury();
    let left = discard(&director, &own);
    assert!(left.is_empty() && left.others == 1, "{left:?}");
    let stats = own.inner.shared.stats();
    assert!(stats.is_balanced() && stats.bytes == 0, "{stats:?}");
    assert_eq!(stats.discarded, stats.stored + stats.recovered);
    assert!(stats.recovered > 20, "{stats:?}");
    assert_eq!(sessions(&world).1, BTreeSet::from([2]));
    heal(&world, &director);
    assert_eq!(sessions(&world).0, BTreeSet::from([2]));
    assert_eq!(other.inner.shared.stats().pending, 0);
    // And the spool goes on with what is written later.
    log(&director, &own);
    let now = world.lock().now;
    director.stage.run_until(now + 1_000 * SECOND);
    let stats = own.inner.shared.stats();
    assert!(stats.delivered == 20 && stats.pending == 0, "{stats:?}");
    assert_eq!(sessions(&world).0, BTreeSet::from([0, 2]));
}

#[test]
fn a_disk_that_removes_nothing_sends_nothing_until_a_later_discard_succeeds() {
    let (world, director, _set) = begin();
    let own = process(&director, 0);
    world.lock().read_only_until = DAY;
    let left = discard(&director, &own);
    assert!(left.pending > 20, "{left:?}");
    heal(&world, &director);
    assert!(sessions(&world).0.is_empty(), "it was discarded");
    world.lock().read_only_until = 0;
    let left = discard(&director, &own);
    assert!(left.is_empty(), "{left:?}");
    heal(&world, &director);
    let (arrived, on_disk) = sessions(&world);
    assert!(arrived.is_empty() && on_disk.is_empty());
    log(&director, &own);
    heal(&world, &director);
    assert_eq!(own.inner.shared.stats().delivered, 20);
}
