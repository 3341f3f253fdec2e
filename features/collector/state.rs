//! The state behind a collector: records requests and decides the reply to each.

use alloc::{
    borrow::{Cow, ToOwned},
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, time::Duration};
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, header};

use super::super::wire::check::{Envelope, Mode};
use super::super::wire::form;
use super::super::wire::record::EventRecord;
use super::super::wire::violation::Violation;
use super::backend::Backend;
use super::bodies::Bodies;
use super::ledger::{Kept, Ledger};
use super::notice::Notice;
use super::record::{OrderRules, Sender};
use super::request::RequestRecord;
use super::script::{Reply, ReplyKind};

pub(super) type OnEvent = Box<dyn FnMut(&str, &EventRecord) + Send>;
pub(super) type OnNotice = Box<dyn FnMut(&Notice) + Send>;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// The rules that requests must obey.
#[derive(Clone, Default)]
pub(super) struct Rules {
    pub(super) mode: Mode,
    pub(super) api_key: Option<String>,
    pub(super) max_events: Option<usize>,
    pub(super) events_after_end: bool,
    pub(super) late_events: bool,
}

/// Omits the API key.
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
    /// Returns the first violation among the headers.
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
                wrong("does not match")
            }
            (None, Some(_)) => wrong("is missing"),
            (None, None) if self.mode == Mode::Strict => wrong("is missing"),
            _ => Ok(()),
        }
    }

    /// `may_lack_start`: a request that may have contained the session's first event was refused.
    pub(super) fn order(&self, may_lack_start: bool) -> OrderRules {
        let is_strict = self.mode == Mode::Strict;
        OrderRules {
            begins_with_start: is_strict && !may_lack_start && !self.late_events,
            nothing_after_end: is_strict && !self.events_after_end,
            ends_once: is_strict,
            increases: is_strict && !self.late_events,
            pairs_calls: is_strict && !self.late_events,
            checks_losses: is_strict && !self.late_events && !may_lack_start,
        }
    }
}

/// Compares the media type, and ignores its parameters.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// The owned contents of a body that passed the check.
pub(super) struct Batch {
    pub(super) session: String,
    pub(super) sender: Sender,
    pub(super) events: Vec<EventRecord>,
}

impl Batch {
    fn ids_and_indices(&self) -> Vec<(Arc<str>, u64)> {
        self.events
            .iter()
            .map(|event| (event.shared_id(), event.index()))
            .collect()
    }
}

/// A checked request whose reply is not yet decided.
pub(super) struct CheckedRequest {
    session: Option<String>,
    batch: Result<Batch, Violation>,
}

/// What became of a request.
#[cfg_attr(
    not(feature = "cli"),
    expect(dead_code, reason = "only the program's tap reads it")
)]
pub(super) struct Recorded {
    pub(super) session: Option<String>,
    pub(super) run: u32,
    pub(super) events: Vec<(Arc<str>, u64)>,
    pub(super) new: usize,
    pub(super) is_kept: bool,
    /// The violation.
    pub(super) reason: Option<String>,
}

pub(super) struct State {
    rules: Rules,
    backend: Backend,
    observers: Observers,
    ledger: Mutex<Ledger>,
    bodies: Arc<Bodies>,
    changed: Condvar,
}

/// The user's functions.
#[derive(Default)]
pub(super) struct Observers {
    pub(super) on_event: Option<Mutex<OnEvent>>,
    pub(super) on_notice: Option<Mutex<OnNotice>>,
    #[cfg(feature = "cli")]
    pub(super) tap: Option<Arc<dyn super::tap::Tap>>,
}

impl State {
    pub(super) fn new(
        rules: Rules,
        backend: Backend,
        observers: Observers,
        max_memory: Option<usize>,
    ) -> Self {
        if rules.mode == Mode::Lenient {
            backend.be_lenient();
        }
        if let Some(max) = max_memory {
            backend.bound(max / 4);
        }
        Self {
            rules,
            backend,
            observers,
            ledger: Mutex::new(Ledger::new(max_memory)),
            bodies: Bodies::new(max_memory.unwrap_or(usize::MAX)),
            changed: Condvar::new(),
        }
    }

    /// The room for bodies that are being received.
    pub(super) const fn bodies(&self) -> &Arc<Bodies> {
        &self.bodies
    }

    /// Tells the observer.
    pub(super) fn notify(&self, notice: &Notice) {
        if let Some(on_notice) = &self.observers.on_notice {
            let mut on_notice = on_notice.lock().unwrap_or_else(PoisonError::into_inner);
            on_notice(notice);
        }
    }

    pub(super) const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Replies to a call other than telemetry, with `answer` if there is one.
    pub(super) fn call(&self, request: &Request<Bytes>, answer: Option<Reply>) -> Reply {
        match self.rules.check_api_key(request.headers()) {
            Ok(()) => self.backend.reply_with(request, answer),
            Err(violation) => refusal(&violation, None),
        }
    }

    pub(super) fn clear(&self) {
        self.backend.clear();
        self.ledger().clear();
        self.changed.notify_all();
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `condition` holds; `false` at `timeout`.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&Ledger) -> bool,
    ) -> bool {
        let wait = self
            .changed
            .wait_timeout_while(self.ledger(), timeout, |ledger| !condition(ledger));
        let (_ledger, result) = wait.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Records a request whose body is not read.
    pub(super) fn record_unread(&self, arrived: Instant, headers: HeaderMap, response: ReplyKind) {
        let mut ledger = self.ledger();
        ledger.record_refused(None);
        ledger.add_request(RequestRecord {
            arrived,
            headers: hide_key(headers),
            session: None,
            events: Vec::new(),
            response,
            is_kept: false,
            violation: None,
        });
        self.changed.notify_all();
    }

    /// Records a request whose scripted reply is `reply`; returns the actual reply.
    pub(super) fn record(
        &self,
        arrived: Instant,
        headers: HeaderMap,
        checked: CheckedRequest,
        reply: Reply,
    ) -> (Reply, Recorded) {
        let CheckedRequest { session, batch } = checked;
        let events = batch
            .as_ref()
            .map(Batch::ids_and_indices)
            .unwrap_or_default();
        let sender = batch.as_ref().ok().map(|batch| batch.sender.clone());
        let mut ledger = self.ledger();
        let (kept, violation) = match ledger.settle(batch, reply.keeps(), &self.rules) {
            Ok(kept) => (kept, None),
            Err(violation) => (None, Some(violation)),
        };
        if kept.is_none() {
            ledger.record_refused(session.as_deref());
        }
        let reply = match &violation {
            Some(violation) if reply.is_success() && !reply.is_foreign => {
                refusal(violation, session.as_deref()).delay(reply.delay)
            }
            _ => reply,
        };
        ledger.add_request(RequestRecord {
            arrived,
            headers: hide_key(headers),
            session: session.clone(),
            events: events.clone(),
            response: reply.kind,
            is_kept: kept.is_some(),
            violation: violation.clone(),
        });
        drop(ledger);
        self.changed.notify_all();
        let recorded = Recorded {
            events,
            run: kept.as_ref().map_or(0, |kept| kept.run),
            new: kept.as_ref().map_or(0, |kept| kept.new.len()),
            is_kept: kept.is_some(),
            reason: violation.map(|violation| violation.to_string()),
            session,
        };
        if let (Some(session), Some(kept), Some(sender)) = (&recorded.session, kept, sender) {
            self.tell(session, sender, kept);
        }
        (reply, recorded)
    }

    /// Keeps a request's body as if it had been received.
    #[cfg(feature = "cli")]
    pub(super) fn restore(&self, body: &[u8]) -> Result<(), Violation> {
        let batch = Envelope::read(body).and_then(|envelope| self.batch(envelope))?;
        let (session, sender) = (batch.session.clone(), batch.sender.clone());
        let kept = self.ledger().settle(Ok(batch), true, &self.rules)?;
        self.changed.notify_all();
        if let Some(kept) = kept {
            self.tell(&session, sender, kept);
        }
        Ok(())
    }

    /// Tells the observers what was kept, outside the ledger's lock, so that they can use the collector.
    fn tell(&self, session: &str, sender: Sender, kept: Kept) {
        let (runs, forgotten): (Vec<_>, Vec<_>) = kept
            .notices
            .iter()
            .partition(|notice| matches!(notice, Notice::NewRun { .. }));
        runs.into_iter().for_each(|notice| self.notify(notice));
        self.observe(session, &kept.new);
        #[cfg(feature = "cli")]
        if let Some(tap) = &self.observers.tap {
            tap.kept(&super::tap::KeptEvents {
                session: session.to_owned(),
                run: kept.run,
                sender,
                events: kept.new,
            });
        }
        #[cfg(not(feature = "cli"))]
        drop(sender);
        forgotten.into_iter().for_each(|notice| self.notify(notice));
    }

    /// What is wrong with a request's key, if there must be one.
    #[cfg(feature = "cli")]
    pub(super) fn check_key(&self, headers: &HeaderMap) -> Result<(), Violation> {
        self.rules.check_api_key(headers)
    }

    /// What the program adds.
    #[cfg(feature = "cli")]
    pub(super) fn tap(&self) -> Option<&Arc<dyn super::tap::Tap>> {
        self.observers.tap.as_ref()
    }

    /// Checks a request, as far as that takes nothing but its bytes.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        body: Result<&[u8], Violation>,
    ) -> CheckedRequest {
        let envelope = body.and_then(Envelope::read);
        let session = envelope.as_ref().ok().and_then(Envelope::session_id);
        CheckedRequest {
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

    fn observe(&self, session: &str, new: &[EventRecord]) {
        if let Some(on_event) = &self.observers.on_event {
            let mut on_event = on_event.lock().unwrap_or_else(PoisonError::into_inner);
            for event in new {
                on_event(session, event);
            }
        }
    }
}

/// The response to a violation. The reason for the observer names the session as well.
pub(super) fn refusal(violation: &Violation, session: Option<&str>) -> Reply {
    let body = serde_json::json!({ "error": violation.to_string(), "field": violation.field() });
    let reason = match session {
        Some(session) => format!("session {session}: {violation}"),
        None => violation.to_string(),
    };
    Reply::refuse(violation.status(), reason).body(body.to_string())
}

fn hide_key(mut headers: HeaderMap) -> HeaderMap {
    if let Some(key) = headers.get_mut(API_KEY) {
        key.set_sensitive(true);
    }
    headers
}
