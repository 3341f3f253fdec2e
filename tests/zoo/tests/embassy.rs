//! The embassy runtime on embassy's executor for hosts: the pool, its start and end, and all kinds of waits.
//!
//! `tests/embassy-mock/`, a separate package, tests the intervals with a mock time driver.

extern crate alloc;

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::{Cell, RefCell};
use core::error::Error;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use embassy_executor::{Executor, Spawner as Tasks};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::SystemTime;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::runtime::{Clock, Embassy, EmbassyPool, Placement, Spawner, WouldDeadlock};
use tinkex_telemetry::session::{BuildError, Driver};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport, fields};

/// Longer than any wait here takes, yet short enough for a person to wait.
const BOUND: Duration = Duration::from_secs(20);

#[embassy_executor::task(pool_size = 64)]
async fn task(future: Pin<Box<dyn Future<Output = ()>>>) {
    future.await;
}

fn spawn(tasks: Tasks, future: impl Future<Output = ()> + 'static) {
    tasks.spawn(task(Box::pin(future)).expect("the task pool has room"));
}

/// Runs `main` on a new executor. Tasks that are still running afterwards are never polled again.
fn on_embassy<T: 'static>(main: impl AsyncFnOnce(Tasks) -> T + 'static) -> T {
    let executor: &'static mut Executor = Box::leak(Box::new(Executor::new()));
    let result = Rc::new(RefCell::new(None));
    let there = Rc::clone(&result);
    executor.run_until(
        |tasks| {
            spawn(tasks, async move {
                let value = main(tasks).await;
                *there.borrow_mut() = Some(value);
            });
        },
        || result.borrow().is_some(),
    );
    result.take().expect("`main` has ended")
}

fn new_pool() -> &'static EmbassyPool {
    Box::leak(Box::new(EmbassyPool::new()))
}

fn running_pool(tasks: Tasks) -> &'static EmbassyPool {
    let pool = new_pool();
    spawn(tasks, pool.run());
    pool
}

async fn yield_now() {
    let has_yielded = Cell::new(false);
    poll_fn(|context| {
        if has_yielded.replace(true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets the executor poll every task, whatever their order.
async fn yield_to_all() {
    for _ in 0..3 {
        yield_now().await;
    }
}

async fn until(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < BOUND, "the condition never held");
        yield_now().await;
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A session's name and the events of a batch.
type Sent = (String, Vec<String>);

/// Records its batches.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Sent>>>);

impl Memory {
    fn batches(&self) -> Vec<Sent> {
        self.0.lock().expect("no panic").clone()
    }

    fn sizes(&self) -> Vec<usize> {
        self.batches().iter().map(|(_, it)| it.len()).collect()
    }
}

impl Transport for Memory {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let events = batch.events().map(String::from_utf8_lossy);
        let events = events.map(|event| event.into_owned()).collect();
        let mut batches = self.0.lock().expect("no panic");
        batches.push((batch.session_id().into(), events));
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

fn start_as<T: Transport>(
    session: &'static str,
    pool: &'static EmbassyPool,
    transport: T,
) -> Result<Reporter<T, Embassy, Embassy>, BuildError> {
    Reporter::builder(session)
        .transport(transport)
        .runtime(Embassy::on(pool))
        .flush_threshold(3)
        .enabled(true)
        .start()
}

fn start<T: Transport>(pool: &'static EmbassyPool, transport: T) -> Reporter<T, Embassy, Embassy> {
    start_as("s", pool, transport).expect("the session starts")
}

// Delivery.

#[test]
fn events_arrive_in_order_up_to_the_sessions_end() {
    let memory = Memory::default();
    let transport = memory.clone();
    let drain = on_embassy(async |tasks| {
        let reporter = start(running_pool(tasks), transport);
        assert!(reporter.log("x", fields! { n: 1 }));
        let drain = reporter.stop(BOUND).await;
        assert!(!reporter.log("late", ()));
        assert!(reporter.stats().is_balanced());
        drain
    });
    assert_eq!((drain.delivered, drain.all_delivered()), (3, true));
    let events: Vec<_> = memory.batches().into_iter().flat_map(|it| it.1).collect();
    let names = ["SESSION_START", "GENERIC_EVENT", "SESSION_END"];
    for (event, name) in events.iter().zip(names) {
        assert!(event.contains(name), "{event}");
    }
    assert_eq!(events.len(), names.len());
}

#[test]
fn a_batch_is_sent_when_the_threshold_is_reached() {
    let memory = Memory::default();
    let transport = memory.clone();
    on_embassy(async move |tasks| {
        let reporter = start(running_pool(tasks), transport);
        reporter.log("x", ());
        yield_to_all().await;
        assert_eq!(reporter.stats().delivered, 0);
        reporter.log("x", ());
        until(|| reporter.stats().delivered == 3).await;
    });
    assert_eq!(memory.sizes(), [3]);
}

#[test]
fn sessions_in_one_pool_do_not_wait_for_each_other() {
    let memory = Memory::default();
    let transport = memory.clone();
    on_embassy(async move |tasks| {
        let pool = running_pool(tasks);
        let stalled = start_as("stalled", pool, Stalled).expect("the session starts");
        stalled.flush();
        let sessions = ["a", "b"].map(|it| start_as(it, pool, transport.clone()));
        for session in sessions {
            let session = session.expect("the session starts");
            assert!(session.stop(BOUND).await.all_delivered());
        }
        assert_eq!(stalled.stats().queued, 1);
    });
    let sessions: Vec<_> = memory.batches().into_iter().map(|it| it.0).collect();
    assert_eq!(sessions, ["a", "b"]);
}

#[test]
fn dropping_the_reporter_only_requests_a_stop() {
    on_embassy(async |tasks| {
        let reporter = start(running_pool(tasks), Memory::default());
        let handle = reporter.handle();
        drop(reporter);
        let stats = handle.stats();
        assert_eq!((stats.session_ended, stats.delivered), (true, 0));
        until(|| handle.stats().delivered == 2).await;
    });
    assert_eq!(Embassy.placement(), Placement::Shared);
}

#[test]
fn a_transport_that_is_not_send_runs_in_a_task_of_the_program() {
    /// Counts events in memory that other threads cannot access.
    struct Counter(Rc<Cell<usize>>);

    impl LocalTransport for Counter {
        async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
            self.0.set(self.0.get() + batch.event_count());
            Ok(Receipt::delivered())
        }
    }

    #[embassy_executor::task]
    async fn telemetry(driver: Driver<Counter, Embassy>) {
        driver.run_local().await;
    }

    let count = on_embassy(async |tasks| {
        let count = Rc::new(Cell::new(0));
        let builder = Reporter::builder("s").transport(Counter(Rc::clone(&count)));
        let builder = builder.clock(Embassy).enabled(true);
        let (reporter, driver) = builder.build().expect("the session builds");
        tasks.spawn(telemetry(driver).expect("the task is spawned once"));
        assert!(reporter.stop(BOUND).await.all_delivered());
        count.get()
    });
    assert_eq!(count, 2);
}

// The start of the pool.

#[test]
fn tasks_spawned_before_the_pool_runs_are_kept_until_it_does() {
    on_embassy(async |tasks| {
        let pool = new_pool();
        let reporter = start(pool, Memory::default());
        let mut wait = pin!(reporter.wait_until_drained(BOUND));
        assert!(poll_once(wait.as_mut()).is_pending());
        assert!(reporter.stats().driver_alive);
        spawn(tasks, pool.run());
        assert_eq!(wait.await.delivered, 1);
    });
}

#[test]
fn a_wait_on_a_pool_that_is_not_running_ends_at_its_deadline() {
    on_embassy(async |_| {
        let reporter = start(new_pool(), Memory::default());
        // In real time: the deadline must pass without a driver.
        let drain = reporter.stop(Duration::from_millis(20)).await;
        assert_eq!((drain.delivered, drain.remaining), (0, 2));
        assert_eq!(reporter.stats().dropped.shutdown, 2);
    });
}

#[test]
fn a_pool_is_run_by_one_task_at_a_time() {
    on_embassy(async |tasks| {
        let pool = running_pool(tasks);
        yield_to_all().await;
        pool.run().await;
        let reporter = start(pool, Memory::default());
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn a_session_without_a_pool_cannot_be_started() {
    let builder = Reporter::builder("s").transport(Memory::default());
    let refused = builder.runtime(Embassy).enabled(true).start();
    let Err(error @ BuildError::Spawn(_)) = refused else {
        panic!("the session started");
    };
    let reason = error.source().expect("the error has a source").to_string();
    assert!(reason.contains("Embassy::on(&POOL)"), "{reason}");
    assert!(Embassy.spawn(async {}).is_err());
}

#[test]
fn tasks_can_be_spawned_from_other_threads() {
    let (done, is_done) = mpsc::channel();
    on_embassy(async move |tasks| {
        let pool = running_pool(tasks);
        let reporter = start(pool, Memory::default());
        let handle = reporter.handle();
        yield_to_all().await;
        let elsewhere = thread::spawn(move || {
            let here = thread::current().id();
            handle.spawn(async move {
                let is_elsewhere = thread::current().id() != here;
                done.send(is_elsewhere).expect("the test is waiting");
            })
        });
        let received = RefCell::new(None);
        until(|| {
            is_done
                .try_recv()
                .is_ok_and(|it| received.replace(Some(it)).is_none())
        })
        .await;
        assert_eq!(received.take(), Some(true));
        assert_eq!(elsewhere.join().expect("no panic"), Ok(()));
    });
}

// The end of the pool.

#[test]
fn waits_end_at_once_when_the_pool_is_dropped_and_another_driver_takes_over() {
    let pool = new_pool();
    let mut run = Box::pin(pool.run());
    let reporter = start(pool, Stalled);
    reporter.log("x", ());
    let mut wait = pin!(reporter.wait_until_drained(BOUND));
    assert!(poll_once(wait.as_mut()).is_pending());
    assert!(poll_once(run.as_mut()).is_pending());
    drop(run);
    let Poll::Ready(drain) = poll_once(wait) else {
        panic!("the wait is still pending");
    };
    assert_eq!((drain.delivered, drain.remaining), (0, 2));
    assert!(!reporter.stats().driver_alive);
    let blocking = reporter.wait_until_drained_blocking(BOUND);
    assert_eq!(blocking.map(|drain| drain.remaining), Ok(2));

    let driver = reporter
        .new_driver(Memory::default())
        .expect("the session has no driver");
    on_embassy(async move |tasks| {
        spawn(tasks, driver.run());
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn a_stopped_pool_accepts_no_tasks_until_it_runs_again() {
    let pool = new_pool();
    let mut run = Box::pin(pool.run());
    let kept = Arc::new(());
    let inside = Arc::clone(&kept);
    let on_pool = Embassy::on(pool);
    let task = async move {
        core::future::pending::<()>().await;
        drop(inside);
    };
    on_pool.spawn(task).expect("the pool keeps the task");
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(Arc::strong_count(&kept), 2);
    drop(run);
    assert_eq!(Arc::strong_count(&kept), 1);

    let refused = on_pool
        .spawn(async {})
        .expect_err("the pool is not running");
    assert_eq!(refused.to_string(), "the task that ran the pool is gone");
    assert!(start_as("s", pool, Stalled).is_err());

    on_embassy(async |tasks| {
        spawn(tasks, pool.run());
        yield_to_all().await;
        let reporter = start(pool, Memory::default());
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn a_run_dropped_before_its_first_poll_changes_nothing() {
    on_embassy(async |tasks| {
        let pool = new_pool();
        drop(pool.run());
        let reporter = start(pool, Memory::default());
        drop(pool.run());
        spawn(tasks, pool.run());
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn a_panicking_task_does_not_affect_others() {
    /// Panics when it is dropped.
    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    let pool = new_pool();
    let mut run = Box::pin(pool.run());
    let on_pool = Embassy::on(pool);
    on_pool
        .spawn(async { panic!("polled") })
        .expect("the pool keeps the task");
    for is_done in [false, true] {
        let task = async move {
            let _panics = PanicsOnDrop;
            poll_fn(|_| {
                if is_done {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        };
        on_pool.spawn(task).expect("the pool keeps the task");
    }
    let reporter = start(pool, Memory::default());
    reporter.flush();
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(reporter.stats().delivered, 1);
    drop(run);
    assert!(!reporter.stats().driver_alive);
}

// Blocking waits.

#[test]
fn blocking_on_the_pools_thread_is_refused() {
    on_embassy(async |tasks| {
        let pool = running_pool(tasks);
        yield_to_all().await;
        // The driver has not been polled yet.
        let reporter = start(pool, Stalled);
        let refused = reporter.wait_until_drained_blocking(BOUND);
        assert_eq!(refused, Err(WouldDeadlock));
        yield_to_all().await;
        assert_eq!(reporter.stop_blocking(BOUND), Err(WouldDeadlock));
        assert!(reporter.stats().session_ended);
    });
}

#[test]
fn blocking_on_the_thread_of_a_separate_driver_is_refused() {
    on_embassy(async |tasks| {
        let builder = Reporter::builder("s").transport(Stalled).clock(Embassy);
        let (reporter, driver) = builder.enabled(true).build().expect("the session builds");
        spawn(tasks, driver.run());
        yield_to_all().await;
        let refused = reporter.wait_until_drained_blocking(BOUND);
        assert_eq!(refused, Err(WouldDeadlock));
    });
}

#[test]
fn blocking_on_another_thread_works() {
    on_embassy(async |tasks| {
        let reporter = start(running_pool(tasks), Memory::default());
        let handle = reporter.handle();
        let there = thread::spawn(move || {
            let flushed = handle.wait_until_drained_blocking(BOUND);
            (flushed, handle.stop_blocking(BOUND))
        });
        until(|| there.is_finished()).await;
        let (flushed, stopped) = there.join().expect("no panic");
        assert_eq!(flushed.map(|drain| drain.delivered), Ok(1));
        assert_eq!(stopped.map(|drain| drain.delivered), Ok(1));
    });
}

// Time.

#[test]
fn a_sleep_is_never_early() {
    on_embassy(async |_| {
        for micros in [1, 7, 50, 333, 1_000] {
            let at = Embassy.now().checked_add(Duration::from_micros(micros));
            let at = at.expect("no overflow");
            Embassy.sleep_until(at).await;
            assert!(Embassy.now() >= at);
        }
    });
}

#[test]
fn a_sleep_until_now_is_ready_at_once_and_an_endless_one_does_no_harm() {
    assert!(poll_once(pin!(Embassy.sleep_until(Embassy.now()))).is_ready());
    assert!(poll_once(pin!(Embassy.sleep_until(Instant::ORIGIN))).is_ready());
    let end = Instant::from_micros(u64::MAX);
    assert!(poll_once(pin!(Embassy.sleep_until(end))).is_pending());
}

#[test]
fn wall_time_comes_from_the_program_or_else_from_the_system() {
    let before = Timestamp::from(SystemTime::now());
    let now = Embassy.utc();
    assert!(before <= now && now <= Timestamp::from(SystemTime::now()));

    let given = Embassy::on(new_pool()).with_utc(|| Timestamp::from_unix_micros(7));
    assert_eq!(given.utc().as_unix_micros(), 7);
    let memory = Memory::default();
    let builder = Reporter::builder("s").transport(memory.clone());
    let builder = builder.clock(given).enabled(true);
    let (reporter, driver) = builder.build().expect("the session builds");
    reporter.flush();
    assert!(poll_once(pin!(driver.run())).is_pending());
    let event = &memory.batches()[0].1[0];
    assert!(event.contains("1970-01-01T00:00:00.000007Z"), "{event}");
}
