//! The driver, polled by hand: dropped wherever it waits, with a network that panics or never answers.

use crate::host::{Fate, Hand, Reply, Sent, Task, Wire, session};
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

/// Asks for a stop whose deadline never comes.
fn ask_to_stop(handle: &Handle) {
    drop(handle.stop(DAY));
}

/// Small batches, so that there are several; retries without end, so that nothing is given up.
fn patient<T>(hand: &Hand, transport: T) -> Builder<T, Hand, ()> {
    session(hand, transport)
        .max_batch_size(3)
        .flush_threshold(3)
        .max_retries(u32::MAX)
}

/// Every way in which an attempt can end, and both in which it can hang.
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
fn wherever_the_driver_is_dropped_another_one_loses_nothing() {
    let (mut runs, mut repeats) = (0, 0);
    for first in 0.. {
        for second in 0.. {
            let (is_through, sent) = run_with_two_drops(first, second);
            repeats += check(&sent);
            runs += 1;
            if is_through[1] {
                break;
            }
        }
        if run_with_two_drops(first, 0).0[0] {
            break;
        }
    }
    // It was not all over at the first polls, and there were answers that got lost.
    assert!(runs > 300, "{runs}");
    assert!(repeats > runs, "{repeats}");
    println!("dropped in {runs} ways, {repeats} events came twice");
}

/// Drops the first driver after so many polls, the second after so many more, and lets the third run. Says which of the
/// two were through already.
fn run_with_two_drops(first: usize, second: usize) -> ([bool; 2], Vec<Sent>) {
    let hand = Hand::default();
    let wire = Wire::new(TROUBLE, Reply::AcceptSlowly);
    let (reporter, driver) = patient(&hand, wire.clone()).build().expect("it can work");
    log(&reporter, 7);
    let mut task = Task::new(driver.run());
    // From the middle on it is stopping.
    let mut is_first_through = task.run_for(&hand, first.min(8)).is_ready();
    ask_to_stop(&reporter);
    is_first_through |= first > 8 && task.run_for(&hand, first - 8).is_ready();
    drop(task);
    assert!(!reporter.stats().driver_alive);
    assert!(reporter.stats().is_balanced());
    let driver = reporter.new_driver(wire.clone()).expect("it has none");
    let mut task = Task::new(driver.run());
    let is_second_through = task.run_for(&hand, second).is_ready();
    drop(task);
    let driver = reporter.new_driver(wire.clone()).expect("it has none");
    Task::new(driver.run()).run(&hand);

    let stats = reporter.stats();
    assert_eq!((stats.accepted, stats.delivered), (9, 9));
    assert!(stats.is_balanced());
    assert_eq!(hand.timers().alive, 0);
    ([is_first_through, is_second_through], wire.sent())
}

/// Nothing is lost; what is repeated is repeated because its answer was unknown, with the same key. How many repeats
/// there were.
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
        // The halves of a batch that was too large have keys of their own.
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
    assert!(firsts.is_sorted(), "one batch after the other");
    repeats
}

#[test]
fn a_session_has_one_driver_at_a_time() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&hand, wire.clone()).build().expect("it can work");
    let refused = reporter.new_driver(wire.clone());
    assert_eq!(refused.err(), Some(AlreadyDriven));
    let future = driver.run();
    assert!(reporter.new_driver(wire.clone()).is_err(), "polled or not");
    drop(future);
    assert!(reporter.new_driver(wire).is_ok());
}

#[test]
fn a_wait_ends_with_the_driver() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Never);
    let (reporter, driver) = session(&hand, wire.clone()).build().expect("it can work");
    let mut driver = Task::new(driver.run());
    log(&reporter, 2);
    let mut wait = Task::new(reporter.wait_until_drained(DAY));
    assert!(driver.settle().is_pending());
    assert!(wait.settle().is_pending());
    drop(driver);
    let Poll::Ready(drain) = wait.settle() else {
        panic!("it was not woken");
    };
    assert_eq!((drain.delivered, drain.dropped, drain.remaining), (0, 0, 3));
    let now = Task::new(reporter.stop(DAY)).poll();
    assert!(now.is_ready(), "there is nobody to wait for");
    assert_eq!(hand.timers().alive, 0);
}

#[test]
fn a_transport_that_panics_costs_an_attempt() {
    let hand = Hand::default();
    let wire = Wire::new([Reply::PanicInCall, Reply::PanicInPoll], Reply::Accept);
    let builder = session(&hand, wire.clone()).on_diagnostic(|diagnostic| {
        assert_eq!(diagnostic.kind, DiagnosticKind::AttemptFailed);
        assert_eq!(diagnostic.reason, "the transport panicked");
    });
    let (reporter, driver) = builder.build().expect("it can work");
    log(&reporter, 2);
    ask_to_stop(&reporter);
    Task::new(driver.run()).run(&hand);
    let sent = wire.sent();
    let attempts: Vec<_> = sent.iter().map(|sent| sent.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
    assert!(sent.iter().all(|one| one.key == sent[0].key));
    assert_eq!(reporter.stats().delivered, 4);
}

#[test]
fn a_transport_that_panics_for_ever_does_not_end_the_session() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::PanicInPoll);
    let (reporter, driver) = session(&hand, wire.clone()).build().expect("it can work");
    let mut driver = Task::new(driver.run());
    let mut wait = Task::new(reporter.wait_until_drained(DAY));
    assert!(driver.run_for(&hand, 20).is_pending());
    let Poll::Ready(drain) = wait.settle() else {
        panic!("the batch was given up");
    };
    assert_eq!((drain.dropped, drain.remaining), (1, 0));
    assert_eq!(wire.sent().len(), 4);
    assert!(reporter.log("x", ()));
}

#[test]
fn a_transport_that_never_answers_costs_an_attempt_for_each_timeout() {
    let hand = Hand::default();
    let wire = Wire::new([Reply::Never, Reply::Lost], Reply::Accept);
    let (reporter, driver) = session(&hand, wire.clone())
        .http_timeout(7 * SECOND)
        .retry_base_delay(SECOND)
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    let mut wait = Task::new(reporter.wait_until_drained(DAY));
    assert!(driver.settle().is_pending());
    hand.advance(7 * SECOND - Duration::from_micros(1));
    assert!(driver.settle().is_pending());
    assert_eq!(wire.sent().len(), 1);
    hand.advance(Duration::from_micros(1));
    assert!(driver.settle().is_pending());
    // A backoff of one second and a tenth at the most.
    hand.advance(SECOND + SECOND / 10);
    assert!(driver.settle().is_pending());
    assert_eq!(wire.sent().len(), 2);
    hand.advance(7 * SECOND);
    assert!(driver.settle().is_pending());
    hand.advance(2 * (SECOND + SECOND / 10));
    assert!(driver.settle().is_pending());
    assert!(matches!(wait.settle(), Poll::Ready(drain) if drain.all_delivered()));
    check_timers_of_an_idle_driver(&hand);
}

#[test]
fn a_stop_ends_an_attempt_that_never_answers_at_its_deadline() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Never);
    let (reporter, driver) = session(&hand, wire).build().expect("it can work");
    let mut driver = Task::new(driver.run());
    reporter.flush();
    assert!(driver.settle().is_pending());
    let mut stop = Task::new(reporter.stop(SECOND));
    assert!(stop.settle().is_pending());
    assert!(driver.settle().is_pending());
    hand.advance(SECOND - Duration::from_micros(1));
    assert!(driver.settle().is_pending() && stop.settle().is_pending());
    hand.advance(Duration::from_micros(1));
    // Whoever comes first: the waiter settles the ledger without the driver.
    let Poll::Ready(drain) = stop.settle() else {
        panic!("the stop is over");
    };
    assert_eq!((drain.delivered, drain.dropped, drain.remaining), (0, 0, 2));
    assert_eq!(reporter.stats().dropped.shutdown, 2);
    assert!(driver.settle().is_ready());
    assert_eq!(hand.timers().alive, 0);
}

#[test]
fn threshold_flushes_leave_no_timer_behind() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::AcceptSlowly);
    let (reporter, driver) = session(&hand, wire.clone())
        .flush_threshold(10)
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    for _ in 0..1000 {
        log(&reporter, 10);
        assert!(driver.settle().is_pending());
    }
    assert_eq!(wire.sent().len(), 1000);
    let stats = reporter.stats();
    assert_eq!((stats.accepted, stats.queued), (10_001, 0));
    // One for what is queued, one for what is in flight; each made once for each reason to wait.
    let timers = hand.timers();
    assert!(timers.most <= 2, "{timers:?}");
    assert!(timers.made <= 3 * 1000, "{timers:?}");
    log(&reporter, 1);
    assert!(driver.settle().is_pending());
    assert_eq!(hand.timers().alive, 1, "the flush interval");
    hand.advance(10 * SECOND);
    assert!(driver.settle().is_pending());
    check_timers_of_an_idle_driver(&hand);
    // Nothing wakes it any more.
    let polls = driver.polls;
    hand.advance(DAY);
    assert!(driver.settle().is_pending());
    assert_eq!(driver.polls, polls);
}

/// An empty queue may still wait to give its memory back, or to tell something; then there is nothing to wait for.
fn check_timers_of_an_idle_driver(hand: &Hand) {
    assert!(hand.timers().alive <= 1, "{:?}", hand.timers());
}

#[test]
fn waits_that_are_dropped_leave_neither_timers_nor_wakers_behind() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&hand, wire).build().expect("it can work");
    let mut driver = Task::new(driver.run());
    for _ in 0..1000 {
        let mut wait = Task::new(reporter.wait_until_drained(DAY));
        assert!(wait.settle().is_pending());
    }
    assert!(hand.timers().alive == 0);
    assert!(driver.settle().is_pending());
    assert_eq!(reporter.stats().delivered, 1);
}

#[test]
fn many_waits_end_together() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::AcceptSlowly);
    let (reporter, driver) = session(&hand, wire).build().expect("it can work");
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
fn a_fatal_error_is_sent_though_nobody_polls_its_future() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&hand, wire.clone())
        .flush_interval(Duration::ZERO)
        .build()
        .expect("it can work");
    drop(reporter.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
    let mut driver = Task::new(driver.run());
    assert!(driver.settle().is_pending());
    assert_eq!(
        wire.received(),
        ["SESSION_START", "UNHANDLED_EXCEPTION", "SESSION_END"]
    );
    ask_to_stop(&reporter);
    assert!(driver.settle().is_ready());
    assert_eq!(wire.sent().len(), 1, "and the end is not sent again");
}

#[test]
fn an_exception_is_sent_at_once_with_all_that_came_before() {
    let hand = Hand::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&hand, wire.clone())
        .flush_interval(Duration::ZERO)
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    log(&reporter, 1);
    assert!(driver.settle().is_pending());
    assert!(wire.sent().is_empty());
    assert!(reporter.log_exception(&Failure("an error", None), Severity::Error));
    log(&reporter, 1);
    assert!(driver.settle().is_pending());
    // What came after it goes along, as it was there when the batch was put together.
    assert_eq!(
        wire.received(),
        ["SESSION_START", "x", "UNHANDLED_EXCEPTION", "x"]
    );
}

#[test]
fn the_ledger_balances_after_every_poll() {
    let hand = Hand::default();
    let replies = TROUBLE.into_iter().chain([Reply::Refuse, Reply::Fail]);
    let wire = Wire::new(replies.cycle().take(60), Reply::Accept);
    let (reporter, driver) = session(&hand, wire)
        .max_batch_size(3)
        .flush_threshold(3)
        .max_retries(2)
        .max_queue_size(20)
        .build()
        .expect("it can work");
    let mut driver = Task::new(driver.run());
    let mut before = Stats::default();
    let mut is_through = false;
    for round in 0..2000 {
        if round < 400 {
            reporter.log("x", ());
        } else if round == 400 {
            ask_to_stop(&reporter);
        }
        is_through = is_through || driver.run_for(&hand, 1).is_ready();
        let stats = reporter.stats();
        assert!(stats.is_balanced(), "{stats:?}");
        assert!(stats.accepted >= before.accepted && stats.settled() >= before.settled());
        before = stats;
    }
    assert!(is_through);
    assert_eq!(before.queued, 0);
    let ways = BTreeSet::from([
        before.delivered,
        before.dropped.total(),
        before.refused.queue_full,
    ]);
    assert!(!ways.contains(&0), "{before:?}");
}
