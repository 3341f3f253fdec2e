//! Whatever is done to an engine, and whatever the network does: what must hold after every step.

use super::testing::{Attempt, World, retryable};
use super::{Kind, Outcome, Step, Ticket};
use crate::diagnostic::DiagnosticKind;
use crate::stats::Refusal;
use crate::text::Why;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use proptest::prelude::*;
use serde_json::Value;

const MAX_QUEUE: usize = 40;
const MAX_EVENT: usize = 512;
const MAX_QUEUE_BYTES: usize = 6_000;

#[derive(Clone, Debug)]
enum Op {
    Log(usize),
    LogUrgent,
    LogFatal(usize),
    Unencodable,
    Flush,
    Stop(u64),
    Advance(u64),
    /// Polls; when there is something to send, the attempt ends like this. Copied in pieces of so many bytes.
    Poll(End, usize),
    /// Settles an attempt of the past once more.
    Stale(usize),
}

#[derive(Clone, Debug)]
enum End {
    Delivered,
    HandedOver,
    Failed,
    /// The server has the events, the answer is lost.
    AnswerLost,
    RetryAfter(u64),
    Rejected,
    TooLarge,
    /// The driver is dropped, and replaced.
    DriverDropped,
    /// Nothing yet: the attempt hangs until another poll finds its deadline passed.
    Hangs,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        6 => Just(End::Delivered),
        1 => Just(End::HandedOver),
        3 => Just(End::Failed),
        2 => Just(End::AnswerLost),
        1 => (0..120u64).prop_map(End::RetryAfter),
        1 => Just(End::Rejected),
        2 => Just(End::TooLarge),
        1 => Just(End::DriverDropped),
        1 => Just(End::Hangs),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (1..500usize).prop_map(Op::Log),
        2 => Just(Op::LogUrgent),
        1 => (1..420usize).prop_map(Op::LogFatal),
        1 => Just(Op::Unencodable),
        3 => Just(Op::Flush),
        1 => (0..20_000u64).prop_map(Op::Stop),
        4 => (0..20_000u64).prop_map(Op::Advance),
        12 => (end(), 1..600usize).prop_map(|(end, piece)| Op::Poll(end, piece)),
        1 => (0..9usize).prop_map(Op::Stale),
    ]
}

/// A world, and what is known about it from outside.
struct Run {
    world: World,
    /// Every event the server has seen, by id, and in order.
    seen: BTreeMap<String, Value>,
    order: Vec<Value>,
    attempts: Vec<Attempt>,
    hanging: Option<Attempt>,
    /// Some answer was lost, or a driver was.
    is_ambiguous: bool,
    survived_fatal: bool,
    is_stopped: bool,
    logged: u64,
    refused: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::new(|options| {
                options.max_queue_size = MAX_QUEUE;
                options.max_event_bytes = MAX_EVENT;
                options.max_queue_bytes = MAX_QUEUE_BYTES;
                options.max_batch_bytes = 2_000;
                options.max_batch_size = 7;
                options.flush_threshold = 5;
            }),
            seen: BTreeMap::new(),
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
            Op::Log(size) => self.log(size, Kind::Ordinary),
            Op::LogUrgent => self.log(10, Kind::Urgent),
            Op::LogFatal(size) => {
                let was_ended = self.world.engine.stats().session_ended;
                let tail = crate::event::encode::session_end(
                    crate::time::Timestamp::from_unix_micros(0),
                    Duration::from_secs(1),
                );
                self.log(size, Kind::Fatal(&tail));
                if !was_ended && !self.is_stopped {
                    self.logged += 1;
                    self.survived_fatal = true;
                }
            }
            Op::Unencodable => {
                let why = Some(Why::new("no"));
                let (result, _) = self.world.engine.refuse_because(Refusal::Unencodable, why);
                assert!(result.is_err());
                self.logged += 1;
                self.refused += 1;
            }
            Op::Flush => {
                self.world.engine.request_flush();
            }
            Op::Stop(millis) => {
                let was_ended = self.world.engine.stats().session_ended;
                self.world.stop(Duration::from_millis(millis));
                self.logged += u64::from(!was_ended);
                self.is_stopped = true;
            }
            Op::Advance(millis) => self.world.advance(Duration::from_millis(millis)),
            Op::Poll(end, piece) => {
                if let Step::Send(ticket) = self.world.poll() {
                    self.send(ticket, &end, piece);
                }
                self.time_out();
            }
            Op::Stale(which) => {
                if let Some(attempt) = self.attempts.get(which).cloned()
                    && self.hanging.is_none()
                {
                    let before = self.world.engine.stats();
                    self.world.settle(&attempt, Outcome::Delivered);
                    assert_eq!(self.world.engine.stats(), before);
                }
            }
        }
    }

    fn log(&mut self, size: usize, kind: Kind<'_>) {
        self.logged += 1;
        let result = self.world.push(&"x".repeat(size), kind);
        self.refused += u64::from(result.is_err());
        assert!(
            !self.is_stopped || result == Err(Refusal::SessionEnded),
            "{result:?}"
        );
    }

    fn send(&mut self, ticket: Ticket, end: &End, piece: usize) {
        let attempt = self.world.read(ticket, piece);
        self.check_attempt(&attempt);
        self.attempts.push(attempt.clone());
        let reaches_server = matches!(
            end,
            End::Delivered | End::HandedOver | End::AnswerLost | End::DriverDropped
        );
        if reaches_server {
            self.receive(&attempt);
        }
        let outcome = match end {
            End::Delivered => Outcome::Delivered,
            End::HandedOver => Outcome::HandedOver,
            End::Failed => retryable(),
            End::AnswerLost => {
                self.is_ambiguous = true;
                retryable()
            }
            End::RetryAfter(seconds) => {
                Outcome::Retryable(Some(Duration::from_secs(*seconds)), Why::default())
            }
            End::Rejected => Outcome::Rejected(Why::new("HTTP status 400")),
            End::TooLarge => Outcome::TooLarge(Why::new("HTTP status 413")),
            End::DriverDropped => {
                self.is_ambiguous = true;
                self.world.engine.detach().wake();
                assert_eq!(self.world.engine.attach(), Ok(()));
                return;
            }
            End::Hangs => {
                self.hanging = Some(attempt);
                return;
            }
        };
        self.world.settle(&attempt, outcome);
    }

    /// What the driver does when an attempt's deadline has passed.
    fn time_out(&mut self) {
        match self.world.engine.send_deadline() {
            Some(deadline) if deadline > self.world.now => {}
            _ => {
                if let Some(attempt) = self.hanging.take() {
                    self.world.settle(&attempt, retryable());
                }
            }
        }
    }

    fn check_attempt(&self, attempt: &Attempt) {
        assert!(attempt.events.len() <= 7);
        let is_repeat = |other: &&Attempt| other.ticket.key == attempt.ticket.key;
        match self.attempts.iter().rev().find(is_repeat) {
            Some(other) => {
                assert_eq!(
                    other.events, attempt.events,
                    "another body for the same key"
                );
                assert!(other.ticket.attempt < attempt.ticket.attempt);
            }
            None => assert_eq!(attempt.ticket.attempt, 0),
        }
        for pair in attempt.events.windows(2) {
            assert!(index(&pair[0]) < index(&pair[1]));
        }
    }

    fn receive(&mut self, attempt: &Attempt) {
        for event in &attempt.events {
            let id = String::from(event["event_id"].as_str().unwrap());
            if let Some(known) = self.seen.insert(id, event.clone()) {
                assert_eq!(&known, event);
                assert!(
                    self.is_ambiguous,
                    "a duplicate without an ambiguous outcome"
                );
            } else {
                let last = self.order.last();
                assert!(
                    last.is_none_or(|last| index(last) < index(event)),
                    "inversion"
                );
                self.order.push(event.clone());
            }
        }
    }

    fn check(&self) {
        let stats = self.world.engine.stats();
        assert!(stats.is_balanced(), "{stats:?}");
        assert_eq!(
            stats.accepted + stats.refused.total(),
            self.logged,
            "{stats:?}"
        );
        assert_eq!(stats.refused.total(), self.refused);
        let ring = &self.world.engine.ring;
        assert!(ring.records() <= MAX_QUEUE + 1);
        assert!(ring.used() <= MAX_QUEUE_BYTES + MAX_EVENT + 12);
        let confirmed = stats.delivered + stats.handed_over;
        let seen = self.seen.len() as u64;
        assert!(seen >= confirmed, "counted as delivered, but never seen");
        assert!(seen == confirmed || self.is_ambiguous);
        let ends: Vec<usize> = (0..self.order.len())
            .filter(|at| self.order[*at]["event"] == "SESSION_END")
            .collect();
        assert!(ends.len() <= 1, "{} ends", ends.len());
        if let Some(end) = ends.first()
            && end + 1 < self.order.len()
        {
            assert!(self.survived_fatal, "something behind SESSION_END");
        }
    }

    /// The network is well again: everything must settle.
    fn finish(mut self) {
        self.hanging = None;
        self.world.engine.detach().wake();
        assert_eq!(self.world.engine.attach(), Ok(()));
        self.is_ambiguous = true;
        self.step(Op::Stop(3_600_000));
        for _ in 0..1_000 {
            match self.world.poll() {
                Step::Send(ticket) => self.send(ticket, &End::Delivered, 64),
                Step::Wait(Some(until)) => self.world.now = until.max(self.world.now),
                Step::Done => break,
                other => panic!("{other:?}"),
            }
            self.check();
        }
        let stats = self.world.engine.stats();
        assert_eq!(stats.queued, 0);
        assert_eq!(self.world.poll(), Step::Done);
        self.world.tell(true);
        let refusals = [DiagnosticKind::QueueFull, DiagnosticKind::EventTooLarge];
        let told: u64 = self
            .world
            .told
            .iter()
            .filter(|(kind, _)| refusals.contains(kind))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(
            told,
            stats.refused.queue_full + stats.refused.event_too_large
        );
    }
}

fn index(event: &Value) -> u64 {
    event["event_session_index"]
        .as_u64()
        .unwrap_or_else(|| panic!("{}", format!("no index in {event}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_the_order_and_the_bounds_hold_after_every_step(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut run = Run::new();
        for op in ops {
            run.step(op);
            run.check();
        }
        run.finish();
    }
}
