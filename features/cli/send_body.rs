//! What `send` reads: lines of JSON, as the events and bodies of requests.

use core::time::Duration;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::features::collector::{EventKind, Mode, check};
use crate::features::spool::look::{Found, Lines, Whose};
use crate::features::wire::json::{self, Object, Raw};

use super::item::rfc3339;
use super::prelude::*;
use super::token;

/// The sessions that lines belong to.
pub(super) struct Reader {
    /// Of lines that name none.
    session: String,
    is_given: bool,
    /// Of a session that begins here: the next index.
    next: u64,
    started: Option<SystemTime>,
    /// Lines of a spool's file, and its head.
    lines: Lines,
    head: Option<Head>,
}

/// A request's body without its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) session: String,
    text: String,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Nothing,
    Events(Head, Vec<String>),
}

impl Head {
    fn new(session: &str) -> Self {
        let text = json!({
            "session_id": session,
            "platform": format!("{}/{}", std::env::consts::FAMILY, std::env::consts::OS),
            "sdk_version": env!("CARGO_PKG_VERSION"),
        });
        Self {
            session: session.to_owned(),
            text: text.to_string(),
        }
    }

    /// Of events in a spool's file.
    pub(super) fn of(whose: &Whose) -> Self {
        Self {
            session: whose.session.clone(),
            text: whose.fields.clone(),
        }
    }

    /// Whether a request with this event alone has the form that servers expect.
    pub(super) fn fits(&self, event: &str) -> Result<(), String> {
        let body = self.body(&[event.to_owned()]);
        let checked = check(body.as_bytes(), Mode::Lenient);
        checked.map(drop).map_err(|violation| violation.to_string())
    }

    /// The body of a request with these events.
    pub(super) fn body(&self, events: &[String]) -> String {
        let head = self.text.trim_end_matches('}');
        format!("{head},\"events\":[{}]}}", events.join(","))
    }
}

impl Reader {
    /// `session`: the one that was asked for.
    pub(super) fn new(session: Option<&str>) -> Result<Self, String> {
        let fresh = || Ok::<_, String>(format!("send-{}", token::random(8)?));
        Ok(Self {
            session: session.map_or_else(fresh, |session| Ok(session.to_owned()))?,
            is_given: session.is_some(),
            next: 0,
            started: None,
            lines: Lines::default(),
            head: None,
        })
    }

    /// The events of a line.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<Read, String> {
        if line.trim_ascii().is_empty() {
            return Ok(Read::Nothing);
        }
        let text = core::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
        let object =
            Object::read(text).map_err(|error| format!("is not a JSON object: {error}"))?;
        if object.get("tinkex").is_some() || object.get("e").is_some() && object.get("n").is_some()
        {
            return self.kept(line);
        }
        let is_whole = object.get("event_id").is_some() && object.get("event").is_some();
        let before = (self.next, self.started);
        let (head, events) = if is_whole {
            let head = match &self.head {
                Some(head) => head.clone(),
                None if self.is_given => Head::new(&self.session),
                None => {
                    return Err("is a whole event: --session must say which it belongs to".into());
                }
            };
            (head, Vec::from([text.trim().to_owned()]))
        } else {
            (Head::new(&self.session), self.made(&object)?)
        };
        let read = self.check(head, events);
        if read.is_err() {
            // What is not sent takes no index, and begins no session.
            (self.next, self.started) = before;
        }
        read
    }

    /// The end of a session that began here.
    pub(super) fn end(&mut self) -> Option<Read> {
        let started = self.started?;
        let duration = started.elapsed().unwrap_or_default();
        let mut event = self.common("SESSION_END", "INFO", None).ok()?;
        event.push_str(&format!(r#","duration":"{}"}}"#, clock(duration)));
        Some(Read::Events(Head::new(&self.session), Vec::from([event])))
    }

    fn check(&self, head: Head, events: Vec<String>) -> Result<Read, String> {
        let body = head.body(&events);
        check(body.as_bytes(), Mode::Lenient).map_err(|violation| violation.to_string())?;
        Ok(Read::Events(head, events))
    }

    /// A line of a spool's file.
    fn kept(&mut self, line: &[u8]) -> Result<Read, String> {
        match self.lines.parse(line.trim_ascii_end()) {
            Found::Head(whose) => {
                self.head = Some(match self.is_given {
                    true => Head::new(&self.session),
                    false => Head::of(&whose),
                });
                Ok(Read::Nothing)
            }
            Found::Event { json, .. } => match self.head.clone() {
                Some(head) => self.check(head, Vec::from([json.to_owned()])),
                None => Err("comes before the head of its file".into()),
            },
            Found::Damaged => Err("is damaged, by its checksum".into()),
        }
    }

    /// An event of this session's own, and the session's start before the first one.
    fn made(&mut self, object: &Object<'_>) -> Result<Vec<String>, String> {
        const KEYS: [&str; 6] = [
            "name",
            "event_name",
            "data",
            "event_data",
            "severity",
            "timestamp",
        ];
        if let Some(key) = object.keys().find(|key| !KEYS.contains(key)) {
            return Err(format!(
                "has the key `{key}`; there may be name, data, severity and timestamp"
            ));
        }
        let either = |one, other| object.get(one).or_else(|| object.get(other));
        let name = either("name", "event_name").and_then(json::string);
        let name = name.ok_or("has no name")?;
        let text = |key| match object.get(key) {
            None => Ok(None),
            Some(raw) => json::string(raw)
                .map(Some)
                .ok_or(format!("{key} is no text")),
        };
        let severity = text("severity")?.map_or("INFO".to_owned(), |text| text.to_uppercase());
        let timestamp = text("timestamp")?.map(Cow::into_owned);
        let data = either("data", "event_data").map_or("{}", Raw::get);
        let data = match data.as_bytes().first() {
            Some(b'{') => Cow::Borrowed(data),
            Some(b'"') => Cow::Owned(format!("{{\"message\":{data}}}")),
            _ => Cow::Owned(format!("{{\"value\":{data}}}")),
        };
        let mut events = Vec::new();
        if self.started.is_none() {
            let mut start = self.common("SESSION_START", "INFO", timestamp.clone())?;
            start.push('}');
            events.push(start);
            self.started = Some(SystemTime::now());
        }
        let mut event = self.common(EventKind::GenericEvent.as_str(), &severity, timestamp)?;
        event.push_str(&format!(
            r#","event_name":{},"event_data":{data}}}"#,
            Value::from(&*name)
        ));
        events.push(event);
        Ok(events)
    }

    /// What all events have, without the closing brace.
    fn common(
        &mut self,
        kind: &str,
        severity: &str,
        timestamp: Option<String>,
    ) -> Result<String, String> {
        let id = uuid()?;
        let timestamp = timestamp.unwrap_or_else(|| rfc3339(SystemTime::now()));
        let index = self.next;
        self.next += 1;
        Ok(format!(
            r#"{{"event":"{kind}","event_id":"{id}","event_session_index":{index},"severity":{},"timestamp":{}"#,
            Value::from(severity),
            Value::from(timestamp)
        ))
    }
}

/// A random UUID, version 4.
pub(super) fn uuid() -> Result<String, String> {
    let digits = token::random(16)?;
    let variant = match digits.as_bytes().get(16).map(|digit| digit % 4) {
        Some(0) => '8',
        Some(1) => '9',
        Some(2) => 'a',
        _ => 'b',
    };
    let part = |range| {
        digits
            .get::<core::ops::Range<usize>>(range)
            .unwrap_or_default()
    };
    Ok(format!(
        "{}-{}-4{}-{variant}{}-{}",
        part(0..8),
        part(8..12),
        part(13..16),
        part(17..20),
        part(20..32)
    ))
}

/// Hours, minutes and seconds, as a session's end has them.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let micros = duration.subsec_micros();
    format!(
        "{}:{:02}:{:02}.{micros:06}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        Reader::new(Some("s")).unwrap()
    }

    #[test]
    fn the_first_event_of_a_new_session_has_its_start_before_it() {
        let mut reader = reader();
        let Ok(Read::Events(head, events)) = reader.read(br#"{"name":"a","data":{"z":1,"a":2}}"#)
        else {
            panic!("two events");
        };
        assert_eq!(events.len(), 2);
        assert!(events[1].ends_with(r#""event_name":"a","event_data":{"z":1,"a":2}}"#));
        let Some(Read::Events(_, end)) = reader.end() else {
            panic!("an end");
        };
        let all = [events, end].concat();
        // As strictly as this crate's own events.
        let body = head.body(&all);
        assert_eq!(
            check(body.as_bytes(), Mode::Strict)
                .map(|checked| checked.events().len())
                .ok(),
            Some(3)
        );
    }

    #[test]
    fn a_line_that_is_refused_takes_no_index_and_begins_no_session() {
        let mut reader = reader();
        assert!(reader.read(br#"{"name":"a","severity":"loud"}"#).is_err());
        assert!(reader.end().is_none());
        let Ok(Read::Events(_, events)) = reader.read(br#"{"name":"a"}"#) else {
            panic!("two events");
        };
        assert!(events[0].contains("SESSION_START"), "{}", events[0]);
        assert!(reader.read(br#"{"name":"b","timestamp":"now"}"#).is_err());
        let Ok(Read::Events(_, events)) = reader.read(br#"{"name":"c"}"#) else {
            panic!("one event");
        };
        assert!(events[0].contains(r#""event_session_index":2"#));
    }

    #[test]
    fn data_that_are_no_object_become_one() {
        for (data, expected) in [
            ("\"t\"", r#"{"message":"t"}"#),
            ("[1]", r#"{"value":[1]}"#),
            ("null", r#"{"value":null}"#),
        ] {
            let line = format!(r#"{{"name":"a","data":{data}}}"#);
            let Ok(Read::Events(_, events)) = reader().read(line.as_bytes()) else {
                panic!("events");
            };
            assert!(
                events[1].contains(&format!(r#""event_data":{expected}"#)),
                "{}",
                events[1]
            );
        }
    }

    #[test]
    fn a_line_that_cannot_be_sent_is_refused_with_the_reason() {
        for (line, reason) in [
            ("[]", "object"),
            ("{", "object"),
            ("{}", "has no name"),
            (r#"{"name":1}"#, "has no name"),
            (r#"{"name":"a","severity":"LOUD"}"#, "severity"),
            (r#"{"name":"a","timestamp":"yesterday"}"#, "timestamp"),
            (r#"{"name":"a","level":"INFO"}"#, "`level`"),
            (r#"{"name":"a","name":"b"}"#, ""),
            (r#"{"event":"GENERIC_EVENT","event_id":"x"}"#, "events[0]"),
            (r#"{"n":1,"i":1,"c":"00000000","e":{}}"#, "checksum"),
        ] {
            let problem = reader().read(line.as_bytes());
            if reason.is_empty() {
                continue;
            }
            let problem = problem.expect_err(line);
            assert!(problem.contains(reason), "{line}: {problem}");
        }
        let whole = br#"{"event":"SESSION_START","event_id":"x"}"#;
        let problem = Reader::new(None).unwrap().read(whole).unwrap_err();
        assert!(problem.contains("--session"));
    }

    #[test]
    fn ids_are_random_uuids() {
        let id = uuid().unwrap();
        assert!(crate::features::wire::form::is_uuid(&id), "{id}");
        assert_ne!(id, uuid().unwrap());
    }

    #[test]
    fn a_duration_has_its_hours_and_microseconds() {
        assert_eq!(
            clock(Duration::from_micros(90_061_000_001)),
            "25:01:01.000001"
        );
    }
}
