//! How sessions end on executors: where dropping the owner waits, where it must not, and that every wait ends.
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::thread;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::runtime::{AsyncStd, Runtime as SessionRuntime, Smol};
use tinkex_telemetry::session::Builder as SessionBuilder;
use tinkex_telemetry::{
    Batch, Config, HttpTransport, Receipt, Reporter, Reqwest, SendError, Tokio, Transport,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_blocking};

/// A drop that waited this long would hang the test.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn multi_thread(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(workers).enable_all();
    builder.build().expect("a runtime")
}

fn current_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Counts the events that were sent.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<usize>>);

impl Counting {
    fn sent(&self) -> usize {
        *self.0.lock().expect("no panic")
    }
}

impl Transport for Counting {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        *self.0.lock().expect("no panic") += batch.event_count();
        Ok(Receipt::delivered())
    }
}

/// Never completes a send.
struct Stalled;

impl Transport for Stalled {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        core::future::pending().await
    }
}

fn session<T: Transport, R: SessionRuntime>(runtime: R, transport: T) -> SessionBuilder<T, R, R> {
    Reporter::builder("s")
        .transport(transport)
        .runtime(runtime)
        .enabled(true)
        .drop_timeout(DAY)
}

/// Does what a program does that fails early: logs, and returns with the session still queueing.
fn fail_early<R: SessionRuntime>(runtime: R, counting: &Counting) -> Result<(), &'static str> {
    let session = session(runtime, counting.clone()).start();
    let session = session.expect("it starts");
    assert!(session.log("x", ()));
    Err("the program's own")
}

#[test]
fn a_tokio_main_that_returns_early_sends_everything() {
    let collector = Collector::start().expect("a collector");
    let config = Config::new(&collector.url(), "key").expect("a config");
    multi_thread(1).block_on(async {
        let transport = HttpTransport::new(config, Reqwest::new().expect("a client"));
        let session = session(Tokio, transport).start().expect("it starts");
        assert!(session.log("x", ()));
    });
    let sent = collector.session("s").expect("it arrived");
    assert!(sent.has_ended());
    assert_eq!((sent.len(), sent.gaps()), (3, vec![]));
}

#[test]
fn an_owner_in_a_task_and_in_spawn_blocking_sends_everything() {
    for workers in [1, 2] {
        let runtime = multi_thread(workers);
        let counting = Counting::default();
        let inside = counting.clone();
        let task = runtime.spawn(async move { fail_early(Tokio, &inside) });
        assert!(runtime.block_on(task).expect("no panic").is_err());
        assert_eq!(counting.sent(), 3);
        let inside = counting.clone();
        let blocking = async { spawn_blocking(move || fail_early(Tokio, &inside)).await };
        assert!(runtime.block_on(blocking).expect("no panic").is_err());
        assert_eq!(counting.sent(), 6);
    }
}

#[test]
fn an_owner_dropped_by_a_panic_sends_everything() {
    let runtime = multi_thread(1);
    let counting = Counting::default();
    let inside = counting.clone();
    let task = runtime.spawn(async move {
        let session = session(Tokio, inside).start().expect("it starts");
        session.log("x", ());
        std::panic::resume_unwind(Box::new("simulated"));
    });
    assert!(runtime.block_on(task).is_err());
    assert_eq!(counting.sent(), 3);
}

#[test]
fn an_owner_outside_its_runtime_sends_everything_while_the_runtime_lives() {
    let runtime = multi_thread(1);
    let counting = Counting::default();
    assert!(fail_early(Tokio::on(runtime.handle().clone()), &counting).is_err());
    assert_eq!(counting.sent(), 3);
}

#[test]
fn an_owner_on_the_only_thread_of_its_executor_does_not_wait() {
    current_thread().block_on(async { drop(session(Tokio, Stalled).start().expect("it starts")) });
    let runtime = current_thread();
    drop(session(Tokio::on(runtime.handle().clone()), Stalled).start());
    let task = smol::spawn(async { drop(session(Smol, Stalled).start().expect("it starts")) });
    smol::block_on(task);
    let task = async { drop(session(AsyncStd, Stalled).start().expect("it starts")) };
    async_std::task::block_on(async_std::task::spawn(task));
}

#[test]
fn an_owner_in_a_local_set_does_not_wait() {
    let runtime = multi_thread(1);
    LocalSet::new().block_on(&runtime, async {
        let task = async { drop(session(Tokio, Stalled).start().expect("it starts")) };
        tokio::task::spawn_local(task).await.expect("no panic");
    });
}

#[test]
fn an_owner_that_the_shutdown_drops_does_not_wait() {
    for workers in [1, 2] {
        for _ in 0..20 {
            let runtime = multi_thread(workers);
            let (sender, receiver) = std::sync::mpsc::channel();
            drop(runtime.spawn(async move {
                let _session = session(Tokio, Stalled).start().expect("it starts");
                let _ = sender.send(());
                core::future::pending::<()>().await;
            }));
            receiver.recv().expect("it has started");
            drop(runtime);
        }
    }
}

#[test]
fn an_owner_that_outlives_its_runtime_does_not_wait() {
    for runtime in [multi_thread(1), current_thread()] {
        let handle = runtime.handle().clone();
        let session = session(Tokio::on(handle), Stalled)
            .start()
            .expect("it starts");
        drop(runtime);
        drop(session);
    }
}

#[test]
fn smol_and_async_std_programs_that_return_early_send_everything() {
    let counting = Counting::default();
    assert!(smol::block_on(async { fail_early(Smol, &counting) }).is_err());
    assert_eq!(counting.sent(), 3);
    assert!(async_std::task::block_on(async { fail_early(AsyncStd, &counting) }).is_err());
    assert_eq!(counting.sent(), 6);
}

/// Runs a future on this thread, without tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// In real time: that it passes although the runtime's own timers do not is under test.
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_wait_ends_at_its_deadline_while_its_runtime_is_blocked() {
    current_thread().block_on(async {
        let session = session(Tokio, Stalled).start().expect("it starts");
        let handle = session.handle();
        let helper = thread::spawn(move || block_on(handle.wait_until_drained(SHORT)));
        // Blocks the runtime's only thread.
        assert_eq!(helper.join().expect("no panic").remaining, 1);
        let (handle, tokio) = (session.handle(), tokio::runtime::Handle::current());
        let helper = thread::spawn(move || tokio.block_on(handle.stop(SHORT)));
        assert_eq!(helper.join().expect("no panic").remaining, 2);
    });
}

#[test]
fn a_wait_in_paused_time_is_not_ended_by_the_time_that_really_passes() {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let session = session(Tokio, Stalled).start().expect("it starts");
        let handle = session.handle();
        let helper = thread::spawn(move || block_on(handle.wait_until_drained(SHORT)));
        // Real time, five times what the wait would take; the runtime's stands still.
        thread::sleep(SHORT * 5);
        assert!(!helper.is_finished());
        tokio::time::advance(SHORT * 2).await;
        assert_eq!(helper.join().expect("no panic").remaining, 1);
    });
}
