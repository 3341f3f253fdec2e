//! A test harness: an engine with manual time, whose attempts are parsed as the server would parse them.

use super::{Attempt, EndSlot, Engine, Priority, SendOutcome, Step, WithWakers};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::{Ring, Storage};
use crate::event::encode::session_end;
use crate::session::options::Options;
use crate::stats::Refusal;
use crate::sys::entropy::{Entropy, Random};
use crate::text::Reason;
use crate::time::{Instant, Timestamp};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use serde_json::Value;

/// The bytes of a request's body besides its events, in these tests.
pub(super) const OVERHEAD: usize = 100;

pub(super) struct Harness {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    /// The diagnostics reported so far.
    pub(super) reported: Vec<(DiagnosticKind, u64)>,
}

/// One attempt, as the server sees it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) attempt: Attempt,
    pub(super) events: Vec<Value>,
}

impl Sent {
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

pub(super) fn retryable() -> SendOutcome {
    SendOutcome::Retryable(None, Reason::new("HTTP status 503"))
}

impl Harness {
    pub(super) fn new(change: impl FnOnce(&mut Options)) -> Self {
        Self::with_memory(usize::MAX, change)
    }

    /// Where no more than `memory` bytes can be allocated for the queue.
    pub(super) fn with_memory(memory: usize, change: impl FnOnce(&mut Options)) -> Self {
        // Most tests are about other things, and expect no requests but their own.
        let mut options = Options {
            loss_report: false,
            ..Options::default()
        };
        change(&mut options);
        assert_eq!(options.check(OVERHEAD), Ok(()));
        let limit = options.max_queue_bytes + options.reserved_bytes();
        let ring = Ring::new(Storage::growing(limit.min(memory)));
        let random = Random::new(Entropy::new([7; 32]));
        let mut engine = Engine::new(options.for_engine(OVERHEAD), ring, EndSlot::new(), random);
        assert_eq!(engine.attach(), Ok(()));
        Self {
            engine,
            now: Instant::from_micros(1_000_000_000),
            reported: Vec::new(),
        }
    }

    pub(super) fn after(&self, delay: Duration) -> Instant {
        self.now.checked_add(delay).unwrap()
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.after(by);
    }

    pub(super) fn log(&mut self, name: &str) -> bool {
        self.push(name, Priority::Ordinary).is_ok()
    }

    pub(super) fn log_many(&mut self, count: usize) {
        for n in 0..count {
            assert!(self.log(&alloc::format!("e{n}")));
        }
    }

    pub(super) fn push(&mut self, name: &str, priority: Priority<'_>) -> Result<(), Refusal> {
        let body =
            alloc::format!(r#","event":"GENERIC_EVENT","event_name":"{name}","event_data":{{}}}}"#);
        self.engine.push(body.as_bytes(), priority).0
    }

    pub(super) fn fatal(&mut self, name: &str) -> Result<(), Refusal> {
        let tail = session_end(Timestamp::from_unix_micros(0), Duration::from_secs(1));
        self.push(name, Priority::Fatal(&tail))
    }

    /// Wakes, as a session does outside its lock.
    pub(super) fn wake<W: WithWakers>(&mut self, changed: W) -> W::Value {
        let (value, wakers) = changed.split();
        wakers.wake(|| self.engine.take_waiting());
        value
    }

    pub(super) fn flush(&mut self) {
        let requested = self.engine.request_flush();
        self.wake(requested);
    }

    pub(super) fn stop(&mut self, timeout: Duration) {
        let tail = session_end(Timestamp::from_unix_micros(0), Duration::from_secs(1));
        let deadline = self.now.checked_add(timeout);
        let begun = self.engine.begin_stop(deadline, &tail);
        self.wake(begun);
    }

    pub(super) fn poll(&mut self) -> Step {
        self.report(false);
        loop {
            let expired = self.engine.expire(self.now);
            self.wake(expired);
            self.engine.check();
            match self.engine.poll(self.now) {
                Step::Again => {}
                Step::Report => self.engine.make_report(Timestamp::from_unix_micros(0)),
                step => return step,
            }
        }
    }

    pub(super) fn report(&mut self, all: bool) {
        while let Some(notice) = self.engine.next_notice(self.now, all) {
            self.reported.push((notice.kind, notice.count));
        }
    }

    /// Polls, and reads the attempt that is due now.
    pub(super) fn attempt(&mut self) -> Sent {
        match self.poll() {
            Step::Send(attempt) => self.read(attempt, 4096),
            other => panic!("nothing to send: {other:?}"),
        }
    }

    /// Copies an attempt's events out in pieces and parses them.
    pub(super) fn read(&self, attempt: Attempt, piece: usize) -> Sent {
        let (mut cursor, mut json) = (attempt.cursor(), vec![b'[']);
        loop {
            let mut out = vec![0; piece];
            let copied = self.engine.copy(&mut cursor, &mut out);
            json.extend_from_slice(&out[..copied]);
            if copied < piece {
                break;
            }
        }
        assert_eq!(json.len() - 1, attempt.json_bytes);
        assert!(json.len() - 1 <= self.engine.options.batch_budget);
        json.push(b']');
        let events: Vec<Value> = serde_json::from_slice(&json)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
        assert_eq!(events.len(), attempt.events);
        assert_eq!(events[0]["event_session_index"], attempt.first_index);
        Sent { attempt, events }
    }

    pub(super) fn settle(&mut self, attempt: &Sent, outcome: SendOutcome) {
        let settled = self.engine.settle(attempt.attempt.id, outcome, self.now);
        self.wake(settled);
        self.engine.check();
    }

    pub(super) fn deliver(&mut self) -> Sent {
        let attempt = self.attempt();
        self.settle(&attempt, SendOutcome::Delivered);
        attempt
    }
}
