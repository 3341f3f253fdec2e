//! An engine with hand-moved time and a server that remembers what it saw, for the tests beside it.

use super::{EndSlot, Engine, Kind, Outcome, Step, Ticket, Wakers};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::{Ring, Storage};
use crate::event::encode::session_end;
use crate::session::options::Options;
use crate::stats::Refusal;
use crate::sys::entropy::{Entropy, Random};
use crate::text::Why;
use crate::time::{Instant, Timestamp};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use serde_json::Value;

/// What a request's body spends beside its events, in these tests.
pub(super) const OVERHEAD: usize = 100;

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    /// What the observer was told.
    pub(super) told: Vec<(DiagnosticKind, u64)>,
}

/// One attempt, as the network saw it.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) ticket: Ticket,
    pub(super) events: Vec<Value>,
}

impl Attempt {
    pub(super) fn names(&self) -> Vec<&str> {
        let name = |event: &'_ Value| match event["event_name"].as_str() {
            Some(_) => "event_name",
            None => "event",
        };
        self.events
            .iter()
            .map(|event| event[name(event)].as_str().unwrap())
            .collect()
    }
}

pub(super) fn retryable() -> Outcome {
    Outcome::Retryable(None, Why::new("HTTP status 503"))
}

impl World {
    pub(super) fn new(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        assert_eq!(options.check(OVERHEAD), Ok(()));
        let limit = options.max_queue_bytes;
        let reserve = options.max_event_bytes + crate::engine::ring::HEADER;
        let ring = Ring::new(Storage::growing(limit).with_reserve(reserve));
        let random = Random::new(Entropy::new([7; 32]));
        let mut engine = Engine::new(options.for_engine(OVERHEAD), ring, EndSlot::new(), random);
        assert_eq!(engine.attach(), Ok(()));
        Self {
            engine,
            now: Instant::from_micros(1_000_000_000),
            told: Vec::new(),
        }
    }

    pub(super) fn after(&self, delay: Duration) -> Instant {
        self.now.checked_add(delay).unwrap()
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.after(by);
    }

    pub(super) fn log(&mut self, name: &str) -> bool {
        self.push(name, Kind::Ordinary).is_ok()
    }

    pub(super) fn log_many(&mut self, count: usize) {
        for n in 0..count {
            assert!(self.log(&alloc::format!("e{n}")));
        }
    }

    pub(super) fn push(&mut self, name: &str, kind: Kind<'_>) -> Result<(), Refusal> {
        let body =
            alloc::format!(r#","event":"GENERIC_EVENT","event_name":"{name}","event_data":{{}}}}"#);
        self.engine.push(body.as_bytes(), kind).0
    }

    pub(super) fn fatal(&mut self, name: &str) -> Result<(), Refusal> {
        let tail = session_end(Timestamp::from_unix_micros(0), Duration::from_secs(1));
        self.push(name, Kind::Fatal(&tail))
    }

    pub(super) fn stop(&mut self, timeout: Duration) {
        let tail = session_end(Timestamp::from_unix_micros(0), Duration::from_secs(1));
        let deadline = self.now.checked_add(timeout);
        self.engine.begin_stop(deadline, &tail).1.wake();
    }

    pub(super) fn poll(&mut self) -> Step {
        let wakers = self.engine.expire(self.now);
        wakers.into_iter().for_each(Wakers::wake);
        self.tell(false);
        loop {
            match self.engine.poll(self.now) {
                Step::Again => {}
                step => return step,
            }
        }
    }

    pub(super) fn tell(&mut self, all: bool) {
        while let Some((notice, _)) = self.engine.next_notice(self.now, all) {
            self.told.push((notice.kind, notice.count));
        }
    }

    /// The attempt that the engine wants made now.
    pub(super) fn attempt(&mut self) -> Attempt {
        match self.poll() {
            Step::Send(ticket) => self.read(ticket, 4096),
            other => panic!("nothing to send: {other:?}"),
        }
    }

    /// Copies an attempt's events out in pieces and parses them.
    pub(super) fn read(&self, ticket: Ticket, piece: usize) -> Attempt {
        let (mut cursor, mut json) = (ticket.cursor(), vec![b'[']);
        loop {
            let mut out = vec![0; piece];
            let copied = self.engine.copy(&mut cursor, &mut out);
            json.extend_from_slice(&out[..copied]);
            if copied < piece {
                break;
            }
        }
        assert_eq!(json.len() - 1, ticket.json_bytes);
        assert!(json.len() - 1 <= self.engine.options.batch_budget);
        json.push(b']');
        let events: Vec<Value> = serde_json::from_slice(&json)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
        assert_eq!(events.len(), ticket.events);
        assert_eq!(events[0]["event_session_index"], ticket.first_index);
        Attempt { ticket, events }
    }

    pub(super) fn settle(&mut self, attempt: &Attempt, outcome: Outcome) {
        self.engine
            .settle(attempt.ticket.id, outcome, self.now)
            .wake();
    }

    pub(super) fn deliver(&mut self) -> Attempt {
        let attempt = self.attempt();
        self.settle(&attempt, Outcome::Delivered);
        attempt
    }
}
