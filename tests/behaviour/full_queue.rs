//! A full queue: which limit is named, and which events may use the reserve for errors.

use crate::host::{ManualClock, Reply, Task, Wire, session};
use crate::support::Failure;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use tinkex_telemetry::event::{StatusError, Verdict};
use tinkex_telemetry::session::{Builder, Driver, Memory};
use tinkex_telemetry::{Handle, Reporter, Severity, fields};

type Session = (Reporter<Wire, ManualClock, ()>, Driver<Wire, ManualClock>);

/// The name and the value of the limit that the diagnostic about a full queue names, and the message.
fn reported_limit(
    build: impl FnOnce(Builder<Wire, ManualClock, ()>) -> Session,
) -> (Option<&'static str>, Option<usize>, String) {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reported);
    let clock = ManualClock::default();
    let builder = session(&clock, Wire::new([], Reply::Never))
        .max_event_bytes(1_000)
        .on_diagnostic(move |diagnostic| {
            let report = (
                diagnostic.limit_name,
                diagnostic.limit,
                diagnostic.to_string(),
            );
            sink.lock().expect("no panic").push(report);
        });
    let (reporter, driver) = build(builder);
    let mut driver = Task::new(driver.run());
    while reporter.log("x", fields! { text: "x".repeat(500) }) {}
    assert!(driver.settle().is_pending());
    let mut reported = reported.lock().expect("no panic");
    assert_eq!(reported.len(), 1);
    reported.remove(0)
}

#[test]
fn a_full_queue_is_reported_with_the_setting_to_raise() {
    let line = |limit| format!("Telemetry queue full ({limit}), dropping event (1 refused)");
    let by_size = reported_limit(|builder| {
        let built = builder.max_queue_size(5).flush_threshold(5).build();
        built.expect("a valid configuration")
    });
    let expected = (Some("max_queue_size"), Some(5), line("max_queue_size: 5"));
    assert_eq!(by_size, expected);
    let by_bytes = reported_limit(|builder| {
        let built = builder.max_queue_bytes(3_000).build();
        built.expect("a valid configuration")
    });
    let expected = (
        Some("max_queue_bytes"),
        Some(3_000),
        line("max_queue_bytes: 3000"),
    );
    assert_eq!(by_bytes, expected);
    // Without the place of a fatal exception, and that of `SESSION_END`.
    let by_memory = reported_limit(|builder| {
        let memory = Box::leak(Box::new(Memory::<ManualClock, 4_268, 4_000>::new()));
        builder.build_in(memory).expect("a valid configuration")
    });
    let expected = (
        Some("static memory"),
        Some(3_000),
        line("static memory: 3000"),
    );
    assert_eq!(by_memory, expected);
}

/// Whether a queue that is full for other events takes each of what `log` logs, as many as the reserve has places.
fn uses_reserve(log: impl Fn(&Handle) -> bool) -> bool {
    let is_milder = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&is_milder);
    let clock = ManualClock::default();
    let plain = session(&clock, Wire::new([], Reply::Never));
    let scrubbed = session(&clock, Wire::new([], Reply::Never)).scrub(move |draft| {
        if draft.name() == "made milder" {
            hook.store(true, Ordering::Relaxed);
            draft.set_severity(Severity::Info);
        }
        Verdict::Keep
    });
    let taken = [plain, scrubbed].map(|builder| {
        let (reporter, _driver) = builder
            .max_queue_size(16)
            .flush_threshold(16)
            .build()
            .expect("a valid configuration");
        while reporter.log("x", ()) {}
        assert_eq!(reporter.stats().queued, 16);
        [log(&reporter), log(&reporter), log(&reporter)]
    });
    let [plain, scrubbed] = taken;
    if !is_milder.load(Ordering::Relaxed) {
        assert_eq!(plain, scrubbed, "a hook changes nothing");
    }
    match scrubbed {
        [true, true, false] => true,
        [false, false, false] => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_an_event_that_is_an_error_in_the_end_uses_the_reserve_for_errors() {
    let error = Failure("an error", None);
    for severity in [Severity::Error, Severity::Critical] {
        assert!(uses_reserve(|handle| handle.log_with("x", (), severity)));
        assert!(uses_reserve(|handle| handle.log_exception(&error, severity)));
        // A user error is a warning, whatever the severity it is logged with.
        let user_error = StatusError::new(404);
        assert!(!uses_reserve(
            |handle| handle.log_exception(&user_error, severity)
        ));
        assert!(!uses_reserve(|handle| handle.log_with(
            "made milder",
            (),
            severity
        )));
    }
    let warning = Severity::Warning;
    assert!(!uses_reserve(|handle| handle.log_with("x", (), warning)));
    assert!(!uses_reserve(|handle| handle.log_exception(&error, warning)));
}

#[test]
fn a_fatal_user_error_has_the_place_of_a_fatal_exception() {
    let clock = ManualClock::default();
    let (reporter, _driver) = session(&clock, Wire::new([], Reply::Never))
        .max_queue_size(16)
        .flush_threshold(16)
        .build()
        .expect("a valid configuration");
    while reporter.log("x", ()) {}
    drop(reporter.log_fatal_exception(&StatusError::new(404), Severity::Error));
    assert_eq!(reporter.stats().queued, 19, "it, a report, SESSION_END");
}
