//! The state behind a collector: takes one request after the other and decides its answer.

use alloc::{
    borrow::{Cow, ToOwned},
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, time::Duration};
use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, header};

use super::super::wire::check::{Envelope, Mode};
use super::super::wire::form;
use super::super::wire::violation::Violation;
use super::backend::Backend;
use super::record::{EventRecord, Order, RequestRecord, Sender, SessionRecord};
use super::script::{Reply, ResponseKind};

pub(super) type OnEvent = Box<dyn FnMut(&str, &EventRecord) + Send>;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// What requests are held to.
#[derive(Clone, Default)]
pub(super) struct Rules {
    pub(super) mode: Mode,
    pub(super) api_key: Option<String>,
    pub(super) max_events: Option<usize>,
    pub(super) events_after_end: bool,
    pub(super) late_events: bool,
}

/// The key stays out of it.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("mode", &self.mode)
            .field("max_events", &self.max_events)
            .field("events_after_end", &self.events_after_end)
            .field("late_events", &self.late_events)
            .finish_non_exhaustive()
    }
}

impl Rules {
    /// The first header that is not as it must be.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), Violation> {
        self.check_api_key(headers)?;
        if self.mode == Mode::Lenient {
            return Ok(());
        }
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let wrong =
            |status, name: &HeaderName, problem| Violation::new(status, name.as_str(), problem);
        if !text(&header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(wrong(
                415,
                &header::CONTENT_TYPE,
                "must be application/json",
            ));
        }
        if text(&header::USER_AGENT).is_none_or(str::is_empty) {
            return Err(wrong(422, &header::USER_AGENT, "is missing"));
        }
        if !text(&IDEMPOTENCY_KEY).is_some_and(form::is_uuid) {
            return Err(wrong(422, &IDEMPOTENCY_KEY, "must be a uuid"));
        }
        Ok(())
    }

    fn check_api_key(&self, headers: &HeaderMap) -> Result<(), Violation> {
        let wrong = |problem| Err(Violation::new(401, API_KEY.as_str(), problem));
        match (headers.get(API_KEY), &self.api_key) {
            (Some(key), Some(expected)) if key.as_bytes() != expected.as_bytes() => {
                wrong("is not the one expected")
            }
            (None, Some(_)) => wrong("is missing"),
            (None, None) if self.mode == Mode::Strict => wrong("is missing"),
            _ => Ok(()),
        }
    }

    /// `may_be_midway`: something of this session was refused, perhaps its beginning.
    fn order(&self, may_be_midway: bool) -> Order {
        let is_strict = self.mode == Mode::Strict;
        Order {
            starts: is_strict && !may_be_midway && !self.late_events,
            ends: is_strict && !self.events_after_end,
            ends_once: is_strict,
            increases: is_strict && !self.late_events,
        }
    }
}

/// The media type, whatever its parameters.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// A body that passed the check of itself, owned.
struct Batch {
    session: String,
    sender: Sender,
    events: Vec<EventRecord>,
}

impl Batch {
    fn list(&self) -> Vec<(Arc<str>, u64)> {
        self.events
            .iter()
            .map(|event| (event.shared_id(), event.index()))
            .collect()
    }
}

/// A request before it is known how it is answered.
struct Read {
    session: Option<String>,
    batch: Result<Batch, Violation>,
}

pub(super) struct State {
    rules: Rules,
    backend: Backend,
    on_event: Option<Mutex<OnEvent>>,
    ledger: Mutex<Ledger>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct Ledger {
    sessions: BTreeMap<String, Arc<SessionRecord>>,
    requests: Vec<RequestRecord>,
    script: VecDeque<Reply>,
    always: Reply,
    /// Sessions of which a request was not kept.
    refused: HashSet<String>,
    /// A request was not kept and its session is not known: it may be any of them.
    refused_unread: bool,
}

impl State {
    pub(super) fn new(rules: Rules, backend: Backend, on_event: Option<OnEvent>) -> Self {
        Self {
            rules,
            backend,
            on_event: on_event.map(Mutex::new),
            ledger: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Answers a call that has nothing to do with telemetry.
    pub(super) fn call(&self, request: &Request<Bytes>) -> Reply {
        match self.rules.check_api_key(request.headers()) {
            Ok(()) => self.backend.answer(request),
            Err(violation) => refusal(&violation),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_so` or `timeout`; returns which.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        mut is_so: impl FnMut(&Ledger) -> bool,
    ) -> bool {
        let wait = self
            .changed
            .wait_timeout_while(self.ledger(), timeout, |ledger| !is_so(ledger));
        let (_ledger, result) = wait.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Notes a request whose body is not read.
    pub(super) fn note_unread(&self, arrived: Instant, headers: HeaderMap, answer: ResponseKind) {
        let mut ledger = self.ledger();
        ledger.refused_unread = true;
        ledger.requests.push(RequestRecord {
            arrived,
            headers: hide_key(headers),
            session: None,
            events: Vec::new(),
            answer,
            kept: false,
            violation: None,
        });
        self.changed.notify_all();
    }

    /// Takes a request that was to be given `answer`; returns what it is given.
    pub(super) fn take(
        &self,
        arrived: Instant,
        headers: HeaderMap,
        body: Result<&[u8], Violation>,
        answer: Reply,
    ) -> Reply {
        let Read { session, batch } = self.read(&headers, body);
        let events = batch.as_ref().map(Batch::list).unwrap_or_default();
        let mut ledger = self.ledger();
        let (new, violation) = match ledger.settle(batch, answer.keeps(), &self.rules) {
            Ok(new) => (new, None),
            Err(violation) => (None, Some(violation)),
        };
        if new.is_none() {
            ledger.note_refused(session.as_deref());
        }
        let answer = match &violation {
            Some(violation) if answer.is_success() => refusal(violation).delay(answer.delay),
            _ => answer,
        };
        ledger.requests.push(RequestRecord {
            arrived,
            headers: hide_key(headers),
            session: session.clone(),
            events,
            answer: answer.kind,
            kept: new.is_some(),
            violation,
        });
        drop(ledger);
        self.changed.notify_all();
        if let (Some(session), Some(new)) = (session, new) {
            self.tell(&session, &new);
        }
        answer
    }

    fn read(&self, headers: &HeaderMap, body: Result<&[u8], Violation>) -> Read {
        let envelope = body.and_then(Envelope::read);
        let session = envelope.as_ref().ok().and_then(Envelope::session_id);
        Read {
            session: session.map(Cow::into_owned),
            batch: self
                .rules
                .check_headers(headers)
                .and(envelope)
                .and_then(|envelope| self.batch(envelope)),
        }
    }

    fn batch(&self, envelope: Envelope<'_>) -> Result<Batch, Violation> {
        let checked = envelope.check(self.rules.mode)?;
        match self.rules.max_events {
            Some(max) if checked.events().len() > max => {
                let problem = format!("must be at most {max}, not {}", checked.events().len());
                Err(Violation::new(422, "events", problem))
            }
            _ => Ok(Batch {
                session: checked.session_id().to_owned(),
                sender: Sender::from(&checked),
                events: checked.events().iter().map(EventRecord::from).collect(),
            }),
        }
    }

    /// Outside the ledger's lock, so that the observer can look at the collector.
    fn tell(&self, session: &str, new: &[EventRecord]) {
        if let Some(on_event) = &self.on_event {
            let mut on_event = on_event.lock().unwrap_or_else(PoisonError::into_inner);
            for event in new {
                on_event(session, event);
            }
        }
    }
}

impl Ledger {
    pub(super) fn append(&mut self, answers: impl IntoIterator<Item = Reply>) {
        self.script.extend(answers);
    }

    pub(super) fn set_always(&mut self, answer: Reply) {
        self.always = answer;
    }

    pub(super) fn next_answer(&mut self) -> Reply {
        self.script
            .pop_front()
            .unwrap_or_else(|| self.always.clone())
    }

    pub(super) fn session(&self, id: &str) -> Option<&Arc<SessionRecord>> {
        self.sessions.get(id)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<SessionRecord>> {
        self.sessions.values()
    }

    pub(super) fn requests(&self) -> &[RequestRecord] {
        &self.requests
    }

    /// Returns the events that are new, or `None` when `keeps` is not so.
    fn settle(
        &mut self,
        batch: Result<Batch, Violation>,
        keeps: bool,
        rules: &Rules,
    ) -> Result<Option<Vec<EventRecord>>, Violation> {
        let batch = batch?;
        if keeps {
            self.keep(batch, rules).map(Some)
        } else {
            Ok(None)
        }
    }

    fn keep(&mut self, batch: Batch, rules: &Rules) -> Result<Vec<EventRecord>, Violation> {
        let order = rules.order(self.refused_unread || self.refused.contains(&batch.session));
        match self.sessions.get_mut(&batch.session) {
            // Copies the record only while somebody holds a snapshot of it.
            Some(session) => Arc::make_mut(session).take(batch.sender, batch.events, order),
            None => {
                let mut session = SessionRecord::new(&batch.session);
                let new = session.take(batch.sender, batch.events, order)?;
                self.sessions.insert(batch.session, Arc::new(session));
                Ok(new)
            }
        }
    }

    /// Notes that a request was not kept; `None` when it is not known whose it was.
    pub(super) fn note_refused(&mut self, session: Option<&str>) {
        match session {
            None => self.refused_unread = true,
            Some(session) if self.refused.contains(session) => {}
            Some(session) => {
                self.refused.insert(session.to_owned());
            }
        }
    }
}

fn refusal(violation: &Violation) -> Reply {
    let body = serde_json::json!({ "error": violation.to_string(), "field": violation.field() });
    Reply::status(violation.status()).body(body.to_string())
}

fn hide_key(mut headers: HeaderMap) -> HeaderMap {
    if let Some(key) = headers.get_mut(API_KEY) {
        key.set_sensitive(true);
    }
    headers
}
