//! The embassy runtime on embassy's executor for hosts: the pool, its beginning and its end, and waits of every kind.
//!
//! The intervals, in time that is moved by hand, are tested in `tests/embassy-mock/`, a package of its own.

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

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(20);

#[embassy_executor::task(pool_size = 64)]
async fn task(future: Pin<Box<dyn Future<Output = ()>>>) {
    future.await;
}

fn spawn(tasks: Tasks, future: impl Future<Output = ()> + 'static) {
    tasks.spawn(task(Box::pin(future)).expect("there are tasks enough"));
}

/// Runs `main` on an executor of its own. What it leaves running stands still afterwards.
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
    result.take().expect("it has ended")
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

/// Gives every task a turn, in whatever order the executor keeps them.
async fn let_others_run() {
    for _ in 0..3 {
        yield_now().await;
    }
}

async fn until(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < BOUND, "it never came");
        yield_now().await;
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A session's name, and the events of a batch.
type Sent = (String, Vec<String>);

/// Keeps what it is sent.
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

/// Never answers.
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
    start_as("s", pool, transport).expect("it starts")
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
fn a_batch_leaves_when_the_threshold_is_reached() {
    let memory = Memory::default();
    let transport = memory.clone();
    on_embassy(async move |tasks| {
        let reporter = start(running_pool(tasks), transport);
        reporter.log("x", ());
        let_others_run().await;
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
        let stalled = start_as("stalled", pool, Stalled).expect("it starts");
        stalled.flush();
        let sessions = ["a", "b"].map(|it| start_as(it, pool, transport.clone()));
        for session in sessions {
            let session = session.expect("it starts");
            assert!(session.stop(BOUND).await.all_delivered());
        }
        assert_eq!(stalled.stats().queued, 1);
    });
    let sessions: Vec<_> = memory.batches().into_iter().map(|it| it.0).collect();
    assert_eq!(sessions, ["a", "b"]);
}

#[test]
fn dropping_the_reporter_only_asks_for_a_stop() {
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
fn a_transport_that_is_not_send_runs_in_a_task_of_the_programs() {
    /// Counts events in memory that no other thread may see.
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
        let (reporter, driver) = builder.build().expect("it builds");
        tasks.spawn(telemetry(driver).expect("it is the first"));
        assert!(reporter.stop(BOUND).await.all_delivered());
        count.get()
    });
    assert_eq!(count, 2);
}

// The pool's beginning.

#[test]
fn what_is_spawned_before_the_pool_runs_is_kept_until_it_does() {
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
fn a_wait_on_a_pool_that_nobody_runs_ends_at_its_deadline() {
    on_embassy(async |_| {
        let reporter = start(new_pool(), Memory::default());
        // In real time: that it passes by itself is what is tested.
        let drain = reporter.stop(Duration::from_millis(20)).await;
        assert_eq!((drain.delivered, drain.remaining), (0, 2));
        assert_eq!(reporter.stats().dropped.shutdown, 2);
    });
}

#[test]
fn a_pool_is_run_by_one_task_at_a_time() {
    on_embassy(async |tasks| {
        let pool = running_pool(tasks);
        let_others_run().await;
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
        panic!("it was started");
    };
    let reason = error.source().expect("it says why").to_string();
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
        let_others_run().await;
        let elsewhere = thread::spawn(move || {
            let here = thread::current().id();
            handle.spawn(async move {
                let is_elsewhere = thread::current().id() != here;
                done.send(is_elsewhere).expect("somebody waits");
            })
        });
        let has_come = RefCell::new(None);
        until(|| {
            is_done
                .try_recv()
                .is_ok_and(|it| has_come.replace(Some(it)).is_none())
        })
        .await;
        assert_eq!(has_come.take(), Some(true));
        assert_eq!(elsewhere.join().expect("no panic"), Ok(()));
    });
}

// The pool's end.

#[test]
fn waits_end_at_once_when_the_pool_is_dropped_and_another_driver_carries_on() {
    let pool = new_pool();
    let mut run = Box::pin(pool.run());
    let reporter = start(pool, Stalled);
    reporter.log("x", ());
    let mut wait = pin!(reporter.wait_until_drained(BOUND));
    assert!(poll_once(wait.as_mut()).is_pending());
    assert!(poll_once(run.as_mut()).is_pending());
    drop(run);
    let Poll::Ready(drain) = poll_once(wait) else {
        panic!("it waits for nobody");
    };
    assert_eq!((drain.delivered, drain.remaining), (0, 2));
    assert!(!reporter.stats().driver_alive);
    let blocking = reporter.wait_until_drained_blocking(BOUND);
    assert_eq!(blocking.map(|drain| drain.remaining), Ok(2));

    let driver = reporter.new_driver(Memory::default()).expect("it has none");
    on_embassy(async move |tasks| {
        spawn(tasks, driver.run());
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn a_pool_whose_task_is_gone_takes_no_tasks_until_it_is_run_again() {
    let pool = new_pool();
    let mut run = Box::pin(pool.run());
    let kept = Arc::new(());
    let inside = Arc::clone(&kept);
    let on_pool = Embassy::on(pool);
    let task = async move {
        core::future::pending::<()>().await;
        drop(inside);
    };
    on_pool.spawn(task).expect("it is kept");
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(Arc::strong_count(&kept), 2);
    drop(run);
    assert_eq!(Arc::strong_count(&kept), 1);

    let refused = on_pool.spawn(async {}).expect_err("nobody runs it");
    assert_eq!(refused.to_string(), "the task that ran the pool is gone");
    assert!(start_as("s", pool, Stalled).is_err());

    on_embassy(async |tasks| {
        spawn(tasks, pool.run());
        let_others_run().await;
        let reporter = start(pool, Memory::default());
        assert!(reporter.stop(BOUND).await.all_delivered());
    });
}

#[test]
fn a_run_that_is_dropped_before_its_first_turn_has_changed_nothing() {
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
fn a_task_that_panics_ends_alone() {
    /// Panics when it is dropped.
    struct Sore;

    impl Drop for Sore {
        fn drop(&mut self) {
            panic!("it is dropped");
        }
    }

    let pool = new_pool();
    let mut run = Box::pin(pool.run());
    let on_pool = Embassy::on(pool);
    on_pool
        .spawn(async { panic!("it is polled") })
        .expect("kept");
    for is_done in [false, true] {
        let task = async move {
            let _sore = Sore;
            poll_fn(|_| {
                if is_done {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        };
        on_pool.spawn(task).expect("kept");
    }
    let reporter = start(pool, Memory::default());
    reporter.flush();
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(reporter.stats().delivered, 1);
    drop(run);
    assert!(!reporter.stats().driver_alive);
}

// Waits that block.

#[test]
fn blocking_on_the_pools_thread_is_refused() {
    on_embassy(async |tasks| {
        let pool = running_pool(tasks);
        let_others_run().await;
        // The driver has not had a turn yet.
        let reporter = start(pool, Stalled);
        let refused = reporter.wait_until_drained_blocking(BOUND);
        assert_eq!(refused, Err(WouldDeadlock));
        let_others_run().await;
        assert_eq!(reporter.stop_blocking(BOUND), Err(WouldDeadlock));
        assert!(reporter.stats().session_ended);
    });
}

#[test]
fn blocking_on_the_thread_of_a_driver_of_its_own_is_refused() {
    on_embassy(async |tasks| {
        let builder = Reporter::builder("s").transport(Stalled).clock(Embassy);
        let (reporter, driver) = builder.enabled(true).build().expect("it builds");
        spawn(tasks, driver.run());
        let_others_run().await;
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
            let at = at.expect("it is near");
            Embassy.sleep_until(at).await;
            assert!(Embassy.now() >= at);
        }
    });
}

#[test]
fn a_sleep_until_now_takes_no_turn_and_one_without_end_no_harm() {
    assert!(poll_once(pin!(Embassy.sleep_until(Embassy.now()))).is_ready());
    assert!(poll_once(pin!(Embassy.sleep_until(Instant::ORIGIN))).is_ready());
    let end = Instant::from_micros(u64::MAX);
    assert!(poll_once(pin!(Embassy.sleep_until(end))).is_pending());
}

#[test]
fn wall_time_is_the_programs_or_else_the_systems() {
    let before = Timestamp::from(SystemTime::now());
    let now = Embassy.utc();
    assert!(before <= now && now <= Timestamp::from(SystemTime::now()));

    let given = Embassy::on(new_pool()).with_utc(|| Timestamp::from_unix_micros(7));
    assert_eq!(given.utc().as_unix_micros(), 7);
    let memory = Memory::default();
    let builder = Reporter::builder("s").transport(memory.clone());
    let builder = builder.clock(given).enabled(true);
    let (reporter, driver) = builder.build().expect("it builds");
    reporter.flush();
    assert!(poll_once(pin!(driver.run())).is_pending());
    let event = &memory.batches()[0].1[0];
    assert!(event.contains("1970-01-01T00:00:00.000007Z"), "{event}");
}
