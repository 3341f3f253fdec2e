//! The simulator's parts on their own, and under other runtimes.

use bytes::Bytes;
use core::future::Future as _;
use core::task::{Context, Waker};
use core::time::Duration;
use http::{Request, Response};
use tinkex_telemetry::http::{HttpClient, HttpError};
use tinkex_telemetry::runtime::Clock as _;
use tinkex_telemetry::sim::{ManualTransport, Sim, SimClock, SimExecutor, SimHttp};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Config, HttpTransport, Receipt, Reporter, SendError};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_clock_moves_only_when_advanced_and_its_wall_time_may_jump() {
    let start = Timestamp::from_unix_micros(5_000_000);
    let clock = SimClock::starting(Instant::from_micros(7), start);
    clock.advance(secs(2));
    assert_eq!(clock.now(), Instant::from_micros(2_000_007));
    assert_eq!(clock.utc(), Timestamp::from_unix_micros(7_000_000));
    clock.set_utc(Timestamp::from_unix_micros(1_000_000));
    assert_eq!(clock.now(), Instant::from_micros(2_000_007));
    clock.advance(secs(1));
    assert_eq!(clock.utc(), Timestamp::from_unix_micros(2_000_000));
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), Instant::from_micros(u64::MAX));
}

#[test]
fn timers_fire_in_order_and_not_early() {
    let mut executor = SimExecutor::new(1);
    let order = alloc::rc::Rc::new(core::cell::RefCell::new(Vec::new()));
    for seconds in [3, 1, 2] {
        let (clock, order) = (executor.clock(), alloc::rc::Rc::clone(&order));
        let at = clock.now().checked_add(secs(seconds)).expect("in time");
        use tinkex_telemetry::local::LocalSpawner as _;
        let task = async move {
            clock.sleep_until(at).await;
            assert_eq!(clock.now(), at);
            order.borrow_mut().push(seconds);
        };
        executor.local_spawner().spawn_local(task).expect("it runs");
    }
    executor.advance(Duration::from_millis(2_500));
    assert_eq!(*order.borrow(), [1, 2]);
    executor.advance(secs(1));
    assert_eq!(*order.borrow(), [1, 2, 3]);
}

#[test]
fn time_passes_even_when_no_timer_is_left() {
    let mut executor = SimExecutor::new(1);
    let clock = executor.clock();
    let sleeper = clock.clone();
    let slept = executor.block_on(async move {
        for _ in 0..2 {
            let at = sleeper.now().checked_add(secs(1)).expect("in time");
            sleeper.sleep_until(at).await;
        }
    });
    assert_eq!(slept, Some(()));
    let before = clock.now();
    executor.advance(secs(10));
    assert_eq!(clock.now().saturating_duration_since(before), secs(10));
}

#[test]
fn a_timer_set_while_another_thread_advances_past_it_is_not_lost() {
    let clock = SimClock::new();
    let barrier = std::sync::Barrier::new(2);
    let mut lost = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                barrier.wait();
                clock.advance(secs(1));
                barrier.wait();
            }
        });
        for _ in 0..ROUNDS {
            let at = clock.now().checked_add(secs(1)).expect("in time");
            let mut sleep = core::pin::pin!(clock.sleep_until(at));
            barrier.wait();
            let mut context = Context::from_waker(Waker::noop());
            let is_ready = sleep.as_mut().poll(&mut context).is_ready();
            barrier.wait();
            // Lost: the timer is set, and nothing will advance to it.
            lost += u32::from(!is_ready && clock.next_timer().is_some());
        }
    });
    assert_eq!(lost, 0);
}

const ROUNDS: usize = 20_000;

#[test]
fn a_test_can_reply_to_each_send() {
    let (mut executor, transport) = (SimExecutor::new(1), ManualTransport::new());
    let reporter = Reporter::builder("s")
        .transport(transport.clone())
        .runtime(executor.spawner())
        .enabled(true)
        .start()
        .expect("it starts");
    reporter.flush();
    executor.run();
    let first = transport.next().expect("it was flushed");
    assert_eq!(
        (first.event_count(), first.first_index(), first.attempt()),
        (1, 0, 0)
    );
    let key = first.idempotency_key();
    first.complete(Err(SendError::retryable("not now")));
    executor.run();
    assert!(transport.next().is_none(), "the backoff is not over");
    executor.advance(secs(2));
    let second = transport.next().expect("it is retried");
    assert_eq!((second.idempotency_key(), second.attempt()), (key, 1));
    // No reply: the timeout ends it.
    drop(second);
    executor.advance(secs(8));
    let third = transport.next().expect("and again");
    assert!(third.text().contains("SESSION_START"));
    third.complete(Ok(Receipt::delivered()));
    executor.run();
    assert_eq!(reporter.stats().delivered, 1);
}

/// Counts requests and forwards them.
struct Counting(SimHttp, alloc::sync::Arc<core::sync::atomic::AtomicU64>);

impl HttpClient for Counting {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.1.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        self.0.send(request).await
    }
}

#[test]
fn a_custom_client_can_wrap_the_simulated_server() {
    Sim::new(1)
        .run(|env| async move {
            let count = alloc::sync::Arc::default();
            let client = Counting(env.server().http(), alloc::sync::Arc::clone(&count));
            let config = Config::new("http://simulated.invalid", "key").expect("a config");
            let reporter = Reporter::builder("own")
                .transport(HttpTransport::new(config, client))
                .runtime(env.spawner())
                .enabled(true)
                .start()
                .expect("it starts");
            assert!(reporter.stop(secs(5)).await.all_delivered());
            assert_eq!(env.server().events("own"), 2);
            assert_eq!(count.load(core::sync::atomic::Ordering::Relaxed), 1);
        })
        .assert_ok();
}
