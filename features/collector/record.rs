//! What is kept: events per session, with their duplicates and gaps, and requests.

use alloc::{borrow::ToOwned, format, string::String, sync::Arc, vec::Vec};
use core::ops::RangeInclusive;
use std::{collections::HashMap, time::Instant};

use http::HeaderMap;
use serde_json::Value;

use super::super::wire::checked::{Checked, CheckedEvent, EventKind};
use super::super::wire::violation::{Place, Violation};
use super::script::ResponseKind;

/// An event that was kept. Cloning it copies no text.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    id: Arc<str>,
    json: Arc<str>,
    index: u64,
    kind: EventKind,
    severity: &'static str,
}

impl EventRecord {
    /// Its `event_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its `event_session_index`.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Which of the four events it is.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Its `severity`, in capitals.
    pub fn severity(&self) -> &'static str {
        self.severity
    }

    /// All of it, as it came.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// All of it, decoded anew by every call.
    pub fn value(&self) -> Value {
        // The check has decoded it once, so null is never seen.
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    pub(super) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    /// The same content, in whatever order its keys come.
    fn is_same(&self, other: &Self) -> bool {
        self.json == other.json || self.value() == other.value()
    }
}

impl From<&CheckedEvent<'_>> for EventRecord {
    fn from(event: &CheckedEvent<'_>) -> Self {
        Self {
            id: event.id().into(),
            json: event.json().into(),
            index: event.index(),
            kind: event.kind(),
            severity: event.severity(),
        }
    }
}

/// What a request says of its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sender {
    platform: String,
    sdk_version: String,
    process_uuid: Option<String>,
}

impl From<&Checked<'_>> for Sender {
    fn from(checked: &Checked<'_>) -> Self {
        Self {
            platform: checked.platform().to_owned(),
            sdk_version: checked.sdk_version().to_owned(),
            process_uuid: checked.process_uuid().map(ToOwned::to_owned),
        }
    }
}

/// What is known of one session.
#[derive(Clone, Debug, Default)]
pub struct SessionRecord {
    id: String,
    sender: Sender,
    /// In the order of their indices, each index once.
    events: Vec<EventRecord>,
    indices: HashMap<Arc<str>, u64>,
    duplicates: u64,
    has_ended: bool,
}

/// What a session's requests are held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// The first event of all must be a `SESSION_START`.
    pub(super) starts: bool,
    /// Nothing follows a `SESSION_END`.
    pub(super) ends: bool,
    /// There is at most one `SESSION_END`.
    pub(super) ends_once: bool,
    /// A new event comes after all those before it.
    pub(super) increases: bool,
}

impl SessionRecord {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The platform that its latest request named.
    pub fn platform(&self) -> &str {
        &self.sender.platform
    }

    /// The version that its latest request named.
    pub fn sdk_version(&self) -> &str {
        &self.sender.sdk_version
    }

    /// The process that its latest request named.
    pub fn process_uuid(&self) -> Option<&str> {
        self.sender.process_uuid.as_deref()
    }

    /// The distinct events, in the order of their indices.
    pub fn events(&self) -> &[EventRecord] {
        &self.events
    }

    /// How many distinct events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events came again after they had been kept.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The indices from 0 to the last one kept under which nothing came: what was lost.
    pub fn gaps(&self) -> Vec<RangeInclusive<u64>> {
        let mut expected = 0;
        let mut gaps = Vec::new();
        for event in &self.events {
            if event.index > expected {
                gaps.push(expected..=event.index - 1);
            }
            expected = event.index.saturating_add(1);
        }
        gaps
    }

    /// Whether its `SESSION_END` was kept.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes the events of one request, all of them or, when one breaks `order`, none. Returns those
    /// that are new.
    pub(super) fn take(
        &mut self,
        sender: Sender,
        events: Vec<EventRecord>,
        order: Order,
    ) -> Result<Vec<EventRecord>, Violation> {
        let new = self.admit(&events, order)?;
        self.duplicates += (events.len() - new.len()) as u64;
        self.sender = sender;
        for event in &new {
            self.insert(event.clone());
        }
        Ok(new)
    }

    fn insert(&mut self, event: EventRecord) {
        self.has_ended |= event.kind == EventKind::SessionEnd;
        self.indices.insert(event.id.clone(), event.index);
        let at = self.events.partition_point(|kept| kept.index < event.index);
        self.events.insert(at, event);
    }

    /// Which of `events`, increasing in index and distinct in id, are new.
    fn admit(&self, events: &[EventRecord], order: Order) -> Result<Vec<EventRecord>, Violation> {
        let mut new = Vec::with_capacity(events.len());
        let mut has_ended = self.has_ended;
        for (at, event) in events.iter().enumerate() {
            let place = Place::Event(at);
            if self.is_duplicate(event, place)? {
                continue;
            }
            self.is_in_order(event, place, order)?;
            if order.starts && self.is_empty() && new.is_empty() {
                is_start(event, place)?;
            }
            if has_ended && (order.ends || order.ends_once && event.kind == EventKind::SessionEnd) {
                return Err(place.violation("event", "comes after the SESSION_END"));
            }
            has_ended |= event.kind == EventKind::SessionEnd;
            new.push(event.clone());
        }
        Ok(new)
    }

    fn is_duplicate(&self, event: &EventRecord, place: Place) -> Result<bool, Violation> {
        match self
            .indices
            .get(&event.id)
            .and_then(|&index| self.at(index))
        {
            None => Ok(false),
            Some(kept) if kept.is_same(event) => Ok(true),
            Some(_) => Err(place.violation("event_id", "came before with another content")),
        }
    }

    fn is_in_order(
        &self,
        event: &EventRecord,
        place: Place,
        order: Order,
    ) -> Result<(), Violation> {
        let key = "event_session_index";
        if let Some(kept) = self.at(event.index) {
            let problem = format!("is {} and belongs to the event {}", event.index, kept.id);
            return Err(place.violation(key, problem));
        }
        match self.events.last() {
            Some(last) if order.increases && event.index < last.index => {
                let problem = format!("is {} after {} came before", event.index, last.index);
                Err(place.violation(key, problem))
            }
            _ => Ok(()),
        }
    }

    fn at(&self, index: u64) -> Option<&EventRecord> {
        let at = self
            .events
            .binary_search_by_key(&index, |event| event.index)
            .ok()?;
        self.events.get(at)
    }
}

fn is_start(event: &EventRecord, place: Place) -> Result<(), Violation> {
    match event.kind {
        EventKind::SessionStart => Ok(()),
        other => {
            let problem = format!("is {other} where the session has not had its SESSION_START");
            Err(place.violation("event", problem))
        }
    }
}

/// One request to the telemetry endpoint.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub(super) arrived: Instant,
    pub(super) headers: HeaderMap,
    pub(super) session: Option<String>,
    /// Id and index of each event; empty unless the body passed the check.
    pub(super) events: Vec<(Arc<str>, u64)>,
    pub(super) answer: ResponseKind,
    pub(super) kept: bool,
    pub(super) violation: Option<Violation>,
}

impl RequestRecord {
    /// When its headers had been read.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Its headers. The API key is marked as sensitive, so that `Debug` does not print it.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its `x-idempotency-key`, when it has one that is text.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.headers.get("x-idempotency-key")?.to_str().ok()
    }

    /// The session that it names, when its body could be read so far.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The ids of its events, in their order; none unless the body passed the check.
    pub fn event_ids(&self) -> impl ExactSizeIterator<Item = &str> {
        self.events.iter().map(|(id, _)| &**id)
    }

    /// How many events it has; 0 unless the body passed the check.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// The index of its first event.
    pub fn first_index(&self) -> Option<u64> {
        self.events.first().map(|(_, index)| *index)
    }

    /// The index of its last event.
    pub fn last_index(&self) -> Option<u64> {
        self.events.last().map(|(_, index)| *index)
    }

    /// How it was answered.
    pub fn answer(&self) -> ResponseKind {
        self.answer
    }

    /// Whether its events were kept.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Where it leaves the wire, if it does.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }
}
