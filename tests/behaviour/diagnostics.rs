//! Diagnostics: what a session reports about itself, how often, and on which thread.

use crate::host::{ManualClock, Reply, Task, Wire, quiet_panic, session};
use crate::support::{BOUND, DAY, Failure};
use alloc::sync::Arc;
use core::future::Future as _;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread::{self, ThreadId};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::diagnostic::{Diagnostic, DiagnosticKind};
use tinkex_telemetry::{Handle, Severity, fields};

type Reports = Arc<Mutex<Vec<(DiagnosticKind, u64, String)>>>;

/// An observer that records each diagnostic.
fn observer(reports: &Reports) -> impl Fn(&Diagnostic<'_>) + Send + Sync + 'static {
    let reports = Arc::clone(reports);
    move |diagnostic| {
        let line = diagnostic.to_string();
        let mut reports = reports.lock().expect("no panic");
        reports.push((diagnostic.kind, diagnostic.count, line));
    }
}

fn take(reports: &Reports) -> Vec<(DiagnosticKind, u64, String)> {
    core::mem::take(&mut reports.lock().expect("no panic"))
}

#[test]
fn ten_thousand_refusals_are_reported_once_with_reason_and_count() {
    let clock = ManualClock::default();
    let reports = Reports::default();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Never))
        .max_queue_size(100)
        .on_diagnostic(observer(&reports))
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    let refused = (0..10_099).filter(|_| !reporter.log("x", ())).count();
    assert_eq!(refused, 10_000);
    assert_eq!(take(&reports), [], "log itself reports nothing");
    assert!(driver.settle().is_pending());
    let line = "Telemetry queue full (max_queue_size: 100), dropping event (10000 refused)";
    assert_eq!(
        take(&reports),
        [(DiagnosticKind::QueueFull, 10_000, line.into())]
    );
    // The same kind is reported again only after ten seconds.
    for _ in 0..3 {
        assert!(!reporter.log("x", ()));
        assert!(driver.settle().is_pending());
    }
    clock.advance(Duration::from_secs(1));
    assert!(driver.settle().is_pending());
    assert_eq!(take(&reports), []);
    clock.advance(Duration::from_secs(9));
    assert!(driver.settle().is_pending());
    let reports = take(&reports);
    let full: Vec<_> = reports
        .iter()
        .filter(|report| report.0 == DiagnosticKind::QueueFull)
        .collect();
    assert!(matches!(full[..], [(_, 3, _)]), "{reports:?}");
}

#[test]
fn an_oversized_event_is_reported_with_the_limit() {
    let clock = ManualClock::default();
    let reports = Reports::default();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Accept))
        .max_event_bytes(1_000)
        .on_diagnostic(observer(&reports))
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    assert!(!reporter.log("large", fields! { text: "x".repeat(1_000) }));
    assert!(driver.settle().is_pending());
    let lines: Vec<_> = take(&reports).into_iter().map(|report| report.2).collect();
    let line = "Telemetry event larger than 1000 bytes, dropping event (1 refused)";
    assert_eq!(lines, [line]);
}

#[test]
fn pending_diagnostics_are_reported_at_the_end() {
    let clock = ManualClock::default();
    let reports = Reports::default();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Refuse))
        .loss_report(false)
        .on_diagnostic(observer(&reports))
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    for _ in 0..3 {
        reporter.flush();
        assert!(driver.settle().is_pending());
        reporter.log("x", ());
    }
    drop(reporter.stop(DAY));
    assert!(driver.settle().is_ready());
    let reports = take(&reports);
    assert!(
        reports
            .iter()
            .all(|report| report.0 == DiagnosticKind::Rejected),
        "{reports:?}"
    );
    assert_eq!(reports.iter().map(|report| report.1).sum::<u64>(), 5);
    assert_eq!(reports.len(), 2);
    assert_eq!(
        reports[0].2,
        "Telemetry rejected by the backend: 401, says the wire (1 event dropped)"
    );
}

#[test]
fn a_fatal_error_and_events_logged_after_it_are_reported_with_the_session_id() {
    let clock = ManualClock::default();
    let reports = Reports::default();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Accept))
        .on_diagnostic(observer(&reports))
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    drop(reporter.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
    assert!(driver.settle().is_pending());
    for _ in 0..5 {
        assert!(reporter.log("survived", ()));
        assert!(driver.settle().is_pending());
    }
    let lines: Vec<_> = take(&reports).into_iter().map(|report| report.2).collect();
    assert_eq!(
        lines,
        [
            "Exception logged for session ID: s",
            "Telemetry events logged after a fatal exception ended the session; they are still sent"
        ]
    );
}

#[test]
fn the_observer_runs_on_the_drivers_thread_and_never_on_a_logging_thread() {
    let collector = Collector::start().expect("a collector");
    let (sender, receiver) = mpsc::channel::<ThreadId>();
    let session = crate::support::session(&collector.url())
        .max_queue_size(1)
        .flush_threshold(1)
        .on_diagnostic(move |_| {
            let _ = sender.send(thread::current().id());
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
    let first = receiver.recv_timeout(BOUND).expect("some were refused");
    assert!(!loggers.contains(&first) && first != thread::current().id());
    drop(session);
    // At the end, the thread that waits for the stop may report what is left.
    assert!(receiver.try_iter().all(|thread| !loggers.contains(&thread)));
}

#[test]
fn a_panicking_observer_does_no_harm() {
    let clock = ManualClock::default();
    let wire = Wire::new([Reply::Fail, Reply::Refuse], Reply::Accept);
    let was_called = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&was_called);
    let (reporter, driver) = session(&clock, wire.clone())
        .loss_report(false)
        .on_diagnostic(move |_| {
            flag.store(true, Ordering::SeqCst);
            quiet_panic();
        })
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    reporter.flush();
    assert!(driver.run_for(&clock, 10).is_pending());
    assert!(was_called.load(Ordering::SeqCst));
    assert!(reporter.log("x", ()));
    drop(reporter.stop(DAY));
    driver.run(&clock);
    assert_eq!(wire.received(), ["x", "SESSION_END"]);
    assert!(reporter.stats().is_balanced());
}

#[test]
fn an_observer_may_use_the_session_without_causing_a_loop() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Refuse);
    let handle: Arc<OnceLock<Handle>> = Arc::default();
    let slot = Arc::clone(&handle);
    let (reporter, driver) = session(&clock, wire.clone())
        .flush_threshold(1)
        .on_diagnostic(move |diagnostic| {
            if let Some(handle) = slot.get() {
                handle.log(&diagnostic.to_string(), ());
                handle.flush();
                drop(handle.wait_until_drained(DAY));
                assert!(handle.stats().is_balanced());
            }
        })
        .build()
        .expect("a valid configuration");
    assert!(handle.set(reporter.handle()).is_ok());
    let mut driver = Task::new(driver.run());
    // Each rejection is reported, logged, sent and rejected again, but only every ten seconds.
    for _ in 0..60 {
        assert!(driver.settle().is_pending());
        clock.advance(Duration::from_secs(1));
    }
    assert!(wire.sent().len() <= 14, "{}", wire.sent().len());
    drop(reporter.stop(DAY));
    driver.run(&clock);
}

#[test]
fn a_stop_that_runs_out_of_time_is_reported_with_the_reason() {
    for (reply, reason) in [
        (Reply::Never, "no response in time"),
        (Reply::Fail, "says the wire"),
    ] {
        let clock = ManualClock::default();
        let reports = Reports::default();
        let (reporter, driver) = session(&clock, Wire::new([], reply))
            .on_diagnostic(observer(&reports))
            .build()
            .expect("a valid configuration");
        let mut driver = Task::new(driver.run());
        drop(reporter.stop(Duration::from_millis(1_500)));
        driver.run(&clock);
        let reports = take(&reports);
        let (kind, count, line) = reports.last().expect("a report");
        assert_eq!((*kind, *count), (DiagnosticKind::Shutdown, 2));
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
fn a_driver_that_is_dropped_and_the_first_event_without_one_are_reported_once() {
    let clock = ManualClock::default();
    let (sender, reports) = mpsc::channel();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Accept))
        .max_queue_size(20_000)
        .on_diagnostic(move |diagnostic| {
            let _ = sender.send((diagnostic.kind, diagnostic.count));
        })
        .build()
        .expect("a valid configuration");
    drop(driver);
    // SESSION_START is queued.
    assert_eq!(reports.try_recv(), Ok((DiagnosticKind::NoDriver, 1)));
    for _ in 0..10_000 {
        assert!(reporter.log("x", ()));
    }
    let report = reports.recv_timeout(BOUND);
    assert_eq!(report, Ok((DiagnosticKind::NoDriver, 2)));
    // The clock stands still, so that no ten seconds pass either.
    assert!(reports.try_recv().is_err());
    // A new driver sends them all, and there is nothing more to say.
    let mut driver = Task::new(
        reporter
            .new_driver(Wire::new([], Reply::Accept))
            .expect("there is no driver")
            .run(),
    );
    drop(reporter.stop(DAY));
    driver.run(&clock);
    assert_eq!(reporter.stats().delivered, 10_002);
    assert!(reports.try_recv().is_err());
}

#[test]
fn refusals_without_a_driver_are_reported_too() {
    let clock = ManualClock::default();
    let (sender, reports) = mpsc::channel();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Accept))
        .max_event_bytes(1_000)
        .on_diagnostic(move |diagnostic| {
            let _ = sender.send(diagnostic.kind);
        })
        .build()
        .expect("a valid configuration");
    drop(driver);
    assert!(!reporter.log("large", fields! { text: "x".repeat(1_000) }));
    let expected = [DiagnosticKind::NoDriver, DiagnosticKind::EventTooLarge];
    for kind in expected {
        assert_eq!(reports.recv_timeout(BOUND), Ok(kind));
    }
}

#[test]
fn a_wait_ends_only_after_the_loss_that_it_has_seen_was_reported() {
    let collector = Collector::start().expect("a collector");
    collector.always(tinkex_telemetry::collector::Reply::status(401));
    let (entered, is_inside) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let session = crate::support::session(&collector.url())
        .on_diagnostic(move |_| {
            let _ = entered.send(());
            let _ = released.lock().expect("no panic").recv();
        })
        .start()
        .expect("it starts");
    let mut wait = Box::pin(session.wait_until_drained(BOUND));
    is_inside.recv_timeout(BOUND).expect("it is reported");
    // The loss is in the ledger, and the observer is about to hear of it, on the driver's thread.
    assert_eq!(session.stats().dropped.rejected, 1);
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    drop(release);
    let drain = loop {
        match wait.as_mut().poll(&mut context) {
            Poll::Ready(drain) => break drain,
            Poll::Pending => thread::yield_now(),
        }
    };
    assert_eq!((drain.dropped, drain.remaining), (1, 0));
}

#[test]
fn a_wait_reports_what_is_pending_before_it_ends() {
    let clock = ManualClock::default();
    let reports = Reports::default();
    let (reporter, driver) = session(&clock, Wire::new([], Reply::Refuse))
        .on_diagnostic(observer(&reports))
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    for n in 1..=3 {
        let mut wait = Task::new(async {
            let _ = reporter.wait_until_drained(DAY).await;
        });
        assert!(wait.settle().is_pending());
        assert!(driver.settle().is_pending());
        assert!(wait.settle().is_ready());
        // Although the last one was less than ten seconds ago.
        let counts: Vec<_> = take(&reports).into_iter().map(|report| report.1).collect();
        assert_eq!(counts, [1], "{n}");
        reporter.log("x", ());
    }
}

#[test]
fn a_healthy_session_reports_nothing() {
    let collector = Collector::start().expect("a collector");
    let (sender, receiver) = mpsc::channel();
    let session = crate::support::session(&collector.url())
        .on_diagnostic(move |diagnostic| drop(sender.send(diagnostic.to_string())))
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
    assert_eq!(receiver.try_iter().next(), None);
}
