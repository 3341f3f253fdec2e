//! What a session says of itself, to whom, how often and on which thread.

use crate::host::{Hand, Reply, Task, Wire, quiet_panic, session};
use crate::support::{BOUND, DAY, Failure};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread::{self, ThreadId};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::diagnostic::{Diagnostic, DiagnosticKind};
use tinkex_telemetry::{Handle, Severity, fields};

type Told = Arc<Mutex<Vec<(DiagnosticKind, u64, String)>>>;

/// An observer that remembers what it was told.
fn observer(told: &Told) -> impl Fn(&Diagnostic<'_>) + Send + Sync + 'static {
    let told = Arc::clone(told);
    move |diagnostic| {
        let line = diagnostic.to_string();
        let mut told = told.lock().expect("no panic");
        told.push((diagnostic.kind, diagnostic.count, line));
    }
}

fn take(told: &Told) -> Vec<(DiagnosticKind, u64, String)> {
    core::mem::take(&mut told.lock().expect("no panic"))
}

#[test]
fn ten_thousand_refusals_are_told_once_with_their_reason_and_their_number() {
    let hand = Hand::default();
    let told = Told::default();
    let (reporter, driver) = session(&hand, Wire::new([], Reply::Never))
        .max_queue_size(100)
        .on_diagnostic(observer(&told))
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    let refused = (0..10_099).filter(|_| !reporter.log("x", ())).count();
    assert_eq!(refused, 10_000);
    assert_eq!(take(&told), [], "nobody is told inside of log");
    assert!(driver.settle().is_pending());
    let line = "Telemetry queue full (100), dropping event (10000 refused)";
    assert_eq!(
        take(&told),
        [(DiagnosticKind::QueueFull, 10_000, line.into())]
    );
    // More of the same is not told before ten seconds have passed.
    for _ in 0..3 {
        assert!(!reporter.log("x", ()));
        assert!(driver.settle().is_pending());
    }
    hand.advance(Duration::from_secs(1));
    assert!(driver.settle().is_pending());
    assert_eq!(take(&told), []);
    hand.advance(Duration::from_secs(9));
    assert!(driver.settle().is_pending());
    let told = take(&told);
    let full: Vec<_> = told
        .iter()
        .filter(|told| told.0 == DiagnosticKind::QueueFull)
        .collect();
    assert!(matches!(full[..], [(_, 3, _)]), "{told:?}");
}

#[test]
fn an_event_that_is_too_large_is_told_with_the_limit() {
    let hand = Hand::default();
    let told = Told::default();
    let (reporter, driver) = session(&hand, Wire::new([], Reply::Accept))
        .max_event_bytes(1_000)
        .on_diagnostic(observer(&told))
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    assert!(!reporter.log("large", fields! { text: "x".repeat(1_000) }));
    assert!(driver.settle().is_pending());
    let lines: Vec<_> = take(&told).into_iter().map(|told| told.2).collect();
    let line = "Telemetry event larger than 1000 bytes, dropping event (1 refused)";
    assert_eq!(lines, [line]);
}

#[test]
fn what_was_not_told_yet_is_told_at_the_end() {
    let hand = Hand::default();
    let told = Told::default();
    let (reporter, driver) = session(&hand, Wire::new([], Reply::Refuse))
        .on_diagnostic(observer(&told))
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    for _ in 0..3 {
        reporter.flush();
        assert!(driver.settle().is_pending());
        reporter.log("x", ());
    }
    drop(reporter.stop(DAY));
    assert!(driver.settle().is_ready());
    let told = take(&told);
    assert!(
        told.iter().all(|told| told.0 == DiagnosticKind::Rejected),
        "{told:?}"
    );
    assert_eq!(told.iter().map(|told| told.1).sum::<u64>(), 5);
    assert_eq!(told.len(), 2);
    assert_eq!(
        told[0].2,
        "Telemetry rejected by the backend: 401, says the wire (1 events dropped)"
    );
}

#[test]
fn a_fatal_error_and_what_is_logged_after_it_are_told_with_the_session() {
    let hand = Hand::default();
    let told = Told::default();
    let (reporter, driver) = session(&hand, Wire::new([], Reply::Accept))
        .on_diagnostic(observer(&told))
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    drop(reporter.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
    assert!(driver.settle().is_pending());
    for _ in 0..5 {
        assert!(reporter.log("survived", ()));
        assert!(driver.settle().is_pending());
    }
    let lines: Vec<_> = take(&told).into_iter().map(|told| told.2).collect();
    assert_eq!(
        lines,
        [
            "Exception logged for session ID: s",
            "Telemetry events logged after a fatal exception ended the session; they are still sent"
        ]
    );
}

#[test]
fn the_observer_is_called_on_the_drivers_thread_and_never_on_one_that_logs() {
    let collector = Collector::start().expect("a collector");
    let (tell, hear) = mpsc::channel::<ThreadId>();
    let session = crate::support::session(&collector.url())
        .max_queue_size(1)
        .flush_threshold(1)
        .on_diagnostic(move |_| {
            let _ = tell.send(thread::current().id());
        })
        .start()
        .expect("it starts");
    let loggers = thread::scope(|scope| {
        let log = || {
            for _ in 0..1000 {
                session.log("x", ());
            }
        };
        let threads = [(); 4].map(|()| scope.spawn(log));
        threads.each_ref().map(|thread| thread.thread().id())
    });
    let first = hear.recv_timeout(BOUND).expect("some were refused");
    assert!(!loggers.contains(&first) && first != thread::current().id());
    drop(session);
    // At the end, who waits for it may tell what is left.
    assert!(hear.try_iter().all(|thread| !loggers.contains(&thread)));
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    let hand = Hand::default();
    let wire = Wire::new([Reply::Fail, Reply::Refuse], Reply::Accept);
    let was_called = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&was_called);
    let (reporter, driver) = session(&hand, wire.clone())
        .on_diagnostic(move |_| {
            flag.store(true, Ordering::SeqCst);
            quiet_panic();
        })
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    reporter.flush();
    assert!(driver.run_for(&hand, 10).is_pending());
    assert!(was_called.load(Ordering::SeqCst));
    assert!(reporter.log("x", ()));
    drop(reporter.stop(DAY));
    driver.run(&hand);
    assert_eq!(wire.received(), ["x", "SESSION_END"]);
    assert!(reporter.stats().is_balanced());
}

#[test]
fn an_observer_may_use_the_session_and_feeds_no_loop() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Refuse);
    let handle: Arc<OnceLock<Handle>> = Arc::default();
    let own = Arc::clone(&handle);
    let (reporter, driver) = session(&hand, wire.clone())
        .flush_threshold(1)
        .on_diagnostic(move |diagnostic| {
            if let Some(handle) = own.get() {
                handle.log(&diagnostic.to_string(), ());
                handle.flush();
                drop(handle.wait_until_drained(DAY));
                assert!(handle.stats().is_balanced());
            }
        })
        .build()
        .expect("it can work");
    assert!(handle.set(reporter.handle()).is_ok());
    let mut driver = Task::new(driver.run());
    // Each rejection is told, logged, sent and rejected: but only every ten seconds.
    for _ in 0..60 {
        assert!(driver.settle().is_pending());
        hand.advance(Duration::from_secs(1));
    }
    assert!(wire.sent().len() <= 14, "{}", wire.sent().len());
    drop(reporter.stop(DAY));
    driver.run(&hand);
}

#[test]
fn a_session_says_nothing_when_nothing_is_wrong() {
    let collector = Collector::start().expect("a collector");
    let (tell, hear) = mpsc::channel();
    let session = crate::support::session(&collector.url())
        .on_diagnostic(move |diagnostic| drop(tell.send(diagnostic.to_string())))
        .start()
        .expect("it starts");
    for _ in 0..500 {
        assert!(session.log("x", ()));
    }
    assert!(
        session
            .stop_blocking(BOUND)
            .is_ok_and(|drain| drain.all_delivered())
    );
    drop(session);
    assert_eq!(hear.try_iter().next(), None);
}
