//! The driver, polled by hand: dropped at every await point, with a network that panics or never responds.

use crate::host::{Fate, ManualClock, Reply, Sent, Task, Wire, session};
use crate::support::{DAY, Failure};
use alloc::collections::{BTreeMap, BTreeSet};
use core::task::Poll;
use core::time::Duration;
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::session::{AlreadyDriven, Builder};
use tinkex_telemetry::{Handle, Severity, Stats, fields};

const SECOND: Duration = Duration::from_secs(1);

fn log(handle: &Handle, events: u64) {
    for n in 0..events {
        assert!(handle.log("x", fields! { n: n }));
    }
}

/// Requests a stop whose deadline never passes.
fn request_stop(handle: &Handle) {
    drop(handle.stop(DAY));
}

/// Small batches, so that there are several; unlimited retries, so that none is dropped.
fn patient<T>(clock: &ManualClock, transport: T) -> Builder<T, ManualClock, ()> {
    session(clock, transport)
        .max_batch_size(3)
        .flush_threshold(3)
        .max_retries(u32::MAX)
}

/// Every way an attempt can end, and both ways it can hang.
const TROUBLE: [Reply; 8] = [
    Reply::Fail,
    Reply::AcceptSlowly,
    Reply::TooLarge,
    Reply::AcceptSlowly,
    Reply::Never,
    Reply::PanicInPoll,
    Reply::Lost,
    Reply::PanicInCall,
];

#[test]
fn a_driver_dropped_at_any_point_is_replaced_without_loss() {
    let (mut runs, mut repeats) = (0, 0);
    for first in 0.. {
        for second in 0.. {
            let (finished, sent) = run_with_two_drops(first, second);
            repeats += check(&sent);
            runs += 1;
            if finished[1] {
                break;
            }
        }
        if run_with_two_drops(first, 0).0[0] {
            break;
        }
    }
    // The drops were spread over many polls, and some responses were lost.
    assert!(runs > 300, "{runs}");
    assert!(repeats > runs, "{repeats}");
    println!("{runs} drop points, {repeats} events arrived twice");
}

/// Drops the first driver after `first` polls, the second after another `second`, and lets the third run to its end.
/// Returns which of the first two had finished, and the requests.
fn run_with_two_drops(first: usize, second: usize) -> ([bool; 2], Vec<Sent>) {
    let clock = ManualClock::default();
    let wire = Wire::new(TROUBLE, Reply::AcceptSlowly);
    let (reporter, driver) = patient(&clock, wire.clone())
        .build()
        .expect("a valid configuration");
    log(&reporter, 7);
    let mut task = Task::new(driver.run());
    // The stop is requested after at most eight polls.
    let mut first_finished = task.run_for(&clock, first.min(8)).is_ready();
    request_stop(&reporter);
    first_finished |= first > 8 && task.run_for(&clock, first - 8).is_ready();
    drop(task);
    assert!(!reporter.stats().driver_alive);
    assert!(reporter.stats().is_balanced());
    let driver = reporter
        .new_driver(wire.clone())
        .expect("no driver is alive");
    let mut task = Task::new(driver.run());
    let second_finished = task.run_for(&clock, second).is_ready();
    drop(task);
    let driver = reporter
        .new_driver(wire.clone())
        .expect("no driver is alive");
    Task::new(driver.run()).run(&clock);

    let stats = reporter.stats();
    assert_eq!((stats.accepted, stats.delivered), (9, 9));
    assert!(stats.is_balanced());
    assert_eq!(clock.timers().alive, 0);
    ([first_finished, second_finished], wire.sent())
}

/// Checks that nothing is lost, and that an event is repeated only because its response was lost, under the same key.
/// Returns the number of repeats.
fn check(sent: &[Sent]) -> usize {
    let mut contents = BTreeMap::new();
    let mut fates = BTreeMap::<_, Vec<_>>::new();
    for request in sent {
        let content = contents.entry(request.key).or_insert(&request.body);
        assert_eq!(*content, &request.body, "a key belongs to one batch");
        for event in &request.events {
            let fate = (request.key, request.fate);
            fates.entry(event.clone()).or_default().push(fate);
        }
    }
    let indices: Vec<u64> = fates.keys().map(|(index, _)| *index).collect();
    assert_eq!(indices, (0..9).collect::<Vec<_>>(), "one id for each index");
    let mut repeats = 0;
    for fates in fates.values() {
        let received: Vec<_> = fates
            .iter()
            .filter(|(_, fate)| *fate > Fate::Unheard)
            .collect();
        let (last, before) = received.split_last().expect("nothing is lost");
        assert!(before.iter().all(|(_, fate)| *fate == Fate::Received));
        // The halves of a batch that was too large have new keys.
        let is_split = |key| {
            sent.iter()
                .any(|one| one.key == key && one.reply == Reply::TooLarge)
        };
        assert!(
            before
                .iter()
                .all(|(key, _)| *key == last.0 || is_split(*key))
        );
        assert_eq!(last.1, Fate::Acknowledged);
        repeats += before.len();
    }
    let mut firsts: Vec<u64> = sent.iter().map(|request| request.events[0].0).collect();
    firsts.dedup();
    assert!(firsts.is_sorted(), "one batch after another");
    repeats
}

#[test]
fn a_session_has_one_driver_at_a_time() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&clock, wire.clone())
        .build()
        .expect("a valid configuration");
    let refused = reporter.new_driver(wire.clone());
    assert_eq!(refused.err(), Some(AlreadyDriven));
    let future = driver.run();
    assert!(reporter.new_driver(wire.clone()).is_err(), "polled or not");
    drop(future);
    assert!(reporter.new_driver(wire).is_ok());
}

#[test]
fn a_wait_resolves_when_the_driver_is_dropped() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Never);
    let (reporter, driver) = session(&clock, wire.clone())
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    log(&reporter, 2);
    let mut wait = Task::new(reporter.wait_until_drained(DAY));
    assert!(driver.settle().is_pending());
    assert!(wait.settle().is_pending());
    drop(driver);
    let Poll::Ready(drain) = wait.settle() else {
        panic!("the wait was not woken");
    };
    assert_eq!((drain.delivered, drain.dropped, drain.remaining), (0, 0, 3));
    let now = Task::new(reporter.stop(DAY)).poll();
    assert!(now.is_ready(), "no driver is left to wait for");
    assert_eq!(clock.timers().alive, 0);
}

#[test]
fn a_panicking_transport_costs_an_attempt() {
    let clock = ManualClock::default();
    let wire = Wire::new([Reply::PanicInCall, Reply::PanicInPoll], Reply::Accept);
    let builder = session(&clock, wire.clone()).on_diagnostic(|diagnostic| {
        assert_eq!(diagnostic.kind, DiagnosticKind::AttemptFailed);
        assert_eq!(diagnostic.reason, "the transport panicked");
    });
    let (reporter, driver) = builder.build().expect("a valid configuration");
    log(&reporter, 2);
    request_stop(&reporter);
    Task::new(driver.run()).run(&clock);
    let sent = wire.sent();
    let attempts: Vec<_> = sent.iter().map(|sent| sent.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
    assert!(sent.iter().all(|one| one.key == sent[0].key));
    assert_eq!(reporter.stats().delivered, 4);
}

#[test]
fn a_transport_that_always_panics_does_not_end_the_session() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::PanicInPoll);
    let (reporter, driver) = session(&clock, wire.clone())
        .loss_report(false)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    let mut wait = Task::new(reporter.wait_until_drained(DAY));
    assert!(driver.run_for(&clock, 20).is_pending());
    let Poll::Ready(drain) = wait.settle() else {
        panic!("the wait did not resolve");
    };
    assert_eq!((drain.dropped, drain.remaining), (1, 0));
    assert_eq!(wire.sent().len(), 4);
    assert!(reporter.log("x", ()));
}

#[test]
fn a_transport_that_never_responds_costs_one_attempt_per_timeout() {
    let clock = ManualClock::default();
    let wire = Wire::new([Reply::Never, Reply::Lost], Reply::Accept);
    let (reporter, driver) = session(&clock, wire.clone())
        .http_timeout(7 * SECOND)
        .retry_base_delay(SECOND)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    let mut wait = Task::new(reporter.wait_until_drained(DAY));
    assert!(driver.settle().is_pending());
    clock.advance(7 * SECOND - Duration::from_micros(1));
    assert!(driver.settle().is_pending());
    assert_eq!(wire.sent().len(), 1);
    clock.advance(Duration::from_micros(1));
    assert!(driver.settle().is_pending());
    // The backoff is one second plus at most a tenth.
    clock.advance(SECOND + SECOND / 10);
    assert!(driver.settle().is_pending());
    assert_eq!(wire.sent().len(), 2);
    clock.advance(7 * SECOND);
    assert!(driver.settle().is_pending());
    clock.advance(2 * (SECOND + SECOND / 10));
    assert!(driver.settle().is_pending());
    assert!(matches!(wait.settle(), Poll::Ready(drain) if drain.all_delivered()));
    check_timers_of_an_idle_driver(&clock);
}

#[test]
fn a_stop_ends_a_hung_attempt_at_its_deadline() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Never);
    let (reporter, driver) = session(&clock, wire)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    reporter.flush();
    assert!(driver.settle().is_pending());
    let mut stop = Task::new(reporter.stop(SECOND));
    assert!(stop.settle().is_pending());
    assert!(driver.settle().is_pending());
    clock.advance(SECOND - Duration::from_micros(1));
    assert!(driver.settle().is_pending() && stop.settle().is_pending());
    clock.advance(Duration::from_micros(1));
    // Whichever runs first settles the ledger: here the waiter, without the driver.
    let Poll::Ready(drain) = stop.settle() else {
        panic!("the stop did not resolve");
    };
    assert_eq!((drain.delivered, drain.dropped, drain.remaining), (0, 0, 2));
    assert_eq!(reporter.stats().dropped.shutdown, 2);
    assert!(driver.settle().is_ready());
    assert_eq!(clock.timers().alive, 0);
}

#[test]
fn threshold_flushes_leave_no_timer_behind() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::AcceptSlowly);
    let (reporter, driver) = session(&clock, wire.clone())
        .flush_threshold(10)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    for _ in 0..1000 {
        log(&reporter, 10);
        assert!(driver.settle().is_pending());
    }
    assert_eq!(wire.sent().len(), 1000);
    let stats = reporter.stats();
    assert_eq!((stats.accepted, stats.queued), (10_001, 0));
    // One for the queue and one for the attempt in flight, each created once per reason to wait.
    let timers = clock.timers();
    assert!(timers.peak <= 2, "{timers:?}");
    assert!(timers.created <= 3 * 1000, "{timers:?}");
    log(&reporter, 1);
    assert!(driver.settle().is_pending());
    assert_eq!(clock.timers().alive, 1, "the flush interval");
    // The interval of the event, and the one that the driver keeps its timer for after the batch.
    for _ in 0..2 {
        clock.advance(10 * SECOND);
        assert!(driver.settle().is_pending());
    }
    check_timers_of_an_idle_driver(&clock);
    // Nothing wakes it from here on.
    let polls = driver.polls;
    clock.advance(DAY);
    assert!(driver.settle().is_pending());
    assert_eq!(driver.polls, polls);
}

/// An idle driver may still wait to shrink its queue or to report a diagnostic, but for nothing else.
fn check_timers_of_an_idle_driver(clock: &ManualClock) {
    assert!(clock.timers().alive <= 1, "{:?}", clock.timers());
}

#[test]
fn dropped_waits_leave_no_timers_or_wakers_behind() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&clock, wire)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    for _ in 0..1000 {
        let mut wait = Task::new(reporter.wait_until_drained(DAY));
        assert!(wait.settle().is_pending());
    }
    assert!(clock.timers().alive == 0);
    assert!(driver.settle().is_pending());
    assert_eq!(reporter.stats().delivered, 1);
}

#[test]
fn concurrent_waits_resolve_together() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::AcceptSlowly);
    let (reporter, driver) = session(&clock, wire)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    log(&reporter, 5);
    let mut waits: Vec<_> = (0..100)
        .map(|_| Task::new(reporter.wait_until_drained(DAY)))
        .collect();
    assert!(waits.iter_mut().all(|wait| wait.settle().is_pending()));
    assert!(driver.settle().is_pending());
    for wait in &mut waits {
        assert!(matches!(wait.settle(), Poll::Ready(drain) if drain.delivered == 6));
    }
}

#[test]
fn a_fatal_error_is_sent_even_if_its_future_is_never_polled() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&clock, wire.clone())
        .flush_interval(Duration::ZERO)
        .build()
        .expect("a valid configuration");
    drop(reporter.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
    let mut driver = Task::new(driver.run());
    assert!(driver.settle().is_pending());
    assert_eq!(
        wire.received(),
        ["SESSION_START", "UNHANDLED_EXCEPTION", "SESSION_END"]
    );
    request_stop(&reporter);
    assert!(driver.settle().is_ready());
    assert_eq!(wire.sent().len(), 1, "and the end is not sent again");
}

#[test]
fn an_exception_is_sent_at_once_with_everything_before_it() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&clock, wire.clone())
        .flush_interval(Duration::ZERO)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    log(&reporter, 1);
    assert!(driver.settle().is_pending());
    assert!(wire.sent().is_empty());
    assert!(reporter.log_exception(&Failure("an error", None), Severity::Error));
    log(&reporter, 1);
    assert!(driver.settle().is_pending());
    // What was logged after it goes too: it was queued when the batch was formed.
    assert_eq!(
        wire.received(),
        ["SESSION_START", "x", "UNHANDLED_EXCEPTION", "x"]
    );
}

#[test]
fn the_ledger_balances_after_every_poll() {
    let clock = ManualClock::default();
    let replies = TROUBLE.into_iter().chain([Reply::Refuse, Reply::Fail]);
    let wire = Wire::new(replies.cycle().take(60), Reply::Accept);
    let (reporter, driver) = session(&clock, wire)
        .max_batch_size(3)
        .flush_threshold(3)
        .max_retries(2)
        .max_queue_size(20)
        .build()
        .expect("a valid configuration");
    let mut driver = Task::new(driver.run());
    let mut before = Stats::default();
    let mut finished = false;
    for round in 0..2000 {
        if round < 400 {
            reporter.log("x", ());
        } else if round == 400 {
            request_stop(&reporter);
        }
        finished = finished || driver.run_for(&clock, 1).is_ready();
        let stats = reporter.stats();
        assert!(stats.is_balanced(), "{stats:?}");
        assert!(stats.accepted >= before.accepted && stats.settled() >= before.settled());
        before = stats;
    }
    assert!(finished);
    assert_eq!(before.queued, 0);
    let ways = BTreeSet::from([
        before.delivered,
        before.dropped.total(),
        before.refused.queue_full,
    ]);
    assert!(!ways.contains(&0), "{before:?}");
}
