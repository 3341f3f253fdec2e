//! Fatal errors, waits, stops, drops, and runtimes that shut down.

use crate::session::{BOUND, ID, open, options};
use crate::table::Verdict::{self, DoesNotApply, Passed};
use core::task::{Context, Waker};
use core::time::Duration;
use std::io;
use std::time::Instant;
use tinkex_telemetry::Severity;
use tinkex_telemetry::collector::{EventKind, Reply};
use tinkex_telemetry::http::HttpClient;
use zoo::runtimes::RuntimeUnderTest;

pub(crate) fn a_fatal_exception_is_sent_with_the_end<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    let error = io::Error::other("the disk is gone");
    let fatal = session
        .handle
        .log_fatal_exception(&error, Severity::Critical);
    assert!(session.run(fatal).all_delivered());
    let kept = session.kept();
    let kinds: Vec<_> = kept.events().iter().map(|event| event.kind()).collect();
    let expected = [
        EventKind::SessionStart,
        EventKind::UnhandledException,
        EventKind::SessionEnd,
    ];
    assert_eq!(kinds, expected);
    assert!(session.diagnostics.lock().expect("no panic").contains(ID));
    Passed
}

pub(crate) fn a_drain_in_a_task_ends_when_everything_is_settled<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.log(150);
    let drain = session.run(session.handle.wait_until_drained(BOUND));
    assert!(drain.all_delivered());
    // The first batch may have been delivered before the drain was called, which counts from there.
    assert_eq!(session.handle.stats().delivered, 151);
    session.collector.script([Reply::status(403)]);
    session.log(7);
    let drain = session.run(session.handle.wait_until_drained(BOUND));
    assert!(drain.is_drained() && !drain.all_delivered());
    assert_eq!((drain.delivered, drain.dropped), (0, 7));
    Passed
}

pub(crate) fn a_stop_in_a_task_ends_the_session<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.log(150);
    let drain = session.run(session.handle.stop(BOUND));
    assert!(drain.all_delivered());
    assert!(!session.handle.log("late", ()));
    let stats = session.handle.stats();
    assert_eq!(stats.refused.session_ended, 1);
    assert!(stats.session_ended && stats.is_balanced());
    let kept = session.kept();
    assert!(kept.has_ended());
    assert_eq!((kept.len(), kept.gaps()), (152, vec![]));
    Passed
}

/// In real time, for one deadline.
pub(crate) fn a_stop_ends_at_its_deadline_even_if_the_server_never_responds<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    const DEADLINE: Duration = Duration::from_millis(100);
    let session = open::<W, H>(client, options());
    session.collector.always(Reply::stall());
    session.log(250);
    let start = Instant::now();
    let drain = session.run(session.handle.stop(DEADLINE));
    assert!(start.elapsed() >= DEADLINE);
    assert_eq!((drain.delivered, drain.remaining), (0, 252));
    let stats = session.handle.stats();
    assert_eq!((stats.dropped.shutdown, stats.queued), (252, 0));
    assert!(stats.is_balanced());
    Passed
}

pub(crate) fn a_dropped_reporter_still_sends_its_end<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut session = open::<W, H>(client, options());
    session.log(3);
    drop(session.reporter.take());
    assert!(session.collector.wait_for(ID, 5, BOUND));
    assert!(session.kept().has_ended());
    assert!(!session.handle.log("late", ()));
    Passed
}

pub(crate) fn blocking_waits_work_outside_and_never_hang_inside<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.log(1);
    session.deliver();
    // Inside a task the wait works or is refused at once; the flush or stop it requests happens in either case.
    for _ in 0..20 {
        session.log(1);
        let handle = session.handle.clone();
        let start = Instant::now();
        let result = session.run(async move { handle.wait_until_drained_blocking(BOUND) });
        assert!(start.elapsed() < BOUND / 2);
        if let Ok(drain) = result {
            assert!(drain.all_delivered());
        }
    }
    assert!(session.collector.wait_for(ID, 22, BOUND));
    let handle = session.handle.clone();
    let _ = session.run(async move { handle.stop_blocking(BOUND) });
    assert!(session.collector.wait_for(ID, 23, BOUND));
    assert!(session.kept().has_ended());
    Passed
}

pub(crate) fn calls_on_an_ended_session_return_at_once<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut session = open::<W, H>(client, options());
    assert!(session.run(session.handle.stop(BOUND)).all_delivered());
    let requests = session.collector.requests().len();
    let drain = session.run(session.handle.stop(BOUND));
    assert!(drain.is_drained());
    session.handle.flush();
    assert!(session.drain().is_drained());
    drop(session.reporter.take());
    let error = io::Error::other("too late");
    let fatal = session.handle.log_fatal_exception(&error, Severity::Error);
    assert_eq!(session.run(fatal).delivered, 0);
    assert!(!session.handle.log("late", ()));
    assert_eq!(session.collector.requests().len(), requests);
    Passed
}

pub(crate) fn shutting_down_the_runtime_ends_every_wait<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut session = open::<W, H>(client, options());
    session.deliver();
    session.collector.always(Reply::stall());
    session.log(5);
    session.handle.flush();
    assert!(session.collector.wait_for_requests(2, BOUND));
    // This wait begins before the shutdown. Nothing may wake the driver while its executor is dropped: smol's may
    // then keep the task.
    let mut waiting = Box::pin(session.handle.wait_until_drained(BOUND));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    if !session.runtime.shut_down() {
        session.collector.always(Reply::accept());
        session.collector.stop();
        drop(waiting);
        return DoesNotApply;
    }
    let start = Instant::now();
    let drain = smol::block_on(waiting);
    assert_eq!((drain.delivered, drain.remaining), (0, 5));
    let drain = session.drain();
    assert_eq!((drain.delivered, drain.remaining), (0, 5));
    let drain = smol::block_on(session.handle.stop(BOUND));
    assert_eq!(drain.delivered, 0);
    assert!(drain.remaining > 0);
    drop(session.reporter.take());
    assert!(start.elapsed() < BOUND / 2);
    let stats = session.handle.stats();
    assert!(!stats.driver_alive && stats.is_balanced());
    Passed
}
