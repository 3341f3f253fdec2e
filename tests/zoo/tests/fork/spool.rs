//! A process with a spool forks: the spool and its files stay the parent's, the child may open a spool of its own in the
//! same directory, and one that outlives its parent holds nothing up.

use super::program::{BOUND, DAY, Journal, fork, journal, path_of, run, session};
use super::{events, index, now};
use core::time::Duration;
use fork::ProcessFork;
use serde_json::Value;
use std::path::Path;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::spool::{Left, Spool, SpoolStats};
use tinkex_telemetry::{Batch, Receipt, SendError, Thread, Transport, fields};

fn spool(journal: &Path, transport: impl Transport) -> Spool {
    Spool::builder(journal.with_extension("spool"))
        .transport(transport)
        .destination("the test's")
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(10))
        .retry_max_delay(Duration::from_millis(50))
        .enabled(true)
        .start()
        .expect("a spool")
}

/// A backend that is away.
struct Away;

impl Transport for Away {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Err(SendError::retryable("away"))
    }
}

/// The indices that a process's requests have, of one session.
fn indices(requests: &[Value], session: &str) -> Vec<u64> {
    let of = |request: &&Value| request["session_id"] == session;
    let requests: Vec<_> = requests.iter().filter(of).cloned().collect();
    events(&requests).map(index).collect()
}

#[test]
fn the_spool_stays_the_parents_and_the_child_may_have_its_own() {
    let program = "spool::child_forks_with_a_spool";
    let sent = run(program);
    std::fs::remove_dir_all(path_of(program).with_extension("spool")).expect("it was made");
    let [parent, child] = sent.values().collect::<Vec<_>>()[..] else {
        panic!("two processes send: {sent:?}");
    };
    let (parent, child) = match indices(parent, "parent").is_empty() {
        false => (parent, child),
        true => (child, parent),
    };
    // Start, five events before the fork, five after it, end.
    assert_eq!(indices(parent, "parent"), (0..12).collect::<Vec<_>>());
    assert_eq!(indices(child, "child"), (0..7).collect::<Vec<_>>());
    assert!(indices(parent, "child").is_empty() && indices(child, "parent").is_empty());
}

#[test]
fn child_forks_with_a_spool() {
    let Some(path) = journal() else { return };
    let parent = spool(&path, Journal::new(&path));
    let own = session("parent", parent.transport())
        .start()
        .expect("the session starts");
    (0..5).for_each(|n| assert!(own.log("before", fields! { n: n })));
    let drain = own.wait_until_drained_blocking(BOUND);
    assert!(drain.is_ok_and(|drain| drain.all_safe()));

    let code = fork(|| {
        assert_eq!(parent.stats(), SpoolStats::default());
        assert_eq!(now(parent.wait_until_delivered(DAY)), Left::default());
        let left = parent.wait_until_delivered_blocking(DAY);
        assert!(left.is_ok_and(|left| left == Left::default()));
        assert!(!own.log("in the child", ()));
        drop(parent.transport());
        // In the same directory, where the parent's folder is that of a living process.
        let spool = spool(&path, Journal::new(&path));
        let own = session("child", spool.transport())
            .start()
            .expect("the session starts");
        (0..5).for_each(|n| assert!(own.log("in the child", fields! { n: n })));
        let drain = own.stop_blocking(BOUND).expect("no executor here");
        assert!(drain.all_safe() && drain.handed_over == 7, "{drain:?}");
        let left = spool.wait_until_delivered_blocking(BOUND);
        assert!(left.is_ok_and(|left| left.is_empty() && left.others == 1));
        let stats = spool.stats();
        assert!(
            stats.is_balanced() && stats.delivered == 7 && stats.recovered == 0,
            "{stats:?}"
        );
        0
    });

    assert_eq!(code, 0);
    (5..10).for_each(|n| assert!(own.log("after", fields! { n: n })));
    let drain = own.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_safe(), "{drain:?}");
    let left = parent.wait_until_delivered_blocking(BOUND);
    assert!(left.is_ok_and(|left| left.is_empty()));
    let stats = parent.stats();
    assert!(stats.is_balanced() && stats.delivered == 12, "{stats:?}");
}

/// The child has inherited the descriptor of the lock, which stays locked as long as one of them is open.
#[test]
fn a_child_that_outlives_its_parent_does_not_keep_its_events() {
    let program = "spool::child_leaves_a_child_behind";
    let path = path_of(program);
    let sent = run(program);
    assert!(sent.is_empty(), "the backend was away: {sent:?}");
    let is_alive = path.with_extension("alive");
    assert!(is_alive.exists());
    let received = path.with_extension("received");
    let spool = spool(&path, Journal::new(&received));
    let left = spool.wait_until_delivered_blocking(BOUND);
    let stats = spool.stats();
    assert!(is_alive.exists(), "the child has ended too early");
    std::fs::remove_file(&is_alive).expect("the child waits for that");
    assert!(
        left.is_ok_and(|left| left.is_empty() && left.others == 0),
        "{stats:?}"
    );
    assert!(stats.is_balanced() && stats.delivered == 6, "{stats:?}");
    let lines = std::fs::read_to_string(&received).expect("a journal");
    assert_eq!(lines.matches("\"event_session_index\":").count(), 6);
    std::fs::remove_file(received).expect("it exists");
    drop(spool);
    std::fs::remove_dir_all(path.with_extension("spool")).expect("it was made");
}

#[test]
fn child_leaves_a_child_behind() {
    let Some(path) = journal() else { return };
    drop(Journal::new(&path));
    let is_alive = path.with_extension("alive");
    let spool = spool(&path, Away);
    let own = session("parent", spool.transport())
        .start()
        .expect("the session starts");
    (0..5).for_each(|n| assert!(own.log("before", fields! { n: n })));
    let drain = own.wait_until_drained_blocking(BOUND);
    assert!(drain.is_ok_and(|drain| drain.all_safe()));
    std::fs::write(&is_alive, "").expect("a file");
    if let ProcessFork::Child = ::fork::fork_process().expect("the fork succeeds") {
        // Until the file is removed.
        let give_up = Instant::now() + 6 * BOUND;
        while is_alive.exists() && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(5));
        }
    }
    // As at a kill: nothing is dropped.
    std::process::exit(0);
}
