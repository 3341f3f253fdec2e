//! The simulated server: what it stores, and what is wrong with the requests that it receives.

use super::hash::{hash, mix};
use super::kept::Kept;
use super::losses::LossLog;
use super::reply::Reply;
use super::scan::{ScannedEvent, check_strictly, scan, session_id};
use crate::engine::END_BYTES;
use crate::time::Instant;
use crate::wire::calls::{CallEvent, Calls};
use crate::wire::losses::Losses;
use crate::wire::{self, Mode};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

/// An event that the server has.
#[derive(Clone, Copy, Debug)]
struct StoredEvent {
    id: u64,
    is_failure: bool,
    /// It is a loss report.
    is_report: bool,
    /// The client has received a 2xx for it.
    is_confirmed: bool,
}

/// What the server has of a session.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By index.
    events: Vec<Option<StoredEvent>>,
    pub(super) distinct: u64,
    /// Its events come through a spool.
    pub(super) is_spooled: bool,
    /// Events for which the client has received a 2xx.
    pub(super) confirmed: u64,
    pub(super) duplicates: u64,
    pub(super) requests: u64,
    ended_at: Option<u64>,
    /// `SESSION_END` follows something other than a failure, so nothing may follow it.
    is_over: bool,
    /// The last request's first index and the hash of its key; `None` after a refusal that asks for pieces.
    last: Option<(u64, u64)>,
    /// How often the client has received a 5xx other than 503 for that request.
    failures: u32,
    /// The last index of a batch for which it has received so many that it sends pieces.
    failed_to: Option<u64>,
    /// The last index of a batch that the client knows to be rejected permanently.
    rejected_to: Option<u64>,
    /// The session has discarded its events with lower indices.
    pub(super) withdrawn_below: u64,
    /// The hash of the key of the last request that was answered with a `Retry-After`, and the end of that pause.
    pause: Option<(u64, Instant)>,
    /// The hash of each unconfirmed body, by idempotency key.
    unconfirmed: BTreeMap<String, u64>,
    /// The HTTP calls of the application.
    calls: Calls,
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) sessions: BTreeMap<String, Record>,
    /// The responses to the next requests.
    pub(super) script: VecDeque<Reply>,
    /// The response to requests when the script is empty.
    pub(super) always: Option<Reply>,
    /// What was wrong with requests.
    pub(super) violations: Vec<String>,
    /// A process or a disk has failed: what comes through a spool may come again, or late.
    pub(super) may_repeat: bool,
    /// Nothing takes time but what a reply's own delay asks for.
    pub(super) is_instant: bool,
    /// The stored bodies, concatenated, while a check collects them.
    pub(super) bodies: Option<Vec<u8>>,
    /// The events, where a test has asked for them.
    pub(super) kept: Option<Kept>,
    large_requests: u64,
    /// `retry_max_delay` of each session.
    pub(super) retry_caps: BTreeMap<String, Duration>,
    /// What is known of each session's losses.
    pub(super) losses: BTreeMap<String, LossLog>,
    /// Events that the scenario has declared invalid, by session and index.
    pub(super) invalid: BTreeSet<(String, u64)>,
}

/// A request that the server has inspected.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) session: String,
    events: Vec<ScannedEvent>,
    pub(super) hash: u64,
}

/// Part of the name of each event that this crate makes by itself, and that is read.
const MARK: &[u8] = b"\"tinkex.";

/// Smaller bodies are all checked strictly.
const SMALL_BODY_BYTES: usize = 2_048;

/// Of the larger bodies, one in this many is checked strictly.
const SAMPLE_INTERVAL: u64 = 256;

impl Server {
    /// Inspects a request that arrives at `now`, without storing its events. Notes what is wrong with it.
    pub(super) fn inspect(&mut self, now: Instant, key: &str, body: &[u8]) -> Option<Inspected> {
        let events = scan(body);
        let is_small = body.len() < SMALL_BODY_BYTES;
        let is_sample = is_small || self.large_requests.is_multiple_of(SAMPLE_INTERVAL);
        self.large_requests += u64::from(!is_small);
        if is_sample && let Err(violation) = check_strictly(body, &events) {
            self.violations.push(violation);
            return None;
        }
        let session = session_id(body)?.to_string();
        let (first, last) = (events.first()?.index, events.last()?.index);
        let record = self.sessions.entry(session.clone()).or_default();
        record.requests += 1;
        if !record.is_spooled && record.rejected_to.is_some_and(|to| first <= to) {
            self.violations.push(format!(
                "session {session}, index {first}: sent again after a permanent rejection"
            ));
        }
        if first < record.withdrawn_below {
            self.violations.push(format!(
                "session {session}, index {first}: sent after it was discarded"
            ));
        }
        let attempt = (first, hash(key.as_bytes()));
        let before = record.last.replace(attempt);
        if before != Some(attempt) {
            record.failures = 0;
        }
        if let Some(before) = before
            && before.0 == attempt.0
            && before.1 != attempt.1
            && !record.is_spooled
        {
            self.violations.push(format!(
                "session {session}, index {first}: a retry with another idempotency key"
            ));
        }
        if let Some((paused, until)) = record.pause
            && paused == attempt.1
            && now < until
        {
            self.violations.push(format!(
                "session {session}, index {first}: sent again before the Retry-After"
            ));
        }
        if !record.unconfirmed.is_empty()
            && let Some(before) = record.unconfirmed.get(key)
            && *before != hash(body)
        {
            self.violations
                .push(format!("two bodies for the idempotency key {key}"));
        }
        let ids = events.iter().fold(0, |hash, event| mix(hash, event.id));
        Some(Inspected {
            session,
            events,
            hash: mix(ids, last),
        })
    }

    /// Records that the client begins to send a request, which may not arrive.
    pub(super) fn begin(&mut self, body: &[u8]) {
        const END: &[u8] = br#","event":"SESSION_END","#;
        let tail = body.len().saturating_sub(END_BYTES + 64);
        let has_end = body
            .get(tail..)
            .is_some_and(|tail| memchr::memmem::find(tail, END).is_some());
        if has_end
            && let Some(session) = session_id(body)
            && let Some(first) = scan(body).first()
        {
            let losses = self.losses.entry(session.to_string()).or_default();
            losses.begin_end(first.index);
        }
    }

    /// Records that the client finds the connection broken while it sends: after its last attempt it sends pieces.
    pub(super) fn break_while_sending(&mut self, request: &Inspected) {
        if let Some(record) = self.sessions.get_mut(&request.session) {
            record.last = None;
        }
    }

    /// Records that the client receives a `Retry-After`.
    pub(super) fn ask_for_a_pause(
        &mut self,
        request: &Inspected,
        key: &str,
        now: Instant,
        asked: Duration,
    ) {
        let session = &request.session;
        let cap = self.retry_caps.get(session).copied().unwrap_or_default();
        if let Some(record) = self.sessions.get_mut(session) {
            let until = now.checked_add(asked.min(cap));
            record.pause = until.map(|until| (hash(key.as_bytes()), until));
        }
    }

    /// Whether the scenario has declared an event of this request invalid.
    pub(super) fn refuses_events_of(&self, request: &Inspected) -> bool {
        let mut indices = request.events.iter().map(|event| event.index);
        !self.invalid.is_empty()
            && indices.any(|index| self.invalid.contains(&(request.session.clone(), index)))
    }

    /// Stores the events of a request. `is_replay`: the network has duplicated it.
    pub(super) fn store(&mut self, request: &Inspected, body: &[u8], is_replay: bool) {
        let Some(record) = self.sessions.get_mut(&request.session) else {
            return;
        };
        let may_repeat = is_replay || record.is_spooled && self.may_repeat;
        if let Some(bodies) = &mut self.bodies {
            bodies.extend_from_slice(body);
        }
        let has_marks = memchr::memmem::find(body, MARK).is_some();
        let checked =
            (has_marks || self.kept.is_some()).then(|| wire::check(body, Mode::Strict).ok());
        let mut texts = checked.flatten().into_iter().flat_map(|body| body.events);
        let losses = self.losses.entry(request.session.clone()).or_default();
        for event in &request.events {
            let text = texts.next();
            let stored = record.store(*event, may_repeat).and_then(|is_new| {
                if let Some(event) = text.filter(|_| is_new) {
                    if let Some(kept) = &mut self.kept {
                        kept.add(&request.session, &event);
                    }
                    // What a session takes for lost may be on disk.
                    if !record.is_spooled {
                        record.read(event.json(), losses)?;
                    }
                }
                match event.kind {
                    b'E' if is_new && !record.is_spooled => losses.check_end(event.index, record),
                    _ => Ok(()),
                }
            });
            if let Err(violation) = stored {
                let session = &request.session;
                self.violations.push(format!(
                    "session {session}, index {}: {violation}",
                    event.index
                ));
            }
        }
    }

    /// Records that the client has received a 2xx for this request.
    pub(super) fn confirm(&mut self, request: &Inspected, key: &str) {
        if let Some(record) = self.sessions.get_mut(&request.session) {
            record.unconfirmed.remove(key);
            for event in &request.events {
                if let Some(Some(stored)) = record.events.get_mut(event.index as usize) {
                    record.confirmed +=
                        u64::from(!core::mem::replace(&mut stored.is_confirmed, true));
                }
            }
        }
    }

    /// Records that the client has received this status, which is not a 2xx.
    pub(super) fn refuse(&mut self, request: &Inspected, status: u16) {
        if let Some(record) = self.sessions.get_mut(&request.session) {
            match status {
                // Its pieces are new batches.
                400 | 413 | 422 => {
                    record.last = None;
                    if request.events.iter().any(|event| event.kind == b'E') {
                        let losses = self.losses.entry(request.session.clone()).or_default();
                        losses.refuse_end();
                    }
                }
                408 | 425 | 429 | 503 => {}
                500.. => record.fail(request),
                _ => record.rejected_to = Some(request.last_index()),
            }
        }
    }

    /// Records that the client has received no 2xx: if it sends the request again, the body must be the same.
    pub(super) fn leave_unconfirmed(&mut self, request: &Inspected, key: &str, body: &[u8]) {
        if let Some(record) = self.sessions.get_mut(&request.session) {
            record.unconfirmed.insert(key.to_string(), hash(body));
        }
    }
}

impl Record {
    /// A patient client sends pieces of a batch on which the server has failed more than eight times.
    fn fail(&mut self, request: &Inspected) {
        self.failures += 1;
        let last = Some(request.last_index());
        let is_piece = self.failed_to >= last;
        if request.events.len() > 1 && (self.failures > 8 || is_piece) {
            self.failed_to = self.failed_to.max(last);
            self.last = None;
        }
    }

    /// Reads a new event that this crate has made, the latest.
    fn read(&mut self, json: &str, losses: &mut LossLog) -> Result<(), &'static str> {
        if let Some(report) = Losses::read(json) {
            let index = self.next_index().saturating_sub(1);
            losses.note(index, report, self)?;
            if let Some(Some(stored)) = self.events.last_mut() {
                stored.is_report = true;
            }
        }
        CallEvent::read(json).map_or(Ok(()), |call| self.calls.note(call))
    }

    /// Of each event that the server has of these, whether it is confirmed.
    pub(super) fn stored(&self, indices: RangeInclusive<u64>) -> impl Iterator<Item = bool> {
        let (first, last) = (*indices.start() as usize, *indices.end() as usize);
        let events = self.events.iter().take(last.saturating_add(1)).skip(first);
        events.flatten().map(|event| event.is_confirmed)
    }

    /// The missing indices up to this one.
    pub(super) fn gaps_before(&self, index: u64) -> Vec<RangeInclusive<u64>> {
        let mut gaps: Vec<RangeInclusive<u64>> = Vec::new();
        for (at, event) in (0..index).zip(&self.events) {
            match gaps.last_mut() {
                _ if event.is_some() => {}
                Some(gap) if *gap.end() + 1 == at => *gap = *gap.start()..=at,
                _ => gaps.push(at..=at),
            }
        }
        gaps
    }

    /// Whether the event before this index is a failure, or missing and may have been one. A loss report does not count.
    pub(super) fn may_have_failed_before(&self, index: u64) -> bool {
        let before = self.events.iter().take(index as usize).rev();
        let event = before.flat_map(|event| match event {
            Some(event) if event.is_report => None,
            event => Some(event),
        });
        let mut event = event.take(1);
        match event.next() {
            Some(Some(event)) => event.is_failure,
            Some(None) => true,
            None => false,
        }
    }

    /// Returns whether the event is new.
    fn store(&mut self, event: ScannedEvent, may_repeat: bool) -> Result<bool, &'static str> {
        let index = u32::try_from(event.index).map_err(|_| "the index is too large")? as usize;
        if let Some(Some(stored)) = self.events.get(index) {
            self.duplicates += 1;
            return match stored {
                StoredEvent { id, .. } if *id != event.id => {
                    Err("another event has the same index")
                }
                StoredEvent { is_confirmed, .. } if *is_confirmed && !may_repeat => {
                    Err("sent again after it was confirmed")
                }
                _ => Ok(false),
            };
        }
        let is_late = index < self.events.len();
        let may_be_late = self.is_spooled && may_repeat;
        if is_late && !may_be_late {
            return Err("it follows a later event");
        }
        if self.distinct == 0 && (event.index, event.kind) != (0, b'S') && self.ended_at.is_none() {
            // The reporter may have dropped the start, and counted it; no other event has index 0.
            if event.index == 0 {
                return Err("the first event is not SESSION_START");
            }
        }
        if event.index > 0 && event.kind == b'S' {
            return Err("a second SESSION_START");
        }
        if event.kind == b'E' && self.ended_at.replace(event.index).is_some() {
            return Err("a second SESSION_END");
        }
        if self.is_over && !may_be_late {
            return Err("it follows SESSION_END, and no fatal exception ended the session");
        }
        // A gap may have been the exception.
        self.is_over = event.kind == b'E'
            && index == self.events.len()
            && index > 0
            && !self.may_have_failed_before(index as u64);
        if index > self.events.len() {
            self.events.resize(index, None);
        }
        let stored = Some(StoredEvent {
            id: event.id,
            is_failure: event.is_failure,
            is_report: false,
            is_confirmed: false,
        });
        match self.events.get_mut(index) {
            Some(place) => *place = stored,
            None => self.events.push(stored),
        }
        self.distinct += 1;
        Ok(true)
    }

    /// How many of the application's HTTP calls have ended, and how many have not.
    pub(super) fn calls(&self) -> (usize, usize) {
        self.calls.counts()
    }

    /// One more than the highest index.
    pub(super) const fn next_index(&self) -> u64 {
        self.events.len() as u64
    }

    /// The index of `SESSION_END`, once the server has it.
    pub(super) const fn ended_at(&self) -> Option<u64> {
        self.ended_at
    }
}

impl Inspected {
    pub(super) const fn event_count(&self) -> usize {
        self.events.len()
    }

    /// The hashes of the events' ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.events.iter().map(|event| event.id)
    }

    /// The highest index.
    pub(super) fn last_index(&self) -> u64 {
        self.events.last().map_or(0, |event| event.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server says of these events, each a kind, an index and whether it is a failure.
    fn store(events: &[(u8, u64, bool)]) -> Result<(), &'static str> {
        let mut record = Record::default();
        events.iter().try_for_each(|&(kind, index, is_failure)| {
            let event = ScannedEvent {
                id: index,
                index,
                kind,
                is_failure,
            };
            record.store(event, false).map(drop)
        })
    }

    #[test]
    fn events_follow_the_end_only_after_a_failure_or_a_gap_that_may_have_been_one() {
        let (start, end) = ((b'S', 0, false), (b'E', 2, false));
        let log = |index| (b'G', index, false);
        assert!(store(&[start, (b'U', 1, true), end, log(3), log(5)]).is_ok());
        assert!(store(&[start, (b'G', 1, true), end, log(3)]).is_ok());
        assert!(store(&[start, end, log(3)]).is_ok(), "a gap");
        assert!(store(&[start, log(1), end]).is_ok());
        assert!(store(&[start, log(1), end, log(3)]).is_err());
        assert!(
            store(&[
                start,
                (b'U', 1, true),
                (b'G', 2, false),
                (b'E', 3, false),
                log(4)
            ])
            .is_err()
        );
        assert!(store(&[start, (b'E', 1, false), (b'U', 2, true)]).is_err());
    }

    #[test]
    fn the_scan_knows_a_failure_before_the_end_and_at_the_end_of_a_body() {
        let event = |index: u64, kind: &str, rest: &str| {
            format!(
                "{}{index}{}",
                r#"{"event_id":"7f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f","event_session_index":"#,
                format_args!(
                    r#","event":"{kind}","severity":"WARNING","timestamp":"2025-11-26T10:30:45.000000Z",{rest}}}"#
                )
            )
        };
        let generic = |index, name: &str| {
            let rest = format!(r#""event_name":"{name}","event_data":{{}}"#);
            event(index, "GENERIC_EVENT", &rest)
        };
        let end = |index| event(index, "SESSION_END", r#""duration":"0:00:00""#);
        let fatal = event(1, "UNHANDLED_EXCEPTION", r#""error_type":"E""#);
        for (events, expected) in [
            ([fatal, end(2), generic(3, "x")], [true, false, false]),
            (
                [generic(1, "user_error"), end(2), generic(3, "user_error")],
                [true, false, true],
            ),
            (
                [generic(1, "x"), end(2), generic(3, "user_errors")],
                [false; 3],
            ),
        ] {
            let body = format!("[{}]", events.join(","));
            let failures: Vec<_> = scan(body.as_bytes())
                .iter()
                .map(|event| event.is_failure)
                .collect();
            assert_eq!(failures, expected, "{body}");
        }
    }
}
