//! A full queue: which limit is named, and which events may use the reserve for errors.

use crate::host::{ManualClock, Reply, Wire, session};
use crate::support::Failure;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use tinkex_telemetry::event::{StatusError, Verdict};
use tinkex_telemetry::{Handle, Severity};

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
    assert_eq!(reporter.stats().queued, 18, "it, and SESSION_END");
}
