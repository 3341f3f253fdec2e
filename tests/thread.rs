//! The `Thread` runtime: a thread per session, no executor.
#![cfg(all(
    feature = "collector",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::mpsc;
use std::thread;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::runtime::{Clock, Placement, Spawner, WouldDeadlock};
use tinkex_telemetry::{
    Batch, Config, HttpTransport, Receipt, Reporter, SendError, Severity, Thread, Transport, Ureq,
};

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(20);

fn start(collector: &Collector) -> Reporter<HttpTransport<Ureq>, Thread, Thread> {
    let config = Config::new(&collector.url(), "key").expect("a config");
    Reporter::builder("s")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .drop_timeout(BOUND)
        .start()
        .expect("it starts")
}

fn executors() -> [tokio::runtime::Runtime; 2] {
    let current = tokio::runtime::Builder::new_current_thread().build();
    let multi = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build();
    [current, multi].map(|runtime| runtime.expect("a runtime"))
}

#[test]
fn events_arrive_in_order_from_many_threads() {
    let collector = Collector::start().expect("a collector");
    let reporter = start(&collector);
    thread::scope(|scope| {
        for _ in 0..4 {
            let handle = reporter.handle();
            scope.spawn(move || (0..250).for_each(|_| assert!(handle.log("x", ()))));
        }
    });
    let drain = reporter.stop_blocking(BOUND).expect("no deadlock");
    assert!(drain.all_delivered());
    let session = collector.session("s").expect("it was kept");
    assert_eq!((session.len(), session.gaps()), (1002, vec![]));
    assert!(session.has_ended());
    assert_eq!(collector.violations(), []);
}

#[test]
fn dropping_the_reporter_drains_it_inside_an_executor_too() {
    for runtime in executors() {
        let collector = Collector::start().expect("a collector");
        runtime.block_on(async {
            let reporter = start(&collector);
            reporter.log("x", ());
            drop(reporter);
            assert_eq!(collector.session("s").map(|session| session.len()), Some(3));
        });
    }
}

#[test]
fn waits_work_in_every_executor() {
    for runtime in executors() {
        let collector = Collector::start().expect("a collector");
        runtime.block_on(async {
            let reporter = start(&collector);
            assert_eq!(reporter.wait_until_drained(BOUND).await.delivered, 1);
            reporter.log("x", ());
            let drain = reporter.wait_until_drained_blocking(BOUND);
            assert_eq!(drain.map(|drain| drain.delivered), Ok(1));
            assert_eq!(reporter.stop(BOUND).await.delivered, 1);
        });
    }
}

#[test]
fn a_stalled_server_delays_the_drop_no_longer_than_the_drop_timeout() {
    let collector = Collector::start().expect("a collector");
    collector.always(Reply::stall());
    let config = Config::new(&collector.url(), "key").expect("a config");
    let reporter = Reporter::builder("s")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .drop_timeout(Duration::from_millis(100))
        .start()
        .expect("it starts");
    let handle = reporter.handle();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        drop(reporter);
        done.send(())
    });
    // ureq itself would wait for 30 s.
    assert_eq!(is_done.recv_timeout(BOUND), Ok(()));
    let stats = handle.stats();
    assert_eq!(stats.dropped.shutdown, 2);
    assert!(stats.is_balanced());
}

/// Waits for its own session to drain, on the driver's thread.
struct Entangled(mpsc::Receiver<tinkex_telemetry::Handle>, mpsc::Sender<bool>);

impl Transport for Entangled {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        if let Ok(handle) = self.0.try_recv() {
            let refused = handle.wait_until_drained_blocking(BOUND) == Err(WouldDeadlock);
            let _ = self.1.send(refused);
        }
        Ok(Receipt::delivered())
    }
}

#[test]
fn blocking_on_the_drivers_own_thread_is_refused() {
    let (handle_sender, handle_receiver) = mpsc::channel();
    let (result_sender, result_receiver) = mpsc::channel();
    let reporter = Reporter::builder("s")
        .transport(Entangled(handle_receiver, result_sender))
        .runtime(Thread)
        .enabled(true)
        .flush_threshold(2)
        .start()
        .expect("it starts");
    handle_sender.send(reporter.handle()).expect("it listens");
    reporter.flush();
    assert_eq!(result_receiver.recv_timeout(BOUND), Ok(true));
}

#[test]
fn a_sleep_ends_at_its_deadline_and_not_before() {
    // Real time, because it is under test.
    let at = Thread
        .now()
        .checked_add(Duration::from_millis(20))
        .expect("soon");
    let (done, is_done) = mpsc::channel();
    let task = async move {
        Thread.sleep_until(at).await;
        let _ = done.send(Thread.now());
    };
    assert_eq!(Thread.spawn(task), Ok(()));
    let woken = is_done.recv_timeout(BOUND).expect("it wakes");
    assert!(woken >= at);
    let never = Thread.sleep_until(tinkex_telemetry::time::Instant::from_micros(u64::MAX));
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(never).poll(&mut context).is_pending());
    assert_eq!(
        pin!(Thread.sleep_until(at)).poll(&mut context),
        Poll::Ready(())
    );
    assert_eq!(Thread.placement(), Placement::Dedicated);
}

#[test]
fn twenty_threads_with_a_fatal_exception_each_lose_none_of_them() {
    let collector = Collector::start().expect("a collector");
    let reporter = start(&collector);
    thread::scope(|scope| {
        for n in 0..20 {
            let handle = reporter.handle();
            scope.spawn(move || {
                let error = std::io::Error::other(format!("fatal {n}"));
                handle
                    .log_fatal_exception_blocking(&error, Severity::Critical)
                    .map(|drain| drain.is_drained())
            });
        }
    });
    let drain = reporter.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.is_drained(), "{drain:?}");
    let stats = reporter.stats();
    assert_eq!(stats.delivered, stats.accepted, "{stats:?}");
    assert_eq!(collector.violations(), []);
    let sessions = collector.sessions();
    // SESSION_START, twenty exceptions and one SESSION_END.
    assert_eq!(sessions.iter().map(|kept| kept.len()).sum::<usize>(), 22);
}
