//! A session in memory that the program gives, and a transport that stays on its thread.

use crate::host::{Hand, Reply, Task, Wire, session};
use crate::support::{DAY, Failure};
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::session::{BuildError, Builder, Driver, Memory};
use tinkex_telemetry::{Batch, Handle, Receipt, Reporter, SendError, Severity, Transport, fields};

const EVENT: usize = 600;
const HEAD: &str = r#"{"session_id":"s","platform":"unix/linux","sdk_version":"0.1.0","events":["#;
const FOOT: &str = "]}";
/// The least that can work.
const QUEUE: usize = 2 * (EVENT + 12) + 256;
const BATCH: usize = EVENT + HEAD.len() + FOOT.len();

type Host<T> = (Reporter<T, Hand, ()>, Driver<T, Hand>);

fn small<T>(hand: &Hand, transport: T) -> Builder<T, Hand, ()> {
    session(hand, transport).max_event_bytes(EVENT)
}

fn build_in<const Q: usize, const B: usize, T: LocalTransport>(
    builder: Builder<T, Hand, ()>,
) -> Result<Host<T>, BuildError> {
    builder.build_in(Box::leak(Box::new(Memory::<Hand, Q, B>::new())))
}

/// A bit of everything.
fn use_it(handle: &Handle) {
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

/// The bodies of all requests.
fn bodies(build: impl FnOnce(&Hand, Wire)) -> Vec<Vec<u8>> {
    let replies = [Reply::Fail, Reply::TooLarge, Reply::AcceptSlowly];
    let wire = Wire::new(replies, Reply::Accept);
    build(&Hand::default(), wire.clone());
    wire.sent().into_iter().map(|sent| sent.body).collect()
}

#[test]
fn the_same_session_sends_the_same_bytes_wherever_its_memory_is() {
    let growing = bodies(|hand, wire| {
        let (reporter, driver) = small(hand, wire).build().expect("it can work");
        use_it(&reporter);
        Task::new(driver.run()).run(hand);
    });
    let given = bodies(|hand, wire| {
        let built = build_in::<16_384, 16_384, _>(small(hand, wire));
        let (reporter, driver) = built.expect("it can work");
        use_it(&reporter);
        Task::new(driver.run()).run(hand);
    });
    let local = bodies(|hand, wire| {
        let wire = Local(Rc::new(RefCell::new(wire)));
        let built = build_in::<16_384, 16_384, _>(small(hand, wire));
        let (reporter, driver) = built.expect("it can work");
        use_it(&reporter);
        Task::new(driver.run_local()).run(hand);
    });
    let growing_local = bodies(|hand, wire| {
        let wire = Local(Rc::new(RefCell::new(wire)));
        let (reporter, driver) = small(hand, wire).build().expect("it can work");
        use_it(&reporter);
        Task::new(driver.run_local()).run(hand);
    });
    assert_eq!(
        growing.len(),
        5,
        "twice the whole, two halves, what came after the end"
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
fn memory_that_is_too_small_is_refused_with_the_number_that_would_do() {
    let wire = || Wire::new([], Reply::Accept);
    let hand = Hand::default();
    let refused = build_in::<{ QUEUE - 1 }, BATCH, _>(small(&hand, wire())).err();
    assert_eq!(refused, too_small("queue", QUEUE, QUEUE - 1));
    assert_eq!(
        refused.map(|error| error.to_string()),
        Some(format!(
            "the queue memory needs at least {QUEUE} bytes, not {}",
            QUEUE - 1
        ))
    );
    let refused = build_in::<1304, BATCH, _>(small(&hand, wire())).err();
    assert_eq!(refused, too_small("queue", QUEUE, 1304));
    let refused = build_in::<QUEUE, { BATCH - 1 }, _>(small(&hand, wire())).err();
    assert_eq!(refused, too_small("batch", BATCH, BATCH - 1));
    let refused = build_in::<QUEUE, 600, _>(small(&hand, wire())).err();
    assert_eq!(refused, too_small("batch", BATCH, 600));
    // The option is looked at before the memory.
    let refused = build_in::<QUEUE, BATCH, _>(small(&hand, wire()).max_queue_size(0)).err();
    assert!(
        matches!(refused, Some(BuildError::Option(error)) if error.option() == "max_queue_size")
    );
}

#[test]
fn with_exactly_the_least_memory_the_largest_event_is_sent_and_the_reserve_is_there() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) =
        build_in::<QUEUE, BATCH, _>(small(&hand, wire.clone())).expect("it can work");
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
    assert_eq!(reporter.stats().queued, 3, "but for the reserve");
    drain("the rest");
    let expected = [
        "SESSION_START",
        longest.as_str(),
        "UNHANDLED_EXCEPTION",
        "SESSION_END",
    ];
    assert_eq!(wire.received(), expected);
    drop(reporter.stop(DAY));
    assert!(driver.settle().is_ready());
    let stats = reporter.stats();
    assert_eq!((stats.accepted, stats.delivered), (4, 4));
}
