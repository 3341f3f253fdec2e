//! Known failures of telemetry clients that concern a whole session: the correct behaviour, over a socket.

use crate::support::{BOUND, FAILURE, Failure, SESSION, Session, events, names, session, start};
use core::time::Duration;
use std::sync::{Barrier, mpsc};
use std::thread;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::{Handle, Severity, capture};

const MINUTES: Duration = Duration::from_secs(10 * 60);

fn drained(handle: &Handle) -> tinkex_telemetry::Drain {
    handle
        .wait_until_drained_blocking(BOUND)
        .expect("no executor here")
}

fn stopped(handle: &Handle) -> tinkex_telemetry::Drain {
    handle.stop_blocking(BOUND).expect("no executor here")
}

/// A session whose first attempt has failed, and whose next one is minutes away.
fn backing_off(collector: &Collector) -> Session {
    collector.always(Reply::status(503));
    let (sender, receiver) = mpsc::channel();
    let session = session(&collector.url())
        .retry_base_delay(MINUTES)
        .retry_max_delay(MINUTES)
        .on_diagnostic(move |diagnostic| {
            let _ = sender.send(diagnostic.kind);
        })
        .start()
        .expect("it starts");
    session.flush();
    // The driver reports it when it enters the backoff.
    assert_eq!(
        receiver.recv_timeout(BOUND),
        Ok(DiagnosticKind::AttemptFailed)
    );
    session
}

#[test]
fn dropped_events_are_never_counted_as_delivered() {
    let collector = Collector::start().expect("a collector");
    let session = session(&collector.url())
        .retry_base_delay(Duration::from_millis(1))
        .max_retries(2)
        .start()
        .expect("it starts");
    assert_eq!(drained(&session).delivered, 1);
    for (status, requests) in [(401, 1), (500, 3)] {
        let before = collector.requests().len();
        collector.always(Reply::status(status));
        session.log("lost", ());
        session.log("lost", ());
        let drain = drained(&session);
        assert_eq!((drain.delivered, drain.dropped, drain.remaining), (0, 2, 0));
        assert!(drain.is_drained() && !drain.all_delivered());
        assert_eq!(collector.requests().len() - before, requests);
    }
    collector.always(Reply::accept());
    session.log("kept", ());
    assert!(stopped(&session).all_delivered());
    let stats = session.stats();
    // With a report of these losses.
    assert_eq!((stats.accepted, stats.delivered), (8, 4));
    assert_eq!(stats.dropped.rejected, 2);
    assert_eq!(stats.dropped.retries_exhausted, 2);
    assert!(stats.is_balanced());
    assert_eq!(
        names(&collector),
        [
            "SESSION_START",
            "kept",
            "tinkex.telemetry.report",
            "SESSION_END"
        ],
        "and the collector agrees"
    );
}

#[test]
fn waiting_for_the_drain_flushes_the_queue() {
    let collector = Collector::start().expect("a collector");
    let session = session(&collector.url())
        .flush_interval(Duration::ZERO)
        .start()
        .expect("it starts");
    for round in 1..=3 {
        session.log("x", ());
        let drain = drained(&session);
        assert!(drain.all_delivered(), "{drain:?}");
        assert_eq!(events(&collector).len(), 1 + round);
    }
    assert_eq!(
        drained(&session).delivered,
        0,
        "there was nothing to wait for"
    );
}

#[test]
fn log_returns_while_the_next_attempt_is_minutes_away() {
    let collector = Collector::start().expect("a collector");
    let session = backing_off(&collector);
    let handle = session.handle();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let accepted = (0..1000).filter(|_| handle.log("x", ())).count();
        handle.flush();
        done.send((accepted, handle.stats().queued))
    });
    assert_eq!(is_done.recv_timeout(BOUND), Ok((1000, 1001)));
    assert_eq!(collector.requests().len(), 1, "the backoff goes on");
    collector.always(Reply::accept());
    // The stop cuts it short.
    assert!(stopped(&session).all_delivered());
    assert_eq!(events(&collector).len(), 1002);
}

#[test]
fn a_fatal_error_right_after_the_start_is_sent() {
    for _ in 0..50 {
        let collector = Collector::start().expect("a collector");
        let session = session(&collector.url())
            .flush_interval(Duration::ZERO)
            .start()
            .expect("it starts");
        let drain = session.log_fatal_exception_blocking(&Failure("no", None), Severity::Critical);
        assert_eq!(drain.map(|drain| drain.delivered), Ok(3));
        assert_eq!(
            names(&collector),
            ["SESSION_START", "UNHANDLED_EXCEPTION", "SESSION_END"]
        );
    }
}

#[test]
fn a_full_queue_has_room_for_the_fatal_error_and_the_end() {
    for is_fatal in [true, false] {
        let collector = Collector::start().expect("a collector");
        collector.always(Reply::status(503));
        let session = session(&collector.url())
            .max_queue_size(10)
            .flush_threshold(10)
            .retry_base_delay(Duration::from_millis(1))
            .max_retries(u32::MAX)
            .start()
            .expect("it starts");
        let accepted = (0..100).filter(|_| session.log("x", ())).count();
        assert_eq!(accepted, 9);
        assert_eq!(session.stats().refused.queue_full, 91);
        if is_fatal {
            let error = Failure("fatal", None);
            // The call itself logs the error and ends the session; the future only waits.
            drop(session.log_fatal_exception(&error, Severity::Critical));
            assert!(session.stats().session_ended);
        }
        collector.always(Reply::accept());
        assert!(stopped(&session).all_delivered());
        let expected: &[_] = if is_fatal {
            &[
                "UNHANDLED_EXCEPTION",
                "tinkex.telemetry.report",
                "SESSION_END",
            ]
        } else {
            &["tinkex.telemetry.report", "SESSION_END"]
        };
        assert_eq!(names(&collector)[10..], *expected);
        assert_eq!(collector.violations(), []);
    }
}

#[test]
fn twenty_fatal_errors_at_once_end_the_session_once() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let together = Barrier::new(20);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                together.wait();
                let error = Failure("fatal", None);
                let drain = session.log_fatal_exception_blocking(&error, Severity::Critical);
                assert_eq!(drain.map(|drain| drain.is_drained()), Ok(true));
            });
        }
    });
    assert!(session.log("survived", ()));
    assert!(stopped(&session).all_delivered());
    let names = names(&collector);
    let count = |name| names.iter().filter(|other| *other == name).count();
    assert_eq!(count("SESSION_END"), 1);
    assert_eq!(count("UNHANDLED_EXCEPTION"), 20);
    assert_eq!(names.last().map(String::as_str), Some("survived"));
    assert_eq!((names.len(), session.stats().delivered), (23, 23));
    assert_eq!(collector.violations(), []);
}

#[test]
fn what_is_logged_between_a_fatal_error_and_the_end_does_not_end_the_session_for_the_backend() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let failed: Result<(), Failure> = capture!(reporter = session, fatal = true, {
        let failed = capture!(reporter = session, { Err(Failure("x", None)) });
        // As another thread may.
        assert!(session.log("between", ()));
        failed
    });
    assert!(failed.is_err() && session.stats().session_ended);
    assert!(session.log("after", ()));
    assert!(stopped(&session).all_delivered());
    let expected = [
        "SESSION_START",
        "UNHANDLED_EXCEPTION",
        "between",
        "SESSION_END",
        "after",
    ];
    assert_eq!(names(&collector), expected);
    assert_eq!(collector.violations(), []);
}

#[test]
fn a_permanently_rejected_batch_is_sent_once() {
    let permanent = [
        300, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 412,
        414, 415, 421, 422, 424, 426, 428, 431, 451, 499, 600,
    ];
    let collector = Collector::start().expect("a collector");
    let session = session(&collector.url())
        .retry_base_delay(Duration::from_millis(1))
        .start()
        .expect("it starts");
    assert!(drained(&session).all_delivered());
    for (before, status) in permanent.into_iter().enumerate() {
        // A `Retry-After` changes nothing.
        collector.always(Reply::status(status).retry_after("0"));
        session.log("x", ());
        let drain = drained(&session);
        assert_eq!((drain.dropped, drain.remaining), (1, 0), "{status}");
        assert_eq!(collector.requests().len(), 2 + before, "{status}");
    }
    let stats = session.stats();
    assert_eq!(stats.dropped.rejected, permanent.len() as u64);
    assert_eq!(stats.dropped.total(), stats.dropped.rejected);
}

#[test]
fn after_a_stop_log_returns_false_and_nothing_more_is_sent() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let handle = session.handle();
    assert!(stopped(&session).all_delivered());
    let error = Failure("late", None);
    let try_all = || {
        assert!(!handle.log("late", ()));
        assert!(!handle.log_with("late", (), Severity::Error));
        assert!(!handle.log_exception(&error, Severity::Error));
        let fatal = handle.log_fatal_exception_blocking(&error, Severity::Error);
        assert_eq!(fatal.map(|drain| drain.all_delivered()), Ok(true));
        handle.flush();
        assert!(drained(&handle).all_delivered());
        assert_eq!(stopped(&handle).delivered, 0);
    };
    try_all();
    drop(session);
    try_all();
    let stats = handle.stats();
    assert_eq!((stats.accepted, stats.delivered), (2, 2));
    assert_eq!(stats.refused.session_ended, 8);
    assert_eq!(stats.refused.total(), 8);
    assert_eq!(names(&collector), ["SESSION_START", "SESSION_END"]);
}

#[test]
fn an_outage_delays_neither_log_exception_nor_the_drop() {
    let collector = Collector::start().expect("a collector");
    let session = backing_off(&collector);
    let handle = session.handle();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let error = Failure("the application's own", None);
        let accepted = handle.log_exception(&error, Severity::Error);
        let _ = done.send((accepted, handle.stats().queued));
        // The server always responds with 503, at once: the second attempt is the last one in time.
        drop(session);
        let stats = handle.stats();
        done.send((stats.is_balanced(), stats.dropped.shutdown))
    });
    assert_eq!(is_done.recv_timeout(BOUND), Ok((true, 2)));
    assert_eq!(is_done.recv_timeout(BOUND), Ok((true, 3)));
    assert_eq!(collector.requests().len(), 2);
}

#[test]
fn the_traceback_is_the_cause_chain_of_the_logged_error() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "port 1");
    let inner = Failure("the model cannot be loaded", Some(Box::new(refused)));
    let outer = Failure("the step failed", Some(Box::new(inner)));
    assert!(session.log_exception(&outer, Severity::Error));
    assert!(session.log_exception(
        &*Box::<dyn core::error::Error>::from(outer),
        Severity::Error
    ));
    assert!(stopped(&session).all_delivered());
    let events = events(&collector);
    // The type is known, then hidden behind a trait object.
    for (event, name) in events[1..3].iter().zip([FAILURE, "Failure"]) {
        let event = event.value();
        assert_eq!(event["error_type"], name);
        assert_eq!(event["error_message"], "the step failed");
        let traceback = event["traceback"].as_str().expect("there is one");
        // With `RUST_BACKTRACE`, the stack of this thread follows.
        let mut lines = traceback.lines();
        let first = "Caused by: Failure: the model cannot be loaded";
        assert_eq!(lines.next(), Some(first));
        assert_eq!(
            lines.next(),
            Some("Caused by: std::io::error::Error: port 1")
        );
        assert!(matches!(lines.next(), None | Some("Stack:")), "{traceback}");
    }
}

#[test]
fn clients_come_and_go_and_the_session_stays() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let other = Collector::start().expect("a collector");
    thread::scope(|scope| {
        for _ in 0..10 {
            let handle = session.handle();
            scope.spawn(move || assert!(handle.clone().log("x", ())));
        }
        // Another reporter with the same session id stops, and a third is dropped.
        scope.spawn(|| assert!(stopped(&start(&other)).all_delivered()));
    });
    drop(start(&Collector::start().expect("a collector")));
    let stats = session.stats();
    assert!(!stats.session_ended && stats.driver_alive);
    assert!(session.log("still here", ()));
    assert!(stopped(&session).all_delivered());
    let record = collector.session(SESSION).expect("it was kept");
    assert_eq!((record.len(), record.has_ended()), (13, true));
}
