//! After a `fork()`, the parent continues unaffected, the child's calls on the parent's session end at once and send
//! nothing, and the child can open its own sessions.
//!
//! Each forking program is a separate process: this test binary, running one of its `child_…` tests.
#![cfg(unix)]

extern crate alloc;

use ::fork::ProcessFork;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use serde_json::Value;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::id;
use std::sync::mpsc;
use std::thread;
use tinkex_telemetry::bus::{AttachError, Bus};
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::session::AlreadyDriven;
use tinkex_telemetry::{
    Batch, Drain, Handle, Receipt, SendError, Severity, Transport, capture, fields,
};

mod program;
mod spool;

use program::{BOUND, DAY, Journal, exit_code, fork, journal, run, session};

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The output of a future that is ready at once.
fn now<F: Future>(future: F) -> F::Output {
    match poll(&mut pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is pending"),
    }
}

/// Checks that a session opened by this process works, including its timers.
fn works(journal: &Path, name: &str) {
    let own = session(name, Journal::new(journal))
        .flush_interval(Duration::from_millis(5))
        .start()
        .expect("the session starts");
    assert!(own.log("own", ()));
    while own.stats().delivered < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    let drain = own
        .stop_blocking(BOUND)
        .expect("no executor on this thread");
    assert!(drain.all_delivered());
    let stats = own.stats();
    assert_eq!((stats.delivered, stats.refused.total()), (3, 0));
}

fn is_refused(drain: Drain, remaining: u64) -> bool {
    !drain.is_drained() && (drain.delivered, drain.dropped, drain.remaining) == (0, 0, remaining)
}

#[test]
fn in_the_child_every_call_ends_at_once_and_only_the_parent_sends_its_events() {
    let sent = run("child_calls_everything");
    let [parent] = sent.values().collect::<Vec<_>>()[..] else {
        panic!("the child sent something: {sent:?}");
    };
    let events: Vec<_> = events(parent).collect();
    let indices: Vec<_> = events.iter().map(|event| index(event)).collect();
    assert_eq!(indices, (0..6).collect::<Vec<_>>());
    assert_eq!(events[4]["event_name"], "afterwards");
    assert_eq!(events[5]["event"], "SESSION_END");
}

fn events(requests: &[Value]) -> impl Iterator<Item = &Value> {
    requests
        .iter()
        .flat_map(|request| request["events"].as_array().expect("an array"))
}

fn index(event: &Value) -> u64 {
    event["event_session_index"].as_u64().expect("a number")
}

#[test]
fn child_calls_everything() {
    let Some(path) = journal() else { return };
    let parent = session("parent", Journal::new(&path))
        .start()
        .expect("the session starts");
    (0..3).for_each(|n| assert!(parent.log("queued", fields! { n: n })));
    let before = parent.stats();

    let code = fork(|| {
        let mut refused = 0;
        let mut is_counted = |more: u64| {
            refused += more;
            let stats = parent.stats();
            (stats.refused.forked, stats.refused.total()) == (refused, refused)
        };
        let error = StatusError::new(500);
        assert!(!parent.log("x", fields! { n: 1 }) && is_counted(1));
        assert!(!parent.log("x", 1) && is_counted(1));
        assert!(!parent.log_exception(&error, Severity::Error) && is_counted(1));
        parent.flush();
        assert!(is_refused(now(parent.wait_until_drained(DAY)), 4));
        let fatal = parent.log_fatal_exception(&error, Severity::Critical);
        assert!(is_refused(now(fatal), 4) && is_counted(1));
        assert!(is_refused(now(parent.stop(DAY)), 4));

        let blocking = parent.wait_until_drained_blocking(DAY);
        assert!(blocking.is_ok_and(|drain| is_refused(drain, 4)));
        let blocking = parent.log_fatal_exception_blocking(&error, Severity::Critical);
        assert!(blocking.is_ok_and(|drain| is_refused(drain, 4)) && is_counted(1));
        let blocking = parent.stop_blocking(DAY);
        assert!(blocking.is_ok_and(|drain| is_refused(drain, 4)));

        assert!(parent.handle().spawn(async {}).is_err());
        let driver = parent.new_driver(Journal::new(&path));
        assert_eq!(driver.err(), Some(AlreadyDriven));

        let mut after = parent.stats();
        assert!(after.is_balanced() && !after.driver_alive && is_counted(0));
        after.driver_alive = true;
        after.refused.forked = 0;
        assert_eq!(after, before, "nothing else has changed");
        drop(parent.handle());
        0
    });
    assert_eq!(code, 0);

    assert_eq!(parent.stats(), before, "the parent is unaffected");
    assert!(parent.log("afterwards", ()));
    let drain = parent
        .stop_blocking(BOUND)
        .expect("no executor on this thread");
    assert!(drain.all_delivered());
    let stats = parent.stats();
    assert_eq!((stats.accepted, stats.delivered), (6, 6));
}

#[test]
fn in_the_child_the_parents_bus_calls_no_handler_and_the_global_bus_is_new() {
    let sent = run("child_executes_events");
    assert_eq!(sent.len(), 2, "each process sends its own: {sent:?}");
    for requests in sent.values() {
        let names: Vec<_> = events(requests)
            .filter_map(|event| event["event_name"].as_str())
            .collect();
        assert_eq!(names, ["an.event"]);
    }
}

#[test]
fn child_executes_events() {
    let Some(path) = journal() else { return };
    let execute = |bus: &Bus, session: &str| {
        bus.execute("an.event", &[], &[("session_id", session.into())]);
    };
    let open = |name: &'static str| {
        let session = session(name, Journal::new(&path)).events(["an.event"]);
        session.start().expect("the session starts")
    };
    let parent = open("parent");
    let own = Bus::new();
    own.attach("one", "an.event", |_| {
        panic!("a handler of the parent is called")
    })
    .expect("the id is free");
    let code = fork(|| {
        execute(&own, "parent");
        execute(Bus::global(), "parent");
        assert!(own.is_idle() && own.list().is_empty() && !own.detach("one"));
        assert_eq!(own.attach("two", "e", |_| {}), Err(AttachError::Forked));
        assert!(Bus::global().is_idle());
        let child = open("child");
        execute(Bus::global(), "child");
        let drain = child
            .stop_blocking(BOUND)
            .expect("no executor on this thread");
        u8::from(!drain.all_delivered() || parent.stats().refused.total() > 0)
    });
    assert_eq!(code, 0);
    assert_eq!(own.list().len(), 1);
    execute(Bus::global(), "parent");
    let drain = parent
        .stop_blocking(BOUND)
        .expect("no executor on this thread");
    assert!(drain.all_delivered());
}

#[test]
fn a_child_may_drop_a_session_of_its_parent() {
    let sent = run("child_drops_everything");
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[test]
fn child_drops_everything() {
    let Some(path) = journal() else { return };
    let open = || {
        let session = session("parent", Journal::new(&path)).start();
        Some(session.expect("the session starts"))
    };
    let mut parent = open();
    let code = fork(|| {
        drop(parent.take());
        0
    });
    assert_eq!(code, 0);
    // In the parent, the drop drains the queue.
    drop(parent.take());
}

#[test]
fn a_childs_own_session_has_a_process_uuid_a_thread_and_timers_of_its_own() {
    let sent = run("child_opens_sessions");
    let uuids = |requests: &Vec<Value>| {
        let uuid = |request: &Value| request["process_uuid"].as_str().map(String::from);
        requests.iter().map(uuid).collect::<BTreeSet<_>>()
    };
    let each: Vec<_> = sent.values().map(uuids).collect();
    assert_eq!(
        each.len(),
        5,
        "the parent, two children, and a child of each"
    );
    let all: BTreeSet<_> = each.iter().flatten().collect();
    assert!(each.iter().all(|uuids| uuids.len() == 1), "{each:?}");
    assert_eq!((all.len(), all.contains(&None)), (5, false), "{each:?}");
    let ids: Vec<_> = sent
        .values()
        .flat_map(|requests| events(requests))
        .collect();
    let unique: BTreeSet<_> = ids.iter().map(|event| event["event_id"].as_str()).collect();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn child_opens_sessions() {
    let Some(path) = journal() else { return };
    works(&path, "before");
    // A child that forks in turn, with and without its own session before that.
    for has_own in [true, false] {
        let code = fork(|| {
            if has_own {
                works(&path, "child");
            }
            let code = fork(|| {
                works(&path, "child's child");
                7
            });
            works(&path, "child again");
            code
        });
        assert_eq!(code, 7);
    }
    works(&path, "after");
}

/// Blocks each send until its gate opens.
struct Gated {
    journal: Journal,
    begun: Arc<AtomicBool>,
    gate: mpsc::Receiver<()>,
}

impl Transport for Gated {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        self.begun.store(true, Ordering::Release);
        // Blocking is fine: the driver has a dedicated thread.
        let _ = self.gate.recv();
        self.journal.write(&batch);
        Ok(Receipt::delivered())
    }
}

#[test]
fn a_wait_that_began_before_the_fork_ends_in_the_child_at_once() {
    let sent = run("child_is_already_waiting");
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[test]
fn child_is_already_waiting() {
    let Some(path) = journal() else { return };
    let begun = Arc::new(AtomicBool::new(false));
    let (open_gate, gate) = mpsc::channel();
    let transport = Gated {
        journal: Journal::new(&path),
        begun: Arc::clone(&begun),
        gate,
    };
    let parent = session("parent", transport)
        .start()
        .expect("the session starts");
    assert!(parent.log("x", ()));
    let mut wait = Box::pin(parent.wait_until_drained(DAY));
    while !begun.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(poll(&mut wait).is_pending());
    let code = fork(|| match poll(&mut wait) {
        Poll::Ready(drain) => u8::from(!is_refused(drain, 2)),
        Poll::Pending => 2,
    });
    assert_eq!(code, 0);
    assert!(poll(&mut wait).is_pending());
    drop(open_gate);
    let drain = parent
        .stop_blocking(BOUND)
        .expect("no executor on this thread");
    assert!(drain.all_delivered());
    assert!(now(wait).all_delivered());
}

/// Needs two polls for each batch, and writes each to the journal.
struct Slow(Journal);

impl Transport for Slow {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let mut polls = 0;
        poll_fn(|_| {
            polls += 1;
            self.0.write(&batch);
            if polls < 2 {
                Poll::Pending
            } else {
                Poll::Ready(Ok(Receipt::delivered()))
            }
        })
        .await
    }
}

#[test]
fn a_driver_without_a_dedicated_thread_ends_in_the_child_and_sends_nothing() {
    let sent = run("child_polls_the_driver");
    let [parent] = sent.values().collect::<Vec<_>>()[..] else {
        panic!("the child sent something: {sent:?}");
    };
    // Two batches in two polls each: the queued events, and the end.
    assert_eq!(parent.len(), 4);
}

#[test]
fn child_polls_the_driver() {
    let Some(path) = journal() else { return };
    let (parent, driver) = session("parent", Slow(Journal::new(&path)))
        .build()
        .expect("the defaults are valid");
    let mut driver = Box::pin(driver.run());
    let ends = |driver: &mut _| u8::from(poll(driver).is_pending());
    // Before its first poll, during a send, and while it sleeps.
    assert_eq!(fork(|| ends(&mut driver)), 0);
    parent.flush();
    assert!(poll(&mut driver).is_pending());
    assert_eq!(fork(|| ends(&mut driver)), 0);
    assert!(poll(&mut driver).is_pending());
    assert_eq!(parent.stats().delivered, 1);
    assert_eq!(fork(|| ends(&mut driver)), 0);
    let stopped = parent.stop(DAY);
    assert!(poll(&mut driver).is_pending());
    assert!(poll(&mut driver).is_ready());
    assert!(now(stopped).all_delivered());
}

/// Forks during a send, and continues in both processes like a transport that is unaware of the fork.
struct Forking(Journal);

impl Transport for Forking {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let code = match ::fork::fork_process().expect("the fork succeeds") {
            ProcessFork::Child => return Ok(Receipt::delivered()),
            ProcessFork::Parent(child) => exit_code(child),
        };
        assert_eq!(code, 0, "the child ends with its only thread");
        self.0.write(&batch);
        Ok(Receipt::delivered())
    }
}

#[test]
fn a_transport_that_forks_does_not_leave_a_second_driver_behind() {
    let sent = run("child_has_a_forking_transport");
    let [parent] = sent.values().collect::<Vec<_>>()[..] else {
        panic!("the child sent something: {sent:?}");
    };
    assert_eq!(events(parent).count(), 2_002);
}

#[test]
fn child_has_a_forking_transport() {
    let Some(path) = journal() else { return };
    let parent = session("parent", Forking(Journal::new(&path))).start();
    let parent = parent.expect("the session starts");
    // Every hundred events are a batch, and some of them wake the driver.
    (0..2_000).for_each(|n| assert!(parent.log("x", fields! { n: n })));
    let drain = parent
        .stop_blocking(BOUND)
        .expect("no executor on this thread");
    assert!(drain.all_delivered(), "{drain:?}");
    assert_eq!(parent.stats().delivered, 2_002);
}

#[test]
fn a_task_that_forks_ends_in_the_child_with_its_thread() {
    run("child_spawns_a_forking_task");
}

#[test]
fn child_spawns_a_forking_task() {
    let Some(path) = journal() else { return };
    let parent = session("parent", Journal::new(&path)).start();
    let parent = parent.expect("the session starts");
    let (sender, codes) = mpsc::channel();
    let task = async move {
        let code = match ::fork::fork_process().expect("the fork succeeds") {
            // The child has no other thread, so nothing there can wake this task: thread and process must end.
            ProcessFork::Child => core::future::pending().await,
            ProcessFork::Parent(child) => exit_code(child),
        };
        let _ = sender.send(code);
    };
    parent.handle().spawn(task).expect("a thread");
    assert_eq!(codes.recv_timeout(2 * BOUND), Ok(0));
}

/// Counts the events sent by the process that created it, and aborts any other that sends.
struct Counting {
    process: u32,
    events: Arc<AtomicU64>,
}

impl Transport for Counting {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        if self.process != id() {
            std::process::abort();
        }
        let events = batch.event_count() as u64;
        self.events.fetch_add(events, Ordering::Relaxed);
        Ok(Receipt::delivered())
    }
}

#[test]
fn no_child_hangs_whatever_the_parents_threads_were_doing() {
    let sent = run("child_forks_while_threads_log");
    assert!(sent.values().all(|requests| requests.len() == 1));
    assert_eq!(sent.len(), FORKS);
}

const FORKS: usize = 200;

#[test]
fn child_forks_while_threads_log() {
    const UNREADABLE: u8 = 1;
    let Some(path) = journal() else { return };
    let events = Arc::new(AtomicU64::new(0));
    let counting = Counting {
        process: id(),
        events: Arc::clone(&events),
    };
    let parent = session("parent", counting)
        .start()
        .expect("the session starts");
    let mut parent = Some(parent);
    let handle = parent
        .as_ref()
        .map(|parent| parent.handle())
        .expect("the session is open");
    let is_over = AtomicBool::new(false);
    let mut unreadable = 0;
    let logged = thread::scope(|scope| {
        let loggers = [true, false, false, false].map(|logs_exceptions| {
            let (handle, is_over) = (handle.clone(), &is_over);
            scope.spawn(move || {
                let mut accepted = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let is_accepted = if logs_exceptions {
                        handle.log_exception(&StatusError::new(500), Severity::Error)
                    } else {
                        handle.log("x", fields! { n: accepted })
                    };
                    accepted += u64::from(is_accepted);
                }
                accepted
            })
        });
        let forks = catch_unwind(AssertUnwindSafe(|| {
            for n in 0..FORKS {
                let code = fork(|| {
                    assert!(!handle.log("child", fields! { n: n }));
                    assert!(!handle.log_exception(&StatusError::new(500), Severity::Error));
                    let wait = handle.wait_until_drained_blocking(DAY);
                    assert!(wait.is_ok_and(|drain| !drain.is_drained()));
                    let stopped = handle.stop_blocking(DAY);
                    assert!(stopped.is_ok_and(|drain| !drain.is_drained()));
                    let stats = handle.stats();
                    assert!(stats.is_balanced() && !stats.driver_alive);
                    assert_eq!(stats.refused.forked, 2);
                    drop(parent.take());
                    let own = session("own", Journal::new(&path)).start();
                    let own = own.expect("the session starts");
                    assert!(own.log("own", ()));
                    let drain = own
                        .stop_blocking(BOUND)
                        .expect("no executor on this thread");
                    assert!(drain.all_delivered());
                    if stats.accepted == 0 { UNREADABLE } else { 0 }
                });
                assert!(code <= UNREADABLE, "fork {n}: {code}");
                unreadable += usize::from(code == UNREADABLE);
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        let accepted = loggers.into_iter().map(|logger| logger.join());
        let accepted = accepted.map(|logger| logger.expect("no panic"));
        (accepted.sum::<u64>(), forks.is_ok())
    });
    assert!(logged.1);
    let drain = handle
        .stop_blocking(BOUND)
        .expect("no executor on this thread");
    assert!(drain.all_delivered());
    let stats = handle.stats();
    assert_eq!(
        (stats.accepted, stats.delivered),
        (logged.0 + 2, logged.0 + 2)
    );
    assert_eq!(events.load(Ordering::Relaxed), stats.delivered);
    assert_eq!((stats.refused.forked, stats.dropped.total()), (0, 0));
    println!(
        "{FORKS} forks while {} events were logged, {unreadable} of them while an event was being queued",
        logged.0
    );
}

#[test]
fn the_child_begins_without_a_current_session_and_can_have_its_own() {
    let sent = run("child_looks_for_the_current_session");
    assert_eq!(sent.len(), 2, "both have sent: {sent:?}");
}

#[test]
fn child_looks_for_the_current_session() {
    let Some(path) = journal() else { return };
    let id = || Handle::current().session_id().map(String::from);
    let parent = session("parent", Journal::new(&path))
        .start()
        .expect("the session starts");
    parent.make_global();
    // Another thread holds the lock of the global session at the fork, or not.
    let is_done = Arc::new(AtomicBool::new(false));
    let looks = {
        let is_done = Arc::clone(&is_done);
        thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                drop(Handle::current());
            }
        })
    };
    for entered in [None, Some(parent.enter())] {
        let is_entered = entered.is_some();
        let code = fork(|| {
            assert_eq!(id(), None);
            let refused = capture!({ Err::<(), _>(StatusError::new(500)) });
            assert!(refused.is_err() && parent.stats().refused.total() == 0);
            drop(entered);
            if is_entered {
                let own = session("own", Journal::new(&path))
                    .start()
                    .expect("the session starts");
                assert!(own.make_global().is_none());
                assert_eq!(id().as_deref(), Some("own"));
                let of_parent = parent.enter();
                assert_eq!(id().as_deref(), Some("own"));
                drop(of_parent);
                let drain = own.stop_blocking(BOUND).expect("nothing runs here");
                assert!(drain.all_delivered());
            }
            0
        });
        assert_eq!(code, 0);
    }
    is_done.store(true, Ordering::Relaxed);
    looks.join().expect("it does not panic");
    assert_eq!(id().as_deref(), Some("parent"));
    let drain = parent.stop_blocking(BOUND).expect("nothing runs here");
    assert!(drain.all_delivered());
}
