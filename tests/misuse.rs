//! Misuse of smol and async-std: blocking inside the executor, no executor, several reporters for one session. Tokio,
//! embassy and forks have their own files.
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

/// The result of a blocking drain, which must return long before its timeout.
fn drain(handle: &Handle) -> Result<Drain, WouldDeadlock> {
    assert!(handle.log("x", ()));
    let start = Instant::now();
    let result = handle.wait_until_drained_blocking(BOUND);
    assert!(start.elapsed() < BOUND / 2, "it waited in vain");
    result
}

fn is_delivered(result: Result<Drain, WouldDeadlock>) -> bool {
    result.is_ok_and(|drain| drain.all_delivered())
}

/// Everything is delivered, even though the calling thread could not wait for it.
fn settles(handle: &Handle) {
    assert!(smol::block_on(handle.wait_until_drained(BOUND)).all_delivered());
}

// smol.

#[test]
fn blocking_works_outside_smols_executor() {
    let reporter = builder().runtime(Smol).start().expect("it starts");
    assert!(is_delivered(drain(&reporter)));
    let handle = reporter.handle();
    // `block_on` runs no tasks, so blocking inside it starves none.
    assert!(is_delivered(smol::block_on(async { drain(&handle) })));
    let handle = reporter.handle();
    assert!(is_delivered(smol::block_on(smol::unblock(move || drain(
        &handle
    )))));
}

#[test]
fn blocking_in_a_task_on_smols_only_thread_is_refused_even_before_the_drivers_first_poll() {
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
fn blocking_on_a_local_executors_thread_is_refused() {
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
fn a_dropped_executor_fails_the_start_and_ends_waits() {
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
fn on_an_executor_that_never_runs_waits_end_at_their_deadlines() {
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
fn blocking_works_outside_async_stds_executor() {
    let reporter = builder().runtime(AsyncStd).start().expect("it starts");
    assert!(is_delivered(drain(&reporter)));
    let handle = reporter.handle();
    let inside = async_std::task::block_on(async { drain(&handle) });
    assert!(is_delivered(inside));
    let handle = reporter.handle();
    let blocking = async_std::task::spawn_blocking(move || drain(&handle));
    assert!(is_delivered(async_std::task::block_on(blocking)));
}

#[test]
fn blocking_in_an_async_std_task_succeeds_or_is_refused() {
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
fn a_local_set_runs_sessions_started_inside_and_outside() {
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
fn an_ended_session_can_be_dropped_and_used_without_effect() {
    let reporter = builder().runtime(Thread).start().expect("it starts");
    let handle = reporter.handle();
    assert!(is_delivered(reporter.stop_blocking(BOUND)));
    drop(reporter);
    assert!(!handle.log("late", ()));
    let again = handle.stop_blocking(BOUND).expect("nothing to wait for");
    assert!(again.is_drained());
    let (sender, receiver) = channel();
    // Tasks still run: only the session has ended.
    let spawned = handle.spawn(async move { sender.send(()).expect("it is awaited") });
    assert!(spawned.is_ok());
    assert_eq!(receiver.recv_timeout(BOUND), Ok(()));
}

/// A transport that does not tell where it sends, as if its session were in another process.
struct Elsewhere(HttpTransport<Ureq>);

impl Transport for Elsewhere {
    fn send(
        &mut self,
        batch: Batch<'_>,
    ) -> impl Future<Output = Result<Receipt, SendError>> + Send {
        Transport::send(&mut self.0, batch)
    }
}

#[test]
fn the_backend_refuses_a_second_reporter_of_one_session() {
    let collector = Collector::start().expect("a collector");
    let reporters: Vec<_> = (0..2)
        .map(|_| {
            let config = Config::new(&collector.url(), "key").expect("a config");
            Reporter::builder("shared")
                .transport(Elsewhere(HttpTransport::new(config, Ureq::new())))
                .runtime(Thread)
                .enabled(true)
                .start()
                .expect("it starts")
        })
        .collect();
    // Each numbers its events from 0: the first to arrive owns the session, the other's events are refused, and its
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
