//! The check of one request body against the wire format: a pure function of its bytes.

use alloc::{borrow::Cow, format, string::ToString, vec::Vec};
use std::collections::HashSet;

use super::checked::{Checked, CheckedEvent, EventKind};
use super::form;
use super::json::{self, Object, Raw};
use super::violation::{Excerpt, Place, Violation};

const SEVERITIES: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// The severity of this name.
pub(crate) fn severity(word: &str) -> Option<&'static str> {
    SEVERITIES.into_iter().find(|severity| *severity == word)
}
const BATCH_KEYS: &[&str] = &[
    "session_id",
    "platform",
    "sdk_version",
    "process_uuid",
    "events",
];
const COMMON_KEYS: &[&str] = &[
    "event",
    "event_id",
    "event_session_index",
    "severity",
    "timestamp",
];

/// Checks the body of one request to the telemetry endpoint.
///
/// Checks this request alone: a running `Collector`, or the simulated server, checks what spans the requests of a
/// session (order, duplicates, the first and last event). Time and memory are linear in `body`, which is not copied.
///
/// # Errors
///
/// The first [`Violation`] found.
///
/// # Examples
///
/// ```
/// use tinkex_telemetry::collector::{Mode, check};
///
/// let body = br#"{"session_id": "s", "platform": "unix/linux", "sdk_version": "1.0.0", "events": []}"#;
/// let violation = check(body, Mode::Strict).unwrap_err();
/// assert_eq!(violation.to_string(), "events must not be empty");
/// ```
pub fn check(body: &[u8], mode: Mode) -> Result<Checked<'_>, Violation> {
    Envelope::read(body)?.check(mode)
}

/// How strictly requests are checked against the wire format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Exactly what this crate writes.
    #[default]
    Strict,
    /// Also what other clients write: timestamps with zero to nine fractional digits and `+00:00` for UTC, event ids and
    /// process uuids of any form, any platform string, a null in place of a traceback, and unknown keys.
    ///
    /// A lenient collector ignores headers (except the API key, if it was given one), and accepts a session from its
    /// middle, out of order, after its end, and again from its start.
    Lenient,
}

/// Bytes of a session's id, and of each text about its sender: they are kept for as long as the session.
const MAX_TEXT: usize = 8_192;

/// The outer object of a body, with unparsed members: even a body that fails the check may name its session.
pub(crate) struct Envelope<'a>(Object<'a>);

impl<'a> Envelope<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Violation> {
        let text = core::str::from_utf8(body)
            .map_err(|error| Violation::new(400, "body", format!("is not UTF-8: {error}")))?;
        Object::read(text).map(Self).map_err(|error| {
            let what = if error.is_data() {
                "is not a JSON object"
            } else {
                "is not JSON"
            };
            Violation::new(400, "body", format!("{what}: {error}"))
        })
    }

    /// `None` also of one that is too long to be kept.
    pub(crate) fn session_id(&self) -> Option<Cow<'a, str>> {
        let id = self.0.get("session_id").and_then(json::string);
        id.filter(|id| id.len() <= MAX_TEXT)
    }

    pub(crate) fn check(self, mode: Mode) -> Result<Checked<'a>, Violation> {
        let batch = Fields {
            object: self.0,
            place: Place::Batch,
            mode,
        };
        batch.check_keys("a batch", &[BATCH_KEYS])?;
        Ok(Checked {
            session_id: batch.non_empty("session_id")?,
            platform: batch.platform()?,
            sdk_version: batch.non_empty("sdk_version")?,
            process_uuid: batch.process_uuid()?,
            events: events(batch.required("events")?, mode)?,
        })
    }
}

fn events(raw: Raw<'_>, mode: Mode) -> Result<Vec<CheckedEvent<'_>>, Violation> {
    let items = raw
        .items()
        .ok_or_else(|| Place::Batch.violation("events", "must be an array"))?;
    let events = items
        .enumerate()
        .map(|(at, raw)| event(raw, Place::Event(at), mode))
        .collect::<Result<Vec<_>, _>>()?;
    if events.is_empty() {
        return Err(Place::Batch.violation("events", "must not be empty"));
    }
    check_increasing(&events)?;
    check_distinct(&events)?;
    Ok(events)
}

fn check_increasing(events: &[CheckedEvent<'_>]) -> Result<(), Violation> {
    match events
        .windows(2)
        .position(|pair| pair[1].index <= pair[0].index)
    {
        None => Ok(()),
        Some(at) => {
            let problem = format!(
                "is {} after {}, not greater",
                events[at + 1].index,
                events[at].index
            );
            Err(Place::Event(at + 1).violation("event_session_index", problem))
        }
    }
}

fn check_distinct(events: &[CheckedEvent<'_>]) -> Result<(), Violation> {
    let mut seen = HashSet::with_capacity(events.len());
    match events.iter().position(|event| !seen.insert(event.id())) {
        None => Ok(()),
        Some(at) => Err(Place::Event(at).violation("event_id", "is the id of an earlier event")),
    }
}

fn event(raw: Raw<'_>, place: Place, mode: Mode) -> Result<CheckedEvent<'_>, Violation> {
    if !is_object(raw) {
        return Err(place.violation("", "must be an object"));
    }
    let object = Object::of(raw).map_err(|error| place.undecodable(&error))?;
    if !object.values().all(json::clearly_decodes) {
        json::decodes(raw.get()).map_err(|error| place.undecodable(&error))?;
    }
    let fields = Fields {
        object,
        place,
        mode,
    };
    let kind = fields.kind()?;
    fields.check_keys(kind.as_str(), &[COMMON_KEYS, kind.own_keys()])?;
    let event = CheckedEvent {
        kind,
        id: fields.event_id()?,
        index: fields.index()?,
        severity: fields.severity()?,
        json: raw.get(),
    };
    fields.check_timestamp()?;
    fields.check_own_keys(kind)?;
    fields.check_start(&event)?;
    fields.check_context(&event)?;
    Ok(event)
}

/// The members of one object, and its place in the body.
struct Fields<'a> {
    object: Object<'a>,
    place: Place,
    mode: Mode,
}

impl<'a> Fields<'a> {
    fn check_keys(&self, what: &str, known: &[&[&str]]) -> Result<(), Violation> {
        if let Some(key) = self.object.duplicate_key() {
            return Err(self.place.violation(key, "appears twice"));
        }
        let is_known = |key: &str| known.iter().any(|keys| keys.contains(&key));
        match self.object.keys().find(|key| !is_known(key)) {
            Some(key) if self.mode == Mode::Strict => {
                Err(self.place.violation(key, format!("is not a key of {what}")))
            }
            _ => Ok(()),
        }
    }

    fn required(&self, key: &str) -> Result<Raw<'a>, Violation> {
        self.object
            .get(key)
            .ok_or_else(|| self.place.violation(key, "is missing"))
    }

    fn text(&self, key: &str) -> Result<Cow<'a, str>, Violation> {
        let raw = self.required(key)?;
        json::string(raw).ok_or_else(|| self.wrong(key, "a string", raw.get()))
    }

    /// In lenient mode null is no text.
    fn optional_text(&self, key: &str) -> Result<Option<Cow<'a, str>>, Violation> {
        match self.object.get(key) {
            Some(raw) if self.mode == Mode::Lenient && raw.get() == "null" => Ok(None),
            Some(_) => self.text(key).map(Some),
            None => Ok(None),
        }
    }

    fn non_empty(&self, key: &str) -> Result<Cow<'a, str>, Violation> {
        self.formed(key, "a non-empty string", |text| !text.is_empty())
    }

    fn formed(
        &self,
        key: &str,
        form: &str,
        is_formed: impl Fn(&str) -> bool,
    ) -> Result<Cow<'a, str>, Violation> {
        let text = self.text(key)?;
        if text.len() > MAX_TEXT && BATCH_KEYS.contains(&key) {
            let problem = format!("must be at most {MAX_TEXT} bytes, not {}", text.len());
            return Err(self.place.violation(key, problem));
        }
        if is_formed(&text) {
            Ok(text)
        } else {
            Err(self.wrong(key, form, &text))
        }
    }

    /// Like [`formed`](Self::formed), but lenient mode accepts any string.
    fn strictly(
        &self,
        key: &str,
        form: &str,
        is_formed: impl Fn(&str) -> bool,
    ) -> Result<Cow<'a, str>, Violation> {
        self.formed(key, form, |text| {
            self.mode == Mode::Lenient || is_formed(text)
        })
    }

    fn wrong(&self, key: &str, form: &str, found: &str) -> Violation {
        let problem = format!("must be {form}, not {}", Excerpt(found));
        self.place.violation(key, problem)
    }

    fn platform(&self) -> Result<Cow<'a, str>, Violation> {
        self.strictly("platform", "`family/os`", form::is_platform)
    }

    fn process_uuid(&self) -> Result<Option<Cow<'a, str>>, Violation> {
        let key = "process_uuid";
        let read = |_| self.strictly(key, "a lower-case uuid v4", form::is_uuid_v4);
        self.object.get(key).map(read).transpose()
    }

    fn kind(&self) -> Result<EventKind, Violation> {
        let word = self.text("event")?;
        let kind = EventKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word);
        kind.ok_or_else(|| self.wrong("event", "one of the four events", &word))
    }

    fn event_id(&self) -> Result<Cow<'a, str>, Violation> {
        self.strictly("event_id", "a lower-case uuid v4", form::is_uuid_v4)
    }

    fn index(&self) -> Result<u64, Violation> {
        let key = "event_session_index";
        let raw = self.required(key)?.get();
        raw.parse()
            .map_err(|_| self.wrong(key, "a whole number from 0 to 2^64-1", raw))
    }

    fn severity(&self) -> Result<&'static str, Violation> {
        let word = self.text("severity")?;
        severity(&word).ok_or_else(|| self.wrong("severity", "one of the five severities", &word))
    }

    fn check_timestamp(&self) -> Result<(), Violation> {
        let (form, is_formed): (_, fn(&str) -> bool) = match self.mode {
            Mode::Strict => ("YYYY-MM-DDTHH:MM:SS.ffffffZ", form::is_timestamp),
            Mode::Lenient => (
                "YYYY-MM-DDTHH:MM:SS[.f] and Z or +00:00",
                form::is_loose_timestamp,
            ),
        };
        self.formed("timestamp", form, is_formed).map(drop)
    }

    fn check_own_keys(&self, kind: EventKind) -> Result<(), Violation> {
        match kind {
            EventKind::SessionStart => Ok(()),
            EventKind::SessionEnd => self
                .formed("duration", "H:MM:SS or H:MM:SS.ffffff", form::is_duration)
                .map(drop),
            EventKind::GenericEvent => {
                self.text("event_name")?;
                self.check_object("event_data")
            }
            EventKind::UnhandledException => {
                self.text("error_type")?;
                self.text("error_message")?;
                self.optional_text("traceback").map(drop)
            }
        }
    }

    fn check_object(&self, key: &str) -> Result<(), Violation> {
        let raw = self.required(key)?;
        if is_object(raw) {
            Ok(())
        } else {
            Err(self.wrong(key, "an object", raw.get()))
        }
    }

    fn check_start(&self, event: &CheckedEvent<'_>) -> Result<(), Violation> {
        if event.kind != EventKind::SessionStart {
            return Ok(());
        }
        if event.index != 0 {
            return Err(self.wrong(
                "event_session_index",
                "0 in a SESSION_START",
                &event.index.to_string(),
            ));
        }
        if event.severity != "INFO" {
            return Err(self.wrong("severity", "INFO in a SESSION_START", event.severity));
        }
        Ok(())
    }

    /// What is true of a whole session is said right behind its start, and so at most once.
    fn check_context(&self, event: &CheckedEvent<'_>) -> Result<(), Violation> {
        let is_strict_event =
            self.mode == Mode::Strict && event.kind == EventKind::GenericEvent && event.index != 1;
        if is_strict_event && self.text("event_name")? == "session.context" {
            return Err(self.wrong(
                "event_session_index",
                "1 in a session.context",
                &event.index.to_string(),
            ));
        }
        Ok(())
    }
}

fn is_object(raw: Raw<'_>) -> bool {
    raw.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    use alloc::{borrow::ToOwned, string::String};

    use serde_json::{Value, json};

    use super::*;

    fn batch() -> Value {
        json!({
            "session_id": "s",
            "platform": "unix/linux",
            "sdk_version": "1.0.0",
            "process_uuid": "6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f",
            "events": [{
                "event": "GENERIC_EVENT",
                "event_id": "7f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f",
                "event_session_index": 7,
                "severity": "INFO",
                "timestamp": "2025-11-26T10:30:45.000000Z",
                "event_name": "app.started",
                "event_data": {},
            }],
        })
    }

    fn field(body: &str) -> String {
        check(body.as_bytes(), Mode::Strict)
            .unwrap_err()
            .field()
            .to_owned()
    }

    #[test]
    fn a_checked_body_is_borrowed() {
        let body = batch().to_string();
        let checked = check(body.as_bytes(), Mode::Strict).unwrap();
        assert!(matches!(checked.session_id, Cow::Borrowed("s")));
        assert_eq!(checked.events()[0].index(), 7);
        assert!(body.contains(checked.events()[0].json()));
    }

    #[test]
    fn a_duplicate_key_is_a_violation_in_every_object() {
        let body = batch().to_string();
        assert_eq!(
            field(&body.replacen('{', r#"{"platform":"a/b","#, 1)),
            "platform"
        );
        let twice = body.replace(r#""severity""#, r#""severity":"INFO","severity""#);
        assert_eq!(field(&twice), "events[0].severity");
    }

    #[test]
    fn a_sessions_context_has_index_one_except_in_lenient_mode() {
        let late = batch()
            .to_string()
            .replace("app.started", "session.context");
        assert_eq!(field(&late), "events[0].event_session_index");
        assert!(check(late.as_bytes(), Mode::Lenient).is_ok());
        let second = late.replace(r#""event_session_index":7"#, r#""event_session_index":1"#);
        assert!(check(second.as_bytes(), Mode::Strict).is_ok());
    }

    #[test]
    fn an_event_that_cannot_be_decoded_is_a_violation() {
        let body = batch().to_string();
        let half = body.replace(r#""event_data":{}"#, r#""event_data":{"x":"\ud800"}"#);
        assert_eq!(field(&half), "events[0]");
    }

    #[test]
    fn a_message_quotes_only_the_start_of_a_long_value() {
        let body = batch().to_string().replace("INFO", &"x".repeat(1000));
        let violation = check(body.as_bytes(), Mode::Strict).unwrap_err();
        assert!(violation.to_string().len() < 150, "{violation}");
    }
}
