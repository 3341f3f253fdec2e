//! What a session takes can change while it runs: it can be switched off and on, its queue discarded, and the lowest
//! severity set.

use crate::host::{ManualClock, Reply, Task, Wire, session};
use crate::support::{self, BOUND, DAY, Failure, names, start};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::thread;
use tinkex_telemetry::bus::Bus;
use tinkex_telemetry::collector::{self, Collector};
use tinkex_telemetry::event::{StatusError, Verdict};
use tinkex_telemetry::{Handle, Options, Severity};

#[test]
fn a_session_that_is_off_refuses_everything_and_continues_when_it_is_on_again() {
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&ManualClock::default(), wire.clone())
        .build()
        .expect("it is built");
    let mut driver = Task::new(driver.run());
    reporter.log("before", ());
    reporter.set_enabled(false);
    assert!(!reporter.is_enabled());
    let error = Failure("f", None);
    assert!(!reporter.log("while off", ()));
    assert!(!reporter.log_exception(&error, Severity::Critical));
    drop(reporter.log_fatal_exception(&error, Severity::Critical));
    let stats = reporter.stats();
    assert_eq!((stats.refused.disabled, stats.refused.total()), (3, 3));
    assert!(!stats.session_ended, "a fatal exception ends nothing");
    reporter.set_enabled(true);
    assert!(reporter.is_enabled() && reporter.log("after", ()));
    let mut stop = Task::new(reporter.stop(DAY));
    while stop.poll().is_pending() {
        let _ = driver.poll();
    }
    assert_eq!(
        wire.received(),
        ["SESSION_START", "before", "after", "SESSION_END"]
    );
    let indices: Vec<_> = wire
        .sent()
        .iter()
        .flat_map(|sent| sent.events.clone())
        .collect();
    let indices: Vec<_> = indices.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, [0, 1, 2, 3], "what was refused has no index");
}

#[test]
fn a_session_that_is_off_sends_what_was_queued_and_ends_without_its_end() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    session.log("before", ());
    session.set_enabled(false);
    session.log("while off", ());
    let drain = session.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_delivered());
    assert_eq!(names(&collector), ["SESSION_START", "before"]);
    let stats = session.stats();
    assert!(stats.session_ended && stats.is_balanced());
}

#[test]
fn nothing_of_a_discarded_queue_is_sent_and_the_attempt_under_way_is_abandoned() {
    for reply in [Reply::Never, Reply::AcceptSlowly, Reply::Fail] {
        let wire = Wire::new([reply], Reply::Accept);
        let (reporter, driver) = session(&ManualClock::default(), wire.clone())
            .build()
            .expect("it is built");
        let mut driver = Task::new(driver.run());
        reporter.log("queued", ());
        reporter.flush();
        assert!(driver.poll().is_pending());
        assert_eq!(wire.sent().len(), 1);
        reporter.log("behind", ());
        let mut wait = Task::new(reporter.wait_until_drained(DAY));
        assert!(wait.poll().is_pending());

        reporter.set_enabled(false);
        assert_eq!(reporter.discard(), 3);
        assert_eq!(reporter.discard(), 0);
        let Poll::Ready(drain) = wait.poll() else {
            panic!("a wait outlasts its events");
        };
        assert_eq!((drain.dropped, drain.remaining), (3, 0));
        // However often the driver is polled, the request goes no further.
        (0..10).for_each(|_| assert!(driver.poll().is_pending()));
        let mut stop = Task::new(reporter.stop(DAY));
        assert!(matches!(stop.poll(), Poll::Ready(drain) if drain.all_delivered()));
        assert!(driver.poll().is_ready());
        assert_eq!(wire.sent().len(), 1);
        assert!(wire.received().is_empty(), "{:?}", wire.received());
        let stats = reporter.stats();
        assert_eq!((stats.dropped.discarded, stats.dropped.total()), (3, 3));
        assert!(stats.is_balanced());
    }
}

#[test]
fn a_discard_alone_leaves_the_session_on() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let drain = session.wait_until_drained_blocking(BOUND);
    assert!(drain.expect("no executor here").all_delivered());
    session.log("discarded", ());
    assert_eq!(session.discard(), 1);
    session.log("kept", ());
    let drain = session.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_delivered());
    let expected = [
        "SESSION_START",
        "kept",
        "tinkex.telemetry.report",
        "SESSION_END",
    ];
    assert_eq!(names(&collector), expected);
}

#[test]
fn a_discard_ends_a_stop_in_an_outage() {
    let collector = Collector::start().expect("a collector");
    collector.always(collector::Reply::stall());
    let session = support::session(&collector.url())
        .http_timeout(DAY)
        .start()
        .expect("it starts");
    session.log("queued", ());
    let handle = session.handle();
    let stopping = thread::spawn(move || handle.stop_blocking(DAY));
    while !session.stats().session_ended {
        thread::yield_now();
    }
    assert_eq!(session.discard(), 3, "the end is discarded, too");
    let drain = stopping.join().expect("no panic").expect("it may wait");
    assert_eq!((drain.dropped, drain.remaining), (3, 0));
}

#[test]
fn after_the_switch_no_thread_has_an_event_accepted() {
    let clock = ManualClock::default();
    let (reporter, _driver) = session(&clock, Wire::new([], Reply::Accept))
        .build()
        .expect("it is built");
    let (is_done, logged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    reporter.log("x", ());
                    logged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..200 {
            reporter.set_enabled(false);
            let accepted = reporter.stats().accepted;
            reporter.discard();
            let before = logged.load(Ordering::Relaxed);
            while logged.load(Ordering::Relaxed) < before + 10 {
                thread::yield_now();
            }
            let stats = reporter.stats();
            assert_eq!((stats.accepted, stats.queued), (accepted, 0));
            reporter.set_enabled(true);
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert!(reporter.stats().is_balanced());
}

#[test]
fn events_below_the_lowest_severity_are_refused_without_an_index_whatever_they_are() {
    let collector = Collector::start().expect("a collector");
    let bus = Bus::new();
    let session = support::session(&collector.url())
        .min_severity(Severity::Warning)
        .bus(bus.clone())
        .start()
        .expect("it starts");
    assert!(!session.log("mild", ()));
    assert!(session.log_with("warning", (), Severity::Warning));
    // An automatic event of severity INFO.
    let metadata = [("session_id", support::SESSION.into())];
    bus.execute("tinkex.http.request.stop", &[], &metadata);
    assert!(!session.log_exception("mild", Severity::Info));
    // A user error is a warning, however severe or mild it is called.
    let user_error = StatusError::new(404);
    assert!(session.log_exception(&user_error, Severity::Debug));
    session.set_min_severity(Severity::Error);
    assert!(!session.log_exception(&user_error, Severity::Critical));
    assert!(session.log_exception("severe", Severity::Error));
    session.set_min_severity(Severity::Debug);
    assert!(session.log_with("at last", (), Severity::Debug));
    let stats = session.stats();
    assert_eq!(stats.refused.below_min_severity, 4);
    assert_eq!(stats.refused.total(), 4);

    session.set_min_severity(Severity::Critical);
    let drain = session.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_delivered());
    assert_eq!(
        names(&collector),
        [
            "SESSION_START",
            "warning",
            "user_error",
            "UNHANDLED_EXCEPTION",
            "at last",
            "SESSION_END"
        ]
    );
    let events = support::events(&collector);
    assert!(events.iter().map(|event| event.index()).eq(0..6));
}

#[test]
fn a_fatal_exception_ends_the_session_whatever_its_severity() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    session.set_min_severity(Severity::Critical);
    let drain = session.log_fatal_exception_blocking("fatal", Severity::Info);
    assert!(drain.is_ok_and(|drain| drain.all_delivered()));
    assert_eq!(
        names(&collector),
        ["SESSION_START", "UNHANDLED_EXCEPTION", "SESSION_END"]
    );
}

#[test]
fn what_a_scrub_hook_makes_too_mild_is_refused_and_what_is_too_mild_it_never_sees() {
    let collector = Collector::start().expect("a collector");
    let session = support::session(&collector.url())
        .min_severity(Severity::Warning)
        .scrub(|draft| {
            assert!(draft.severity() >= Severity::Warning);
            draft.set_severity(Severity::Info);
            Verdict::Keep
        })
        .start()
        .expect("it starts");
    assert!(!session.log("mild", ()));
    assert!(!session.log_with("severe", (), Severity::Error));
    assert!(!session.log_exception("severe", Severity::Error));
    let stats = session.stats();
    assert_eq!(stats.refused.below_min_severity, 3, "{stats:?}");
    assert_eq!(stats.refused.total(), 3);
}

#[test]
fn a_handle_without_a_session_ignores_all_of_it() {
    let off = Handle::off();
    off.set_enabled(true);
    off.set_min_severity(Severity::Debug);
    assert_eq!(off.discard(), 0);
    assert!(!off.is_enabled() && !off.log("x", ()));
    assert_eq!(Options::default().min_severity, Severity::Debug);
}

#[test]
fn switched_off_a_capture_still_passes_its_result_on() {
    let clock = ManualClock::default();
    let (reporter, _driver) = session(&clock, Wire::new([], Reply::Accept))
        .flush_timeout(Duration::ZERO)
        .build()
        .expect("it is built");
    reporter.set_enabled(false);
    let result = tinkex_telemetry::capture!(reporter = reporter, fatal = true, {
        Err::<(), _>(Failure("f", None))
    });
    assert!(result.is_err());
    assert!(!reporter.stats().session_ended);
    let mut wait = pin!(reporter.wait_until_drained(Duration::ZERO));
    let _ = Task::new(wait.as_mut()).poll();
}
