//! What halving promises: every innocent event is delivered, with few requests.

use super::SendOutcome;
use super::testing::{Harness, Sent, retryable};
use crate::diagnostic::DiagnosticKind;
use crate::stats::DropReason;
use crate::text::Reason;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

/// The requests that an allowance of a batch of 100 events allows.
const ALLOWANCE: usize = 22;

fn invalid() -> SendOutcome {
    SendOutcome::InvalidEvents(Reason::new("HTTP status 422"))
}

fn too_large() -> SendOutcome {
    SendOutcome::TooLarge(Reason::new("HTTP status 413"))
}

fn broke() -> SendOutcome {
    SendOutcome::Broke(Reason::new("connection reset"))
}

/// A server that refuses every request which holds a culprit, and what it has received.
struct Server {
    harness: Harness,
    refusal: fn() -> SendOutcome,
    culprits: BTreeSet<u64>,
    received: Vec<u64>,
    requests: usize,
    keys: BTreeSet<uuid::Uuid>,
}

fn indices(attempt: &Sent) -> impl Iterator<Item = u64> {
    let index = |event: &serde_json::Value| event["event_session_index"].as_u64().unwrap();
    attempt.events.iter().map(index)
}

impl Server {
    fn new(events: usize, culprits: impl IntoIterator<Item = u64>) -> Self {
        let mut harness = Harness::new(|options| {
            options.max_batch_size = events;
            options.flush_threshold = events;
        });
        harness.log_many(events);
        Self {
            harness,
            refusal: invalid,
            culprits: culprits.into_iter().collect(),
            received: Vec::new(),
            requests: 0,
            keys: BTreeSet::new(),
        }
    }

    /// Answers requests until the queue is empty.
    fn run(&mut self) {
        while let super::Step::Send(attempt) = self.harness.poll() {
            let attempt = self.harness.read(attempt, 4096);
            self.requests += 1;
            assert!(self.keys.insert(attempt.attempt.key), "a key is used twice");
            let is_refused = indices(&attempt).any(|index| self.culprits.contains(&index));
            if is_refused {
                self.harness.settle(&attempt, (self.refusal)());
            } else {
                self.received.extend(indices(&attempt));
                self.harness.settle(&attempt, SendOutcome::Delivered);
            }
            self.harness.engine.check();
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let dropped = self.harness.engine.stats().dropped;
        match reason {
            DropReason::Rejected => dropped.rejected,
            DropReason::TooLarge => dropped.too_large,
            DropReason::RetriesExhausted => dropped.retries_exhausted,
            DropReason::Shutdown => dropped.shutdown,
            DropReason::Discarded => dropped.discarded,
        }
    }

    /// Runs, and checks that exactly the culprits are lost.
    fn delivers_the_innocent(mut self, reason: DropReason) -> usize {
        let events = self.harness.engine.stats().accepted;
        self.run();
        let innocent: Vec<_> = (0..events)
            .filter(|index| !self.culprits.contains(index))
            .collect();
        assert_eq!(self.received, innocent, "culprits: {:?}", self.culprits);
        assert_eq!(self.dropped(reason), self.culprits.len() as u64);
        self.requests
    }
}

#[test]
fn one_invalid_event_of_a_hundred_costs_at_most_its_allowance_of_requests_wherever_it_is() {
    for culprit in 0..100 {
        let requests = Server::new(100, [culprit]).delivers_the_innocent(DropReason::Rejected);
        assert!(requests <= ALLOWANCE + 2, "{culprit}: {requests}");
    }
}

#[test]
fn every_innocent_event_is_delivered_whichever_others_are_invalid() {
    for count in [2_u64, 5, 10] {
        Server::new(100, 0..count).delivers_the_innocent(DropReason::Rejected);
        Server::new(100, 100 - count..100).delivers_the_innocent(DropReason::Rejected);
    }
    for step in [2, 3, 7, 20, 50] {
        let scattered = (0..100).step_by(step);
        Server::new(100, scattered.clone()).delivers_the_innocent(DropReason::Rejected);
        let shifted = scattered.map(|index| (index + 1) % 100);
        let requests = Server::new(100, shifted).delivers_the_innocent(DropReason::Rejected);
        assert!(requests <= 200, "{step}: {requests}");
    }
    // After a first delivery the request itself is above suspicion, so that even half of a batch may be at fault.
    for culprits in [1..51, 50..100, 25..75] {
        let requests = Server::new(100, culprits).delivers_the_innocent(DropReason::Rejected);
        assert!(requests <= 200, "{requests}");
    }
}

#[test]
fn a_size_limit_and_a_connection_that_breaks_while_sending_are_halved_too() {
    let mut server = Server::new(100, [0, 13, 99]);
    server.refusal = too_large;
    server.delivers_the_innocent(DropReason::TooLarge);

    let mut server = Server::new(100, [0, 13, 99]);
    server.refusal = broke;
    server.harness.engine.options.max_retries = 0;
    server.delivers_the_innocent(DropReason::RetriesExhausted);
}

#[test]
fn halving_takes_at_most_two_requests_per_event() {
    for events in 2..=10_u64 {
        for pattern in 0..1_u32 << events {
            let is_culprit = |index: &u64| pattern >> index & 1 == 1;
            let mut server = Server::new(events as usize, (0..events).filter(is_culprit));
            server.run();
            assert!(
                server.requests as u64 <= 2 * events,
                "{events} events, pattern {pattern:b}: {} requests",
                server.requests
            );
        }
    }
}

#[test]
fn a_backend_that_refuses_everything_costs_one_allowance_and_then_one_request_per_batch() {
    let mut server = Server::new(100, 0..1_000);
    server.run();
    assert_eq!(server.requests, ALLOWANCE);
    assert_eq!(server.dropped(DropReason::Rejected), 100);
    server.harness.report(true);
    let reports = server.harness.reported.iter();
    let rejected = reports.filter(|(kind, _)| *kind == DiagnosticKind::Rejected);
    assert!(rejected.clone().count() <= 2, "not one report per event");
    assert_eq!(rejected.map(|(_, count)| count).sum::<u64>(), 100);

    // The fault is taken to be the request's, until one is delivered.
    for round in 1..=3 {
        server.harness.log_many(100);
        server.run();
        assert_eq!(server.requests, ALLOWANCE + round);
    }
    server.culprits = BTreeSet::from([550]);
    server.harness.log_many(100);
    server.run();
    assert_eq!(server.received.len(), 100);
    server.harness.log_many(100);
    server.run();
    assert_eq!(server.received.len(), 199, "halved again");
}

#[test]
fn the_whole_of_a_hopeless_batch_is_dropped_without_another_request_and_ends_its_waits() {
    let mut server = Server::new(100, 0..100);
    let (watermark, _) = server.harness.engine.request_flush();
    for _ in 0..ALLOWANCE {
        let attempt = server.harness.attempt();
        server.harness.settle(&attempt, invalid());
    }
    assert!(!server.harness.engine.is_reached(watermark));
    assert!(matches!(server.harness.poll(), super::Step::Wait(_)));
    assert!(server.harness.engine.is_reached(watermark));
    assert!(server.harness.engine.stats().is_balanced());
}

#[test]
fn the_end_of_a_session_is_halved_like_any_other_event() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(3);
    harness.stop(Duration::from_secs(60));
    let mut delivered = 0;
    while harness.engine.stats().queued > 0 {
        let attempt = harness.attempt();
        if attempt.names().contains(&"e2") {
            harness.settle(&attempt, invalid());
        } else {
            delivered += attempt.events.len();
            harness.settle(&attempt, SendOutcome::Delivered);
        }
    }
    assert_eq!(delivered, 3);
    assert_eq!(harness.poll(), super::Step::Done);
}

#[test]
fn a_batch_is_halved_only_after_all_its_attempts_broke_and_its_pieces_have_one_attempt() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(8);
    harness.flush();
    for attempt in 0..4 {
        let sent = harness.attempt();
        assert_eq!((sent.events.len(), sent.attempt.attempt), (8, attempt));
        assert_eq!(sent.attempt.broke_while_sending, attempt > 0);
        harness.settle(&sent, broke());
        harness.advance(Duration::from_secs(60));
    }
    for size in [4, 2, 1] {
        let sent = harness.attempt();
        assert_eq!((sent.events.len(), sent.attempt.attempt), (size, 0));
        assert!(sent.attempt.broke_while_sending);
        harness.settle(&sent, broke());
    }
    assert_eq!(harness.engine.stats().dropped.retries_exhausted, 1);
    // Any other failure of a piece is retried as ever.
    let sent = harness.attempt();
    harness.settle(&sent, retryable());
    harness.advance(Duration::from_secs(60));
    let again = harness.attempt();
    assert_eq!(again.attempt.key, sent.attempt.key);
    harness.settle(&again, SendOutcome::Delivered);
    while harness.engine.stats().queued > 0 {
        harness.deliver();
    }
    assert_eq!(harness.engine.stats().delivered, 7);
}

#[test]
fn a_batch_that_broke_once_and_failed_otherwise_is_dropped_whole() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(8);
    harness.flush();
    for attempt in 0..4 {
        let sent = harness.attempt();
        let outcome = if attempt == 1 { broke() } else { retryable() };
        harness.settle(&sent, outcome);
        harness.advance(Duration::from_secs(60));
    }
    let stats = harness.engine.stats();
    assert_eq!((stats.dropped.retries_exhausted, stats.queued), (8, 0));
}

#[test]
fn pieces_of_a_batch_that_broke_still_have_one_attempt_after_one_was_too_large() {
    let mut harness = Harness::new(|options| options.max_retries = 0);
    harness.log_many(8);
    harness.flush();
    for (size, outcome) in [(8, broke()), (4, too_large()), (2, SendOutcome::Delivered)] {
        let sent = harness.attempt();
        assert_eq!(sent.events.len(), size);
        harness.settle(&sent, outcome);
    }
    harness.engine.options.max_retries = 3;
    let sent = harness.attempt();
    assert!(sent.attempt.broke_while_sending);
    harness.settle(&sent, broke());
    assert_eq!(harness.attempt().events.len(), sent.events.len() / 2);
}

#[test]
fn an_event_alone_has_all_attempts_once_the_server_takes_other_pieces() {
    let mut harness = Harness::new(|options| options.max_retries = 0);
    harness.log_many(3);
    harness.flush();
    for (size, outcome) in [(3, broke()), (2, broke()), (1, SendOutcome::Delivered)] {
        let sent = harness.attempt();
        assert_eq!(sent.events.len(), size);
        harness.settle(&sent, outcome);
    }
    harness.engine.options.max_retries = 3;
    // Of several events, the first break halves them.
    let sent = harness.attempt();
    assert_eq!(sent.events.len(), 2);
    harness.settle(&sent, broke());
    // Such as a request on a kept connection that the server closes at that moment.
    let sent = harness.attempt();
    assert_eq!(sent.events.len(), 1);
    harness.settle(&sent, broke());
    harness.advance(Duration::from_secs(60));
    let again = harness.attempt();
    assert_eq!(again.attempt.key, sent.attempt.key);
    harness.settle(&again, SendOutcome::Delivered);
    // An event that is at fault is dropped after all its attempts.
    for attempt in 0..4 {
        let sent = harness.attempt();
        assert_eq!((sent.events.len(), sent.attempt.attempt), (1, attempt));
        harness.settle(&sent, broke());
        harness.advance(Duration::from_secs(60));
    }
    let stats = harness.engine.stats();
    assert_eq!((stats.delivered, stats.dropped.retries_exhausted), (2, 1));
}

#[test]
fn a_stop_whose_deadline_passes_during_halving_drops_the_rest() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(8);
    harness.stop(Duration::from_secs(1));
    let sent = harness.attempt();
    harness.settle(&sent, invalid());
    harness.advance(Duration::from_secs(1));
    assert_eq!(harness.poll(), super::Step::Done);
    assert_eq!(harness.engine.stats().dropped.shutdown, 9);
}

#[test]
fn a_permanent_rejection_during_halving_ends_it() {
    let mut harness = Harness::new(|_| {});
    harness.log_many(100);
    let sent = harness.attempt();
    harness.settle(&sent, invalid());
    let sent = harness.attempt();
    harness.settle(&sent, SendOutcome::Rejected(Reason::new("HTTP status 401")));
    assert_eq!(harness.attempt().events.len(), 50);
}
