//! Property tests: random calls and random network behaviour, with the invariants checked after every step.

use super::testing::{Harness, Sent, retryable};
use super::{Attempt, Priority, SendOutcome, Step};
use crate::diagnostic::DiagnosticKind;
use crate::stats::Refusal;
use crate::text::Reason;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arbtest::arbitrary::{self, Unstructured};
use arbtest::arbtest;
use core::time::Duration;
use serde_json::Value;

const MAX_QUEUE: usize = 40;
const MAX_EVENT: usize = 512;
const MAX_QUEUE_BYTES: usize = 6_000;

#[derive(Clone, Debug)]
enum Op {
    Log(usize),
    LogError(usize),
    LogUrgent,
    LogFatal(usize),
    Unencodable,
    Flush,
    Stop(u64),
    Advance(u64),
    /// Polls. If there is an attempt, it ends like this, and its events are copied in pieces of this many bytes.
    Poll(End, usize),
    /// Settles an old attempt again.
    Stale(usize),
}

#[derive(Clone, Debug)]
enum End {
    Delivered,
    HandedOver,
    Failed,
    /// The server receives the events, but its response is lost.
    ResponseLost,
    RetryAfter(u64),
    Rejected,
    TooLarge,
    InvalidEvents,
    Broke,
    /// The driver is dropped and replaced.
    DriverDropped,
    /// The attempt hangs until a later poll finds that its deadline has passed.
    Hangs,
}

fn end(u: &mut Unstructured<'_>) -> arbitrary::Result<End> {
    Ok(match u.int_in_range(0..=21)? {
        0..=5 => End::Delivered,
        6 => End::HandedOver,
        7..=9 => End::Failed,
        10..=11 => End::ResponseLost,
        12 => End::RetryAfter(u.int_in_range(0..=119)?),
        13 => End::Rejected,
        14..=15 => End::TooLarge,
        16 => End::DriverDropped,
        17..=18 => End::InvalidEvents,
        19..=20 => End::Broke,
        _ => End::Hangs,
    })
}

fn op(u: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
    Ok(match u.int_in_range(0..=47)? {
        0..=19 => Op::Log(u.int_in_range(1..=499)?),
        20..=21 => Op::LogUrgent,
        22 => Op::LogFatal(u.int_in_range(1..=419)?),
        23 => Op::Unencodable,
        24..=26 => Op::Flush,
        27 => Op::Stop(u.int_in_range(0..=19_999)?),
        28..=31 => Op::Advance(u.int_in_range(0..=19_999)?),
        45..=47 => Op::LogError(u.int_in_range(1..=499)?),
        32..=43 => Op::Poll(end(u)?, u.int_in_range(1..=599)?),
        _ => Op::Stale(u.int_in_range(0..=8)?),
    })
}

/// A run: an engine, and what the server and the test know about it.
struct Run {
    harness: Harness,
    /// Every event that the server has received, by id.
    received: BTreeMap<String, Value>,
    /// The same events, in order of arrival.
    order: Vec<Value>,
    attempts: Vec<Sent>,
    hanging: Option<Sent>,
    /// A response or a driver was lost.
    is_ambiguous: bool,
    survived_fatal: bool,
    is_stopped: bool,
    logged: u64,
    refused: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            harness: Harness::new(|options| {
                options.max_queue_size = MAX_QUEUE;
                options.max_event_bytes = MAX_EVENT;
                options.max_queue_bytes = MAX_QUEUE_BYTES;
                options.max_batch_bytes = 2_000;
                options.max_batch_size = 7;
                options.flush_threshold = 5;
            }),
            received: BTreeMap::new(),
            order: Vec::new(),
            attempts: Vec::new(),
            hanging: None,
            is_ambiguous: false,
            survived_fatal: false,
            is_stopped: false,
            logged: 0,
            refused: 0,
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Log(size) => self.log(size, Priority::Ordinary),
            Op::LogError(size) => self.log(size, Priority::Important),
            Op::LogUrgent => self.log(10, Priority::Urgent { is_important: true }),
            Op::LogFatal(size) => {
                let was_ended = self.harness.engine.stats().session_ended;
                let tail = crate::event::encode::session_end(
                    crate::time::Timestamp::from_unix_micros(0),
                    Duration::from_secs(1),
                );
                self.log(size, Priority::Fatal(&tail));
                if !was_ended && !self.is_stopped {
                    self.logged += 1;
                    self.survived_fatal = true;
                }
            }
            Op::Unencodable => {
                let reason = Some(Reason::new("no"));
                let (result, _) = self
                    .harness
                    .engine
                    .refuse_with_reason(Refusal::Unencodable, reason);
                assert!(result.is_err());
                self.logged += 1;
                self.refused += 1;
            }
            Op::Flush => {
                self.harness.flush();
            }
            Op::Stop(millis) => {
                let was_ended = self.harness.engine.stats().session_ended;
                self.harness.stop(Duration::from_millis(millis));
                self.logged += u64::from(!was_ended);
                self.is_stopped = true;
            }
            Op::Advance(millis) => self.harness.advance(Duration::from_millis(millis)),
            Op::Poll(end, piece) => {
                if let Step::Send(attempt) = self.harness.poll() {
                    self.send(attempt, &end, piece);
                }
                self.time_out();
            }
            Op::Stale(which) => {
                if let Some(attempt) = self.attempts.get(which).cloned()
                    && self.hanging.is_none()
                {
                    let before = self.harness.engine.stats();
                    self.harness.settle(&attempt, SendOutcome::Delivered);
                    assert_eq!(self.harness.engine.stats(), before);
                }
            }
        }
    }

    fn log(&mut self, size: usize, priority: Priority<'_>) {
        self.logged += 1;
        let result = self.harness.push(&"x".repeat(size), priority);
        self.refused += u64::from(result.is_err());
        assert!(
            !self.is_stopped || result == Err(Refusal::SessionEnded),
            "{result:?}"
        );
    }

    fn send(&mut self, attempt: Attempt, end: &End, piece: usize) {
        let attempt = self.harness.read(attempt, piece);
        self.check_attempt(&attempt);
        self.attempts.push(attempt.clone());
        let reaches_server = matches!(
            end,
            End::Delivered | End::HandedOver | End::ResponseLost | End::DriverDropped
        );
        if reaches_server {
            self.receive(&attempt);
        }
        let outcome = match end {
            End::Delivered => SendOutcome::Delivered,
            End::HandedOver => SendOutcome::HandedOver,
            End::Failed => retryable(),
            End::ResponseLost => {
                self.is_ambiguous = true;
                retryable()
            }
            End::RetryAfter(seconds) => {
                SendOutcome::Retryable(Some(Duration::from_secs(*seconds)), Reason::default())
            }
            End::Rejected => SendOutcome::Rejected(Reason::new("HTTP status 400")),
            End::TooLarge => SendOutcome::TooLarge(Reason::new("HTTP status 413")),
            End::InvalidEvents => SendOutcome::InvalidEvents(Reason::new("HTTP status 422")),
            End::Broke => SendOutcome::Broke(Reason::new("connection reset")),
            End::DriverDropped => {
                self.is_ambiguous = true;
                let changed = self.harness.engine.detach();
                self.harness.wake(changed);
                assert_eq!(self.harness.engine.attach(), Ok(()));
                return;
            }
            End::Hangs => {
                self.hanging = Some(attempt);
                return;
            }
        };
        self.harness.settle(&attempt, outcome);
    }

    /// Ends a hanging attempt whose deadline has passed, as the driver would.
    fn time_out(&mut self) {
        match self.harness.engine.send_deadline() {
            Some(deadline) if deadline > self.harness.now => {}
            _ => {
                if let Some(attempt) = self.hanging.take() {
                    self.harness.settle(&attempt, retryable());
                }
            }
        }
    }

    fn check_attempt(&self, attempt: &Sent) {
        assert!(attempt.events.len() <= 7);
        let is_repeat = |other: &&Sent| other.attempt.key == attempt.attempt.key;
        match self.attempts.iter().rev().find(is_repeat) {
            Some(other) => {
                assert_eq!(
                    other.events, attempt.events,
                    "the same key with another body"
                );
                assert!(other.attempt.attempt < attempt.attempt.attempt);
            }
            None => assert_eq!(attempt.attempt.attempt, 0),
        }
        for pair in attempt.events.windows(2) {
            assert!(index(&pair[0]) < index(&pair[1]));
        }
    }

    fn receive(&mut self, attempt: &Sent) {
        for event in &attempt.events {
            let id = String::from(event["event_id"].as_str().unwrap());
            if let Some(earlier) = self.received.insert(id, event.clone()) {
                assert_eq!(&earlier, event);
                assert!(
                    self.is_ambiguous,
                    "a duplicate without an ambiguous outcome"
                );
            } else {
                let last = self.order.last();
                assert!(
                    last.is_none_or(|last| index(last) < index(event)),
                    "out of order"
                );
                self.order.push(event.clone());
            }
        }
    }

    fn check(&self) {
        let stats = self.harness.engine.stats();
        assert!(stats.is_balanced(), "{stats:?}");
        assert_eq!(
            stats.accepted + stats.refused.total(),
            self.logged,
            "{stats:?}"
        );
        assert_eq!(stats.refused.total(), self.refused);
        let ring = &self.harness.engine.ring;
        assert!(ring.records() <= MAX_QUEUE + MAX_QUEUE / 8 + 1);
        assert!(ring.used() <= MAX_QUEUE_BYTES + MAX_QUEUE_BYTES / 8 + MAX_EVENT + 12);
        let confirmed = stats.delivered + stats.handed_over;
        let received = self.received.len() as u64;
        assert!(received >= confirmed, "delivered, but never received");
        assert!(received == confirmed || self.is_ambiguous);
        let ends: Vec<usize> = (0..self.order.len())
            .filter(|at| self.order[*at]["event"] == "SESSION_END")
            .collect();
        assert!(ends.len() <= 1, "SESSION_END was sent {} times", ends.len());
        if let Some(end) = ends.first()
            && end + 1 < self.order.len()
        {
            assert!(self.survived_fatal, "an event follows SESSION_END");
        }
    }

    /// Once the network works again, everything must settle.
    fn finish(mut self) {
        self.hanging = None;
        let changed = self.harness.engine.detach();
        self.harness.wake(changed);
        assert_eq!(self.harness.engine.attach(), Ok(()));
        self.is_ambiguous = true;
        self.step(Op::Stop(3_600_000));
        for _ in 0..1_000 {
            match self.harness.poll() {
                Step::Send(attempt) => self.send(attempt, &End::Delivered, 64),
                Step::Wait(Some(until)) => self.harness.now = until.max(self.harness.now),
                Step::Done => break,
                other => panic!("{other:?}"),
            }
            self.check();
        }
        let stats = self.harness.engine.stats();
        assert_eq!(stats.queued, 0);
        assert_eq!(self.harness.poll(), Step::Done);
        self.harness.report(true);
        let refusals = [DiagnosticKind::QueueFull, DiagnosticKind::EventTooLarge];
        let reported: u64 = self
            .harness
            .reported
            .iter()
            .filter(|(kind, _)| refusals.contains(kind))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(
            reported,
            stats.refused.queue_full + stats.refused.event_too_large
        );
    }
}

fn index(event: &Value) -> u64 {
    event["event_session_index"]
        .as_u64()
        .unwrap_or_else(|| panic!("{}", format!("no index in {event}")))
}

/// 400 bytes make about 120 steps.
#[test]
fn the_ledger_the_order_and_the_bounds_hold_after_every_step() {
    arbtest(|u| {
        let mut run = Run::new();
        while !u.is_empty() {
            run.step(op(u)?);
            run.check();
        }
        run.finish();
        Ok(())
    })
    .size_max(400)
    .budget_ms(1_000);
}
