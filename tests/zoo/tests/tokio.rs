//! The tokio runtime: both flavours, paused time, blocking waits, and missing or shut-down runtimes.

extern crate alloc;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::error::Error;
use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Mutex;
use std::thread;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::runtime::{Clock, Placement, Runtime as _, Spawner, WouldDeadlock};
use tinkex_telemetry::session::BuildError;
use tinkex_telemetry::sim::ManualTransport;
use tinkex_telemetry::{
    Batch, Config, Handle, HttpTransport, Receipt, Reporter, Reqwest, SendError, Tokio, Transport,
    fields,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_blocking};
use tokio::time::Instant;

/// Longer than any wait here takes, yet short enough for a person to wait.
const BOUND: Duration = Duration::from_secs(20);

fn multi_thread(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(workers).enable_all();
    builder.build().expect("a runtime")
}

fn current_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Records the time of each attempt, by tokio's clock, and fails the first `failures`.
#[derive(Clone, Default)]
struct Memory {
    attempts: Arc<Mutex<Vec<Instant>>>,
    failures: usize,
}

impl Memory {
    fn attempts(&self) -> Vec<Instant> {
        self.attempts.lock().expect("no panic").clone()
    }
}

impl Transport for Memory {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        let mut attempts = self.attempts.lock().expect("no panic");
        attempts.push(Instant::now());
        if attempts.len() <= self.failures {
            return Err(SendError::retryable("not yet"));
        }
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

/// Completes its sends once the gate is open.
#[derive(Clone)]
struct Gated(Arc<Semaphore>);

impl Transport for Gated {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        let open = self.0.acquire().await;
        open.map(|_| Receipt::delivered())
            .map_err(|_| SendError::retryable("the gate is gone"))
    }
}

fn start_on<T: Transport>(tokio: Tokio, transport: T) -> Reporter<T, Tokio, Tokio> {
    Reporter::builder("s")
        .transport(transport)
        .runtime(tokio)
        .enabled(true)
        .start()
        .expect("the session starts")
}

fn start<T: Transport>(transport: T) -> Reporter<T, Tokio, Tokio> {
    start_on(Tokio, transport)
}

fn refusal(error: &BuildError) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

// Delivery.

#[test]
fn events_arrive_from_both_flavours() {
    for runtime in [multi_thread(2), current_thread()] {
        let collector = Collector::start().expect("a collector");
        let config = Config::new(&collector.url(), "key").expect("a config");
        runtime.block_on(async {
            let client = Reqwest::new().expect("a client");
            let reporter = start(HttpTransport::new(config, client));
            assert!(reporter.log("x", fields! { n: 1 }));
            assert!(reporter.stop(BOUND).await.all_delivered());
        });
        let session = collector.session("s").expect("the session arrived");
        assert!(session.has_ended());
        assert_eq!((session.len(), session.gaps()), (3, vec![]));
        assert_eq!(collector.violations(), []);
    }
}

#[test]
fn a_dropped_reporter_is_stopped_by_its_executor() {
    for runtime in [multi_thread(1), current_thread()] {
        let collector = Collector::start().expect("a collector");
        let config = Config::new(&collector.url(), "key").expect("a config");
        runtime.block_on(async {
            let client = Reqwest::new().expect("a client");
            drop(start(HttpTransport::new(config, client)));
            let received = spawn_blocking(move || collector.wait_for("s", 2, BOUND));
            assert!(received.await.expect("no panic"));
        });
    }
}

// Time.

#[tokio::test(start_paused = true)]
async fn the_flush_interval_passes_in_paused_time() {
    let memory = Memory::default();
    let began = Instant::now();
    let reporter = start(memory.clone());
    while reporter.stats().delivered == 0 && began.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let waited = memory.attempts()[0] - began;
    assert!(
        waited >= Duration::from_secs(10) && waited < Duration::from_secs(11),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn retries_back_off_in_paused_time() {
    let memory = Memory {
        failures: 3,
        ..Memory::default()
    };
    let reporter = start(memory.clone());
    assert!(reporter.wait_until_drained(BOUND).await.all_delivered());
    let attempts = memory.attempts();
    for (n, least) in [1_000, 2_000, 4_000].into_iter().enumerate() {
        let gap = (attempts[n + 1] - attempts[n]).as_millis();
        assert!(
            (least..=least + least / 10 + 2).contains(&gap),
            "{n}: {gap} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_response_ends_at_its_timeout_in_paused_time() {
    let began = Instant::now();
    let reporter = start(Stalled);
    let drain = reporter.stop(Duration::from_secs(7)).await;
    assert_eq!((drain.delivered, drain.remaining), (0, 2));
    let waited = began.elapsed();
    assert!(waited <= Duration::from_millis(7_002), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn paused_time_stands_still_on_every_thread() {
    let mut tokio = Tokio;
    tokio.bind().expect("there is a runtime");
    let before = tokio.now();
    let elsewhere = tokio.clone();
    let there = thread::spawn(move || elsewhere.now());
    assert_eq!(there.join().expect("no panic"), before);
    tokio::time::advance(Duration::from_secs(3)).await;
    let elsewhere = tokio.clone();
    let there = thread::spawn(move || elsewhere.now())
        .join()
        .expect("no panic");
    assert_eq!(
        there.saturating_duration_since(before),
        Duration::from_secs(3)
    );
}

/// Runs a future on this thread, without tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// In real time: the sleeps themselves are under test.
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_sleep_may_be_created_and_polled_outside_the_runtime() {
    let runtime = multi_thread(1);
    let tokio = Tokio::on(runtime.handle().clone());
    let at = tokio.now().checked_add(SHORT).expect("no overflow");
    block_on(tokio.sleep_until(at));
    assert!(tokio.now() >= at);
}

#[test]
fn a_sleep_outlives_the_runtime_and_is_not_early() {
    for runtime in [multi_thread(1), current_thread()] {
        let tokio = Tokio::on(runtime.handle().clone());
        let at = tokio.now().checked_add(SHORT).expect("no overflow");
        let mut under_way = Box::pin(tokio.sleep_until(at));
        assert!(poll(under_way.as_mut()).is_pending());
        let untouched = tokio.sleep_until(at);
        drop(runtime);
        block_on(under_way);
        assert!(tokio.now() >= at);
        block_on(untouched);
        let later = tokio.now().checked_add(SHORT).expect("no overflow");
        block_on(tokio.sleep_until(later));
        assert!(tokio.now() >= later);
    }
}

#[test]
fn an_unbound_clock_works_with_any_runtime_and_with_none() {
    let at = || Tokio.now().checked_add(SHORT).expect("no overflow");
    let (outside, inside) = (at(), at());
    block_on(Tokio.sleep_until(outside));
    assert!(Tokio.now() >= outside);
    current_thread().block_on(async {
        Tokio.sleep_until(inside).await;
        let at = at();
        Tokio.sleep_until(at).await;
        assert!(Tokio.now() >= at);
    });
}

#[test]
fn a_sleep_until_the_end_of_time_does_not_overflow() {
    let runtime = current_thread();
    let end = tinkex_telemetry::time::Instant::from_micros(u64::MAX);
    for tokio in [Tokio, Tokio::on(runtime.handle().clone())] {
        assert!(poll(pin!(tokio.sleep_until(end))).is_pending());
        let now = tokio.now();
        assert!(poll(pin!(tokio.sleep_until(now))).is_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_sleep_leaves_no_task_behind() {
    let mut tokio = Tokio;
    tokio.bind().expect("there is a runtime");
    let at = tokio.now().checked_add(BOUND).expect("no overflow");
    let metrics = tokio::runtime::Handle::current().metrics();
    {
        let mut sleep = pin!(tokio.sleep_until(at));
        assert!(poll(sleep.as_mut()).is_pending());
        assert_eq!(metrics.num_alive_tasks(), 1);
    }
    let began = std::time::Instant::now();
    while metrics.num_alive_tasks() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "a task stays");
        tokio::task::yield_now().await;
    }
}

// Missing, incomplete or shut-down runtimes.

#[test]
fn outside_a_runtime_nothing_starts() {
    let builder = Reporter::builder("s").transport(Stalled).runtime(Tokio);
    let error = builder.enabled(true).start().expect_err("no runtime");
    assert_eq!(
        refusal(&error),
        "there is no tokio runtime here: start inside one, or use Tokio::on(handle)"
    );
    let builder = Reporter::builder("s").transport(Stalled).runtime(Tokio);
    assert!(builder.enabled(false).start().is_ok());
}

#[test]
fn a_session_can_be_started_from_outside_on_a_given_runtime() {
    let runtime = multi_thread(1);
    let reporter = start_on(Tokio::on(runtime.handle().clone()), Memory::default());
    assert_eq!(
        reporter.stop_blocking(BOUND).map(|drain| drain.delivered),
        Ok(2)
    );
}

#[test]
fn a_runtime_without_timers_is_refused() {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let builder = Reporter::builder("s")
        .transport(Stalled)
        .runtime(Tokio::on(runtime.handle().clone()));
    let error = builder.enabled(true).start().expect_err("no timers");
    assert_eq!(
        refusal(&error),
        "the tokio runtime has no timers: build it with enable_time()"
    );
}

#[test]
fn nothing_starts_on_a_runtime_that_has_shut_down() {
    for runtime in [multi_thread(1), current_thread()] {
        let handle = runtime.handle().clone();
        drop(runtime);
        let builder = Reporter::builder("s")
            .transport(Stalled)
            .runtime(Tokio::on(handle));
        let error = builder
            .enabled(true)
            .start()
            .expect_err("the runtime is shut down");
        assert_eq!(refusal(&error), "the tokio runtime is shut down");
    }
}

#[test]
fn a_task_that_finishes_at_once_still_counts_as_started() {
    let runtime = multi_thread(1);
    let tokio = Tokio::on(runtime.handle().clone());
    for _ in 0..1000 {
        assert_eq!(tokio.spawn(async {}), Ok(()));
    }
    assert_eq!(tokio.placement(), Placement::Shared);
}

#[test]
fn waits_end_at_once_when_the_runtime_of_a_reporter_shuts_down() {
    for runtime in [multi_thread(2), current_thread()] {
        let reporter = start_on(Tokio::on(runtime.handle().clone()), Stalled);
        let handle = reporter.handle();
        let waiting = thread::spawn(move || handle.wait_until_drained_blocking(Duration::MAX));
        let handle = reporter.handle();
        let awaiting = thread::spawn(move || block_on(handle.wait_until_drained(Duration::MAX)));
        drop(runtime);
        let drain = waiting.join().expect("no panic").expect("no deadlock");
        assert_eq!((drain.delivered, drain.dropped, drain.remaining), (0, 0, 1));
        assert_eq!(awaiting.join().expect("no panic"), drain);
        assert!(!reporter.stats().driver_alive);
        let drain = reporter.stop_blocking(Duration::MAX).expect("no deadlock");
        assert_eq!(drain.remaining, 2);
        assert!(reporter.stats().is_balanced());
    }
}

// Blocking waits.

fn drain(handle: &Handle) -> Result<u64, WouldDeadlock> {
    let drain = handle.wait_until_drained_blocking(BOUND)?;
    assert!(drain.is_drained());
    Ok(drain.delivered)
}

#[test]
fn blocking_works_in_a_task_of_a_multi_thread_runtime() {
    let runtime = multi_thread(1);
    let task = async {
        let reporter = start(Memory::default());
        // At once, when the driver may be the next task of this worker; and again, after it has run here.
        for n in 0..20 {
            assert_eq!(drain(&reporter), Ok(1), "{n}");
            reporter.log("x", ());
            tokio::task::yield_now().await;
        }
    };
    runtime.block_on(runtime.spawn(task)).expect("no panic");
    // Also in the future of `block_on` itself.
    runtime.block_on(async { assert_eq!(drain(&start(Memory::default())), Ok(1)) });
}

#[test]
fn blocking_is_refused_in_a_local_set() {
    let runtime = multi_thread(1);
    LocalSet::new().block_on(&runtime, async {
        // The driver runs on another thread; a drain that finds nothing left to wait for would not be refused.
        let gate = Arc::new(Semaphore::new(0));
        let reporter = start(Gated(Arc::clone(&gate)));
        let handle = reporter.handle();
        let task = tokio::task::spawn_local(async move {
            handle.log("x", ());
            drain(&handle)
        });
        assert_eq!(task.await.expect("no panic"), Err(WouldDeadlock));
        gate.add_permits(1);
        // The refused call has still requested the flush.
        assert!(reporter.wait_until_drained(BOUND).await.is_drained());
    });
}

#[test]
fn blocking_is_refused_in_a_current_thread_runtime_before_and_after_the_driver_has_run() {
    current_thread().block_on(async {
        let reporter = start(Memory::default());
        assert_eq!(drain(&reporter), Err(WouldDeadlock));
        let handle = reporter.handle();
        let task = tokio::spawn(async move {
            handle.log("x", ());
            drain(&handle)
        });
        assert_eq!(task.await.expect("no panic"), Err(WouldDeadlock));
        assert!(reporter.wait_until_drained(BOUND).await.is_drained());
        reporter.log("x", ());
        assert_eq!(drain(&reporter), Err(WouldDeadlock));
        assert_eq!(reporter.stop_blocking(BOUND), Err(WouldDeadlock));
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn blocking_is_refused_on_any_thread_that_runs_a_current_thread_runtime() {
    let runtime = current_thread();
    let reporter = runtime.block_on(async {
        let reporter = start(Memory::default());
        assert!(reporter.wait_until_drained(BOUND).await.is_drained());
        reporter
    });
    reporter.log("x", ());
    let there = thread::spawn(move || runtime.block_on(async { drain(&reporter) }));
    assert_eq!(there.join().expect("no panic"), Err(WouldDeadlock));
}

#[test]
fn blocking_works_in_spawn_blocking_and_outside() {
    for runtime in [multi_thread(1), current_thread()] {
        runtime.block_on(async {
            let reporter = start(Memory::default());
            let handle = reporter.handle();
            let inside = spawn_blocking(move || drain(&handle));
            assert_eq!(inside.await.expect("no panic"), Ok(1));
            reporter.log("x", ());
            let handle = reporter.handle();
            let outside = thread::spawn(move || drain(&handle));
            while !outside.is_finished() {
                tokio::task::yield_now().await;
            }
            assert_eq!(outside.join().expect("no panic"), Ok(1));
        });
    }
}

#[test]
fn a_panic_in_a_blocking_wait_propagates() {
    let runtime = multi_thread(1);
    let tokio = Tokio::on(runtime.handle().clone());
    let task = async move { tokio.block_in_place(true, &mut || panic!("inside the wait")) };
    let panic = runtime
        .block_on(runtime.spawn(task))
        .expect_err("the wait panics")
        .into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"inside the wait"));
}

#[test]
fn a_fatal_exception_is_settled_before_a_blocking_main_ends() {
    let runtime = multi_thread(1);
    let collector = Collector::start().expect("a collector");
    let config = Config::new(&collector.url(), "key").expect("a config");
    runtime.block_on(async {
        let client = Reqwest::new().expect("a client");
        let reporter = start(HttpTransport::new(config, client));
        let error = std::io::Error::other("it broke");
        let drain = reporter
            .log_fatal_exception_blocking(&error, tinkex_telemetry::Severity::Critical)
            .expect("no deadlock");
        assert!(drain.all_delivered());
    });
    assert!(
        collector
            .session("s")
            .is_some_and(|session| session.has_ended())
    );
}

/// tokio's paused time drives the session; the test completes the sends.
#[tokio::test(start_paused = true)]
async fn sends_are_completed_by_hand_in_tokios_paused_time() {
    let transport = ManualTransport::new();
    let reporter = Reporter::builder("s")
        .transport(transport.clone())
        .runtime(Tokio)
        .enabled(true)
        .start()
        .expect("the session starts");
    let begin = Instant::now();
    let send = loop {
        match transport.next() {
            Some(send) => break send,
            None if begin.elapsed() > Duration::from_secs(60) => panic!("nothing is sent"),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let waited = begin.elapsed();
    assert!(
        waited >= Duration::from_secs(10) && waited < Duration::from_secs(11),
        "{waited:?}"
    );
    send.complete(Ok(Receipt::delivered()));
    assert!(
        reporter
            .wait_until_drained(Duration::from_secs(5))
            .await
            .is_drained()
    );
    assert_eq!(reporter.stats().delivered, 1);
}
