//! Smol and async-std used wrongly: blocked on from inside, left without an executor, shared by several reporters.
//! What tokio, embassy and a fork make of the same is in files of their own.
#![cfg(all(
    feature = "async-std",
    feature = "collector",
    feature = "smol",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

extern crate alloc;

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::error::Error as _;
use core::time::Duration;
use smol::{Executor, LocalExecutor};
use std::sync::mpsc::channel;
use std::time::Instant;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::runtime::{AsyncStd, Smol, WouldDeadlock};
use tinkex_telemetry::session::{BuildError, Builder};
use tinkex_telemetry::{
    Batch, Config, Drain, Handle, HttpTransport, Receipt, Reporter, SendError, Thread, Tokio,
    Transport, Ureq,
};
use tokio::task::LocalSet;

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(20);

struct Swallow;

impl Transport for Swallow {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

fn builder() -> Builder<Swallow, (), ()> {
    Reporter::builder("s").transport(Swallow).enabled(true)
}

/// What a blocking drain comes to; it does so long before its timeout.
fn drain(handle: &Handle) -> Result<Drain, WouldDeadlock> {
    assert!(handle.log("x", ()));
    let start = Instant::now();
    let result = handle.wait_until_drained_blocking(BOUND);
    assert!(start.elapsed() < BOUND / 2, "it waited for nothing");
    result
}

fn is_delivered(result: Result<Drain, WouldDeadlock>) -> bool {
    result.is_ok_and(|drain| drain.all_delivered())
}

/// What was asked for is done, though the thread that asked could not wait for it.
fn settles(handle: &Handle) {
    assert!(smol::block_on(handle.wait_until_drained(BOUND)).all_delivered());
}

// smol.

#[test]
fn smol_can_be_waited_for_outside_of_its_executor() {
    let reporter = builder().runtime(Smol).start().expect("it starts");
    assert!(is_delivered(drain(&reporter)));
    let handle = reporter.handle();
    // Runs no tasks, so nothing is kept from running.
    assert!(is_delivered(smol::block_on(async { drain(&handle) })));
    let handle = reporter.handle();
    assert!(is_delivered(smol::block_on(smol::unblock(move || drain(
        &handle
    )))));
}

#[test]
fn a_task_of_smols_only_thread_is_told_not_to_block_even_before_the_drivers_first_turn() {
    let result = smol::block_on(smol::spawn(async {
        let reporter = builder().runtime(Smol).start().expect("it starts");
        (drain(&reporter), reporter)
    }));
    let (result, reporter) = result;
    assert_eq!(result, Err(WouldDeadlock));
    settles(&reporter);
    let handle = reporter.handle();
    let result = smol::block_on(smol::spawn(async move { drain(&handle) }));
    assert_eq!(result, Err(WouldDeadlock));
    settles(&reporter);
}

#[test]
fn a_local_executor_is_told_not_to_block_its_thread() {
    let executor = Rc::new(LocalExecutor::new());
    let reporter = builder()
        .clock(Smol)
        .spawner(Rc::clone(&executor))
        .start_local()
        .expect("it starts");
    assert_eq!(drain(&reporter), Err(WouldDeadlock));
    smol::block_on(executor.run(async {
        assert_eq!(drain(&reporter), Err(WouldDeadlock));
        assert!(reporter.stop(BOUND).await.all_delivered());
    }));
}

#[test]
fn an_executor_that_is_gone_is_an_error_at_the_start_and_ends_waits_afterwards() {
    let executor = Arc::new(Executor::<'static>::new());
    let spawner = Arc::downgrade(&executor);
    let start = || builder().clock(Smol).spawner(spawner.clone()).start();
    let reporter = start().expect("it starts");
    drop(executor);
    let drained = drain(&reporter).expect("nothing to wait for");
    assert_eq!((drained.delivered, drained.remaining), (0, 2));
    assert!(!reporter.stats().driver_alive);
    let error = start().expect_err("there is no executor");
    assert!(matches!(error, BuildError::Spawn(_)));
    let reason = error.source().expect("it says why").to_string();
    assert_eq!(reason, "the smol executor is gone");
}

#[test]
fn an_executor_that_nobody_runs_ends_waits_at_their_deadlines() {
    let executor = Arc::new(Executor::<'static>::new());
    let spawner = Arc::downgrade(&executor);
    let reporter = builder().clock(Smol).spawner(spawner).start();
    let reporter = reporter.expect("it starts");
    let drained = reporter.wait_until_drained_blocking(Duration::from_millis(20));
    assert_eq!(drained.expect("from outside").remaining, 1);
    assert!(smol::block_on(executor.run(reporter.stop(BOUND))).all_delivered());
}

// async-std.

#[test]
fn async_std_can_be_waited_for_outside_of_its_executor() {
    let reporter = builder().runtime(AsyncStd).start().expect("it starts");
    assert!(is_delivered(drain(&reporter)));
    let handle = reporter.handle();
    let inside = async_std::task::block_on(async { drain(&handle) });
    assert!(is_delivered(inside));
    let handle = reporter.handle();
    let beside = async_std::task::spawn_blocking(move || drain(&handle));
    assert!(is_delivered(async_std::task::block_on(beside)));
}

#[test]
fn a_task_of_async_stds_waits_or_is_told_not_to() {
    let reporter = builder().runtime(AsyncStd).start().expect("it starts");
    for _ in 0..100 {
        let handle = reporter.handle();
        let task = async_std::task::spawn(async move { drain(&handle) });
        let result = async_std::task::block_on(task);
        assert!(result == Err(WouldDeadlock) || is_delivered(result));
        settles(&reporter);
    }
}

// tokio's LocalSet.

#[test]
fn a_local_set_takes_a_session_from_inside_and_from_outside() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let set = Rc::new(LocalSet::new());
    let tokio = Tokio::on(runtime.handle().clone());
    let outside = builder()
        .clock(tokio)
        .spawner(Rc::clone(&set))
        .start_local()
        .expect("it starts");
    assert_eq!(drain(&outside), Err(WouldDeadlock));
    set.block_on(&runtime, async {
        let inside = builder().runtime(Tokio).start_local().expect("it starts");
        assert_eq!(drain(&inside), Err(WouldDeadlock));
        assert!(inside.stop(BOUND).await.all_delivered());
        assert!(outside.stop(BOUND).await.all_delivered());
    });
    let nowhere = runtime.block_on(async { builder().runtime(Tokio).start_local() });
    let error = nowhere.expect_err("there is no LocalSet");
    let reason = error.source().expect("it says why").to_string();
    assert!(reason.contains("LocalSet"), "{reason}");
}

// Threads.

#[test]
fn a_session_that_has_ended_can_be_dropped_and_used_to_no_effect() {
    let reporter = builder().runtime(Thread).start().expect("it starts");
    let handle = reporter.handle();
    assert!(is_delivered(reporter.stop_blocking(BOUND)));
    drop(reporter);
    assert!(!handle.log("late", ()));
    let again = handle.stop_blocking(BOUND).expect("nothing to wait for");
    assert!(again.is_drained());
    let (tell, hear) = channel();
    // Tasks still run: only the session is over.
    let spawned = handle.spawn(async move { tell.send(()).expect("it is awaited") });
    assert!(spawned.is_ok());
    assert_eq!(hear.recv_timeout(BOUND), Ok(()));
}

#[test]
fn several_reporters_of_one_session_are_told_apart_by_the_backend() {
    let collector = Collector::start().expect("a collector");
    let reporters: Vec<_> = (0..2)
        .map(|_| {
            let config = Config::new(&collector.url(), "key").expect("a config");
            Reporter::builder("shared")
                .transport(HttpTransport::new(config, Ureq::new()))
                .runtime(Thread)
                .enabled(true)
                .start()
                .expect("it starts")
        })
        .collect();
    // Each numbers its events from 0: the first to come has the session, the other one's events are refused, and its
    // ledger says so.
    for reporter in &reporters {
        assert!(reporter.log("x", ()));
        let drain = reporter.wait_until_drained_blocking(BOUND);
        assert!(drain.is_ok_and(|drain| drain.is_drained()));
    }
    let [first, second] = [&reporters[0], &reporters[1]].map(|reporter| reporter.stats());
    assert_eq!((first.delivered, first.dropped.rejected), (2, 0));
    assert_eq!((second.delivered, second.dropped.rejected), (0, 2));
    assert!(!collector.violations().is_empty());
}
