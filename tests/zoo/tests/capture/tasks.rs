//! Tasks: started on the session's executor, awaited by the application.

use crate::support::{BOUND, Failed, builder, pair, payload, smol, thread, tokio};
use ::smol::future::FutureExt as _;
use alloc::rc::Rc;
use core::future::{Future, pending};
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::task::{Context, Waker};
use std::sync::mpsc;
use tinkex_telemetry::capture::Capture;
use tinkex_telemetry::local::LocalSpawner;
use tinkex_telemetry::runtime::SpawnError;
use tinkex_telemetry::{Handle, Thread, Tokio, async_capture, async_capture_local};

/// What every runtime must do. The panic of a task reaches the task that awaits it.
async fn check_tasks(session: &Handle) {
    assert_eq!(async_capture!(reporter = session, { 5 }).await, Ok(5));
    let failing = async_capture!(reporter = session, { Err::<(), _>(Failed("task")) });
    assert_eq!(failing.await, Ok(Err(Failed("task"))));
    let panicking = async_capture!(reporter = session, { panic!("loud") });
    let panicked = AssertUnwindSafe(panicking).catch_unwind().await;
    let payload = panicked.map(drop).expect_err("the task panicked");
    assert_eq!(payload.downcast_ref(), Some(&"loud"));
    // Detached: not awaited.
    drop(
        session
            .capture()
            .spawn(async { Err::<(), _>(Failed("detached")) }),
    );
    let last = session.capture().spawn_plain(async { 7 });
    assert_eq!(last.await, Ok(7));
}

fn expected() -> Vec<(String, String)> {
    vec![
        pair("Failed", "detached"),
        pair("Failed", "task"),
        pair("panic", "loud"),
    ]
}

/// Waits for the detached task, which may run at any time.
async fn settle(session: &Handle) {
    let give_up = std::time::Instant::now() + BOUND;
    while session.stats().accepted < 4 {
        assert!(std::time::Instant::now() < give_up, "the task does not run");
        ::smol::future::yield_now().await;
    }
    assert!(session.stop(BOUND).await.all_delivered());
}

fn sorted(mut exceptions: Vec<(String, String)>) -> Vec<(String, String)> {
    exceptions.sort();
    exceptions
}

#[test]
fn tasks_on_threads() {
    let (session, kept) = thread();
    ::smol::block_on(async {
        check_tasks(&session).await;
        settle(&session).await;
    });
    assert_eq!(sorted(kept.exceptions()), expected());
}

#[test]
fn tasks_on_tokio_in_both_flavours() {
    for mut runtime in [
        ::tokio::runtime::Builder::new_current_thread(),
        ::tokio::runtime::Builder::new_multi_thread(),
    ] {
        let runtime = runtime.enable_time().build().expect("a runtime");
        let kept = runtime.block_on(async {
            let (session, kept) = tokio();
            check_tasks(&session).await;
            let give_up = std::time::Instant::now() + BOUND;
            while session.stats().accepted < 4 {
                assert!(std::time::Instant::now() < give_up, "the task does not run");
                ::tokio::task::yield_now().await;
            }
            assert!(session.stop(BOUND).await.all_delivered());
            kept
        });
        assert_eq!(sorted(kept.exceptions()), expected());
    }
}

#[test]
fn tasks_on_smol() {
    let (session, kept) = smol();
    ::smol::block_on(async {
        check_tasks(&session).await;
        settle(&session).await;
    });
    assert_eq!(sorted(kept.exceptions()), expected());
}

#[test]
fn tasks_also_run_when_telemetry_is_disabled() {
    let (builder, kept) = builder(Thread);
    let session = builder.enabled(false).start().expect("the session starts");
    let (sender, receiver) = mpsc::channel();
    let task = async_capture!(reporter = session, {
        sender
            .send(std::thread::current().id())
            .expect("the test is waiting");
        Err::<(), _>(Failed("unheard"))
    });
    // It runs on another thread before it is awaited.
    let ran_on = receiver.recv_timeout(BOUND).expect("the task runs");
    assert_ne!(ran_on, std::thread::current().id());
    assert_eq!(::smol::block_on(task), Ok(Err(Failed("unheard"))));
    assert_eq!(kept.events(), [] as [serde_json::Value; 0]);
}

#[test]
fn a_task_passes_its_panic_on_when_telemetry_is_disabled() {
    let (builder, kept) = builder(Thread);
    let session = builder.enabled(false).start().expect("the session starts");
    let task = async_capture!(reporter = session, { panic!("unheard") });
    let text = payload(|| ::smol::block_on::<Result<(), _>>(task));
    assert_eq!(text.downcast_ref(), Some(&"unheard"));
    assert_eq!(kept.events(), [] as [serde_json::Value; 0]);
}

#[test]
fn a_task_without_an_executor_runs_where_it_is_awaited() {
    let task = async_capture!({ std::thread::current().id() });
    assert!(!task.is_finished());
    assert_eq!(::smol::block_on(task), Ok(std::thread::current().id()));
    let text = payload(|| ::smol::block_on(Capture::new().spawn_plain(async { panic!("here") })));
    assert_eq!(text.downcast_ref(), Some(&"here"));
}

#[test]
fn a_task_whose_executor_is_shut_down_is_an_error_and_does_not_hang() {
    let runtime = ::tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let (builder, _kept) = builder(Tokio::on(runtime.handle().clone()));
    let session = builder.start().expect("the session starts");
    let (sender, receiver) = mpsc::channel();
    let task = async_capture!(reporter = session, {
        sender.send(()).expect("the test is waiting");
        pending::<()>().await;
    });
    receiver.recv_timeout(BOUND).expect("the task runs");
    runtime.shutdown_timeout(BOUND);
    let lost = ::smol::block_on(task).expect_err("the task was dropped");
    assert!(lost.to_string().contains("dropped the task"), "{lost}");
}

#[test]
fn a_task_not_started_before_its_executor_ended_runs_where_it_is_awaited() {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let (builder, _kept) = builder(Tokio::on(runtime.handle().clone()));
    let session = builder.start().expect("the session starts");
    let mut task = pin!(async_capture!(reporter = session, { 9 }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(task.as_mut().poll(&mut context).is_pending());
    drop(runtime);
    assert_eq!(::smol::block_on(task), Ok(9));
}

/// A single-threaded executor.
struct Local(::smol::LocalExecutor<'static>);

impl LocalSpawner for Local {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        self.0.spawn(task).detach();
        Ok(())
    }
}

#[test]
fn tasks_that_are_not_send_run_on_an_executor_of_this_thread() {
    let (session, kept) = thread();
    let local = Local(::smol::LocalExecutor::new());
    let shared = Rc::new(3);
    let held = Rc::clone(&shared);
    let good = async_capture_local!(spawner = &local, reporter = session, {
        ::smol::future::yield_now().await;
        held
    });
    let bad = session
        .capture()
        .spawn_local(&local, async { Err::<Rc<u8>, _>(Failed("local")) });
    ::smol::block_on(local.0.run(async {
        assert_eq!(good.await.as_deref(), Ok(&3));
        assert_eq!(bad.await, Ok(Err(Failed("local"))));
    }));
    assert_eq!(
        crate::support::finish(session, &kept),
        [pair("Failed", "local")]
    );
}
