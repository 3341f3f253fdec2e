//! A session in caller-provided memory, and a transport that stays on its thread.

use crate::host::{ManualClock, Reply, Task, Wire, session};
use crate::support::{DAY, Failure};
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::session::{BuildError, Builder, Driver, Memory};
use tinkex_telemetry::{Batch, Handle, Receipt, Reporter, SendError, Severity, Transport, fields};

const EVENT: usize = 600;
const BODY_PREFIX: &str =
    r#"{"session_id":"s","platform":"unix/linux","sdk_version":"0.1.0","events":["#;
const BODY_SUFFIX: &str = "]}";
/// The smallest memory that works.
const QUEUE: usize = 2 * (EVENT + 12) + 256;
const BATCH: usize = EVENT + BODY_PREFIX.len() + BODY_SUFFIX.len();

type Host<T> = (Reporter<T, ManualClock, ()>, Driver<T, ManualClock>);

fn small<T>(clock: &ManualClock, transport: T) -> Builder<T, ManualClock, ()> {
    session(clock, transport).max_event_bytes(EVENT)
}

fn build_in<const Q: usize, const B: usize, T: LocalTransport>(
    builder: Builder<T, ManualClock, ()>,
) -> Result<Host<T>, BuildError> {
    builder.build_in(Box::leak(Box::new(Memory::<ManualClock, Q, B>::new())))
}

/// Uses every kind of call.
fn exercise(handle: &Handle) {
    for n in 0..10 {
        handle.log("x", fields! { n: n });
    }
    handle.log_exception(&Failure("an error", None), Severity::Error);
    drop(handle.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
    handle.log_with("after", (), Severity::Warning);
    drop(handle.stop(DAY));
}

/// A transport that holds an `Rc`.
#[derive(Clone)]
struct Local(Rc<RefCell<Wire>>);

impl LocalTransport for Local {
    fn send(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Receipt, SendError>> {
        let mut wire = self.0.borrow().clone();
        async move { Transport::send(&mut wire, batch).await }
    }
}

/// A body without its tracebacks: with `RUST_BACKTRACE` they name the lines of the caller, which differ.
fn without_tracebacks(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let mut parts = body.split(r#""traceback":""#);
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut is_escaped = false;
        let end = part.find(|character| {
            let ends = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            ends
        });
        rest.push_str(&part[end.expect("the end of the text")..]);
    }
    rest
}

/// The bodies of all requests.
fn bodies(build: impl FnOnce(&ManualClock, Wire)) -> Vec<String> {
    let replies = [Reply::Fail, Reply::TooLarge, Reply::AcceptSlowly];
    let wire = Wire::new(replies, Reply::Accept);
    build(&ManualClock::default(), wire.clone());
    let sent = wire.sent().into_iter();
    sent.map(|sent| without_tracebacks(&sent.body)).collect()
}

#[test]
fn a_session_sends_the_same_bytes_whatever_memory_it_uses() {
    let growing = bodies(|clock, wire| {
        let (reporter, driver) = small(clock, wire).build().expect("a valid configuration");
        exercise(&reporter);
        Task::new(driver.run()).run(clock);
    });
    let given = bodies(|clock, wire| {
        let built = build_in::<16_384, 16_384, _>(small(clock, wire));
        let (reporter, driver) = built.expect("a valid configuration");
        exercise(&reporter);
        Task::new(driver.run()).run(clock);
    });
    let local = bodies(|clock, wire| {
        let wire = Local(Rc::new(RefCell::new(wire)));
        let built = build_in::<16_384, 16_384, _>(small(clock, wire));
        let (reporter, driver) = built.expect("a valid configuration");
        exercise(&reporter);
        Task::new(driver.run_local()).run(clock);
    });
    let growing_local = bodies(|clock, wire| {
        let wire = Local(Rc::new(RefCell::new(wire)));
        let (reporter, driver) = small(clock, wire).build().expect("a valid configuration");
        exercise(&reporter);
        Task::new(driver.run_local()).run(clock);
    });
    assert_eq!(
        growing.len(),
        5,
        "the whole batch twice, two halves, the event after the end"
    );
    assert_eq!(growing, given);
    assert_eq!(growing, local);
    assert_eq!(growing, growing_local);
}

fn too_small(what: &'static str, needed: usize, given: usize) -> Option<BuildError> {
    Some(BuildError::StorageTooSmall {
        what,
        needed,
        given,
    })
}

#[test]
fn memory_that_is_too_small_is_refused_with_the_size_needed() {
    let wire = || Wire::new([], Reply::Accept);
    let clock = ManualClock::default();
    let refused = build_in::<{ QUEUE - 1 }, BATCH, _>(small(&clock, wire())).err();
    assert_eq!(refused, too_small("queue", QUEUE, QUEUE - 1));
    assert_eq!(
        refused.map(|error| error.to_string()),
        Some(format!(
            "the queue memory needs at least {QUEUE} bytes, not {}",
            QUEUE - 1
        ))
    );
    let refused = build_in::<1304, BATCH, _>(small(&clock, wire())).err();
    assert_eq!(refused, too_small("queue", QUEUE, 1304));
    let refused = build_in::<QUEUE, { BATCH - 1 }, _>(small(&clock, wire())).err();
    assert_eq!(refused, too_small("batch", BATCH, BATCH - 1));
    let refused = build_in::<QUEUE, 600, _>(small(&clock, wire())).err();
    assert_eq!(refused, too_small("batch", BATCH, 600));
    // Options are checked before the memory.
    let refused = build_in::<QUEUE, BATCH, _>(small(&clock, wire()).max_queue_size(0)).err();
    assert!(
        matches!(refused, Some(BuildError::Option(error)) if error.option() == "max_queue_size")
    );
}

#[test]
fn minimal_memory_fits_the_largest_event_and_the_reserve() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) =
        build_in::<QUEUE, BATCH, _>(small(&clock, wire.clone())).expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    let mut drain = |name: &str| {
        let mut wait = Task::new(reporter.wait_until_drained(DAY));
        assert!(driver.settle().is_pending());
        assert!(wait.settle().is_ready(), "{name}");
    };
    drain("the start");
    let longest = (0..EVENT).rev().map(|len| "x".repeat(len));
    let longest = longest
        .filter(|text| text.len() < EVENT - 150)
        .find(|text| reporter.log(text, ()))
        .expect("one that fits");
    let refused = reporter.stats().refused;
    assert!(refused.event_too_large > 0 && refused.total() == refused.event_too_large);
    let sent = reporter.stats();
    assert_eq!(sent.queued_bytes, EVENT + 12, "not a byte more would fit");
    assert!(!reporter.log("x", ()), "the queue is full");
    drop(reporter.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
    assert_eq!(reporter.stats().queued, 4, "the reserve still takes them");
    drain("the rest");
    let expected = [
        "SESSION_START",
        longest.as_str(),
        "UNHANDLED_EXCEPTION",
        "tinkex.telemetry.report",
        "SESSION_END",
    ];
    assert_eq!(wire.received(), expected);
    drop(reporter.stop(DAY));
    assert!(driver.settle().is_ready());
    let stats = reporter.stats();
    assert_eq!((stats.accepted, stats.delivered), (5, 5));
}
