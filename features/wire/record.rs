//! An event that a backend has kept, and what it says.

#[cfg(feature = "cli")]
use super::check::severity as severity_of;
use super::checked::{CheckedEvent, EventKind};
use super::json::{self, Object, Raw};
use super::split;
use alloc::borrow::Cow;
use alloc::sync::Arc;
use serde_json::Value;

/// A kept event. Cloning it copies no text.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    pub(crate) id: Arc<str>,
    pub(crate) json: Arc<str>,
    pub(crate) index: u64,
    pub(crate) kind: EventKind,
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

    /// Which of the four kinds of event it is.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Its `severity`, in upper case.
    pub fn severity(&self) -> &'static str {
        self.severity
    }

    /// The whole event, as it was received.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The whole event, decoded on each call.
    pub fn value(&self) -> Value {
        // The check decoded it, so the default never occurs.
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    /// Its `event_name`, or the `error_type` of an exception; the [kind](Self::kind)'s name for the others.
    pub fn name(&self) -> Cow<'_, str> {
        let key = match self.kind {
            EventKind::GenericEvent => "event_name",
            EventKind::UnhandledException => "error_type",
            _ => return Cow::Borrowed(self.kind.as_str()),
        };
        self.text(key).unwrap_or_default()
    }

    /// Its `event_data` as it was received, keys in their order; `None` unless it is a `GENERIC_EVENT`.
    pub fn data(&self) -> Option<&str> {
        match self.kind {
            EventKind::GenericEvent => self.member("event_data").map(Raw::get),
            _ => None,
        }
    }

    /// The `error_message` of an exception.
    pub fn message(&self) -> Option<Cow<'_, str>> {
        match self.kind {
            EventKind::UnhandledException => self.text("error_message"),
            _ => None,
        }
    }

    /// The `traceback` of an exception that has one.
    pub fn traceback(&self) -> Option<Cow<'_, str>> {
        match self.kind {
            EventKind::UnhandledException => self.text("traceback"),
            _ => None,
        }
    }

    /// The `duration` of a `SESSION_END`, as it was received.
    pub fn duration(&self) -> Option<Cow<'_, str>> {
        match self.kind {
            EventKind::SessionEnd => self.text("duration"),
            _ => None,
        }
    }

    fn member(&self, key: &str) -> Option<Raw<'_>> {
        let mut members = split::members(&self.json)?;
        match members.find(|(name, _)| *name == key || name.contains('\\'))? {
            (name, value) if name == key => Some(Raw::known(value)),
            // A key with an escape may be the one.
            _ => Object::of(Raw::known(&self.json)).ok()?.get(key),
        }
    }

    fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.member(key).and_then(json::string)
    }

    /// An event in this JSON, as the collector itself wrote it out; `None` if it is not one.
    #[cfg(feature = "cli")]
    pub(crate) fn read(json: &str) -> Option<Self> {
        let object = Object::read(json).ok()?;
        let text = |key| object.get(key).and_then(json::string);
        let kind = text("event")?;
        Some(Self {
            id: (*text("event_id")?).into(),
            index: object.get("event_session_index")?.get().parse().ok()?,
            kind: EventKind::ALL
                .into_iter()
                .find(|known| known.as_str() == kind)?,
            severity: severity_of(&text("severity")?)?,
            json: json.into(),
        })
    }

    /// The whole event, shared.
    #[cfg(feature = "cli")]
    pub(crate) fn shared_json(&self) -> Arc<str> {
        Arc::clone(&self.json)
    }

    /// Its `timestamp`.
    #[cfg(feature = "cli")]
    pub(crate) fn timestamp(&self) -> Option<Cow<'_, str>> {
        self.text("timestamp")
    }

    /// Its estimated memory, in bytes: the texts, two pointers to each, and an entry of the index.
    pub(crate) fn cost(&self) -> usize {
        256 + self.json.len() + self.id.len()
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    /// Whether it is an exception or a user error.
    pub(crate) fn is_failure(&self) -> bool {
        match self.kind {
            EventKind::UnhandledException => true,
            // Most others are told apart without parsing them.
            EventKind::GenericEvent => {
                self.json.contains("user_error") && self.name() == "user_error"
            }
            _ => false,
        }
    }

    /// Whether the content is the same, in any order of keys.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
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
