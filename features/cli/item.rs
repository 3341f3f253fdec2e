//! What a collector tells those who watch it, one by one: as JSON for the page, `tail` and `--json`.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::features::collector::{EventRecord, Notice, ReplyKind};
use crate::time::Timestamp;

use super::prelude::*;
use super::text;

/// Something that happened.
pub(super) enum Item {
    /// A run of a session was first heard of, or is now sent by another process.
    Session {
        session: Arc<str>,
        run: u32,
        platform: String,
        sdk_version: String,
        process_uuid: Option<String>,
    },
    /// An event was kept.
    Event {
        session: Arc<str>,
        run: u32,
        event: EventRecord,
    },
    /// A request below `/api/v1/` was answered.
    Request(Box<RequestItem>),
    /// Anything else.
    Notice {
        at: SystemTime,
        what: &'static str,
        session: Option<String>,
        text: String,
    },
    /// All before was forgotten.
    Clear,
}

/// A request and its response, without their bodies.
pub(super) struct RequestItem {
    pub(super) at: SystemTime,
    pub(super) took: Duration,
    pub(super) delay: Duration,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) key: Option<String>,
    pub(super) bytes: usize,
    pub(super) reply: ReplyKind,
    pub(super) retry_after: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) session: Option<String>,
    pub(super) run: u32,
    /// The number of events, and the indices of the first and the last.
    pub(super) events: Option<(usize, u64, u64)>,
    pub(super) new: usize,
    pub(super) is_kept: bool,
}

/// Bytes of an event's data that a short item has.
const MAX_PREVIEW: usize = 160;
/// The page draws events of the crate's own, so their data are in short items, too.
const MAX_OWN_DATA: usize = 4_096;

impl Item {
    /// Its estimated memory, in bytes.
    pub(super) fn cost(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Session {
                session,
                platform,
                sdk_version,
                process_uuid,
                ..
            } => 256 + session.len() + platform.len() + sdk_version.len() + of(process_uuid),
            Self::Event { session, event, .. } => {
                128 + session.len() + event.json().len() + event.id().len()
            }
            Self::Request(request) => {
                let RequestItem {
                    method, path, key, ..
                } = &**request;
                let more = of(&request.reason) + of(&request.retry_after) + of(&request.session);
                384 + method.len() + path.len() + of(key) + more
            }
            Self::Notice { session, text, .. } => 128 + text.len() + of(session),
            Self::Clear => 64,
        }
    }

    pub(super) fn notice(notice: &Notice) -> Self {
        let (what, session) = match notice {
            Notice::Refused { .. } => ("refused", None),
            Notice::Closed { .. } => ("closed", None),
            Notice::Forgotten { session, .. } => ("forgotten", Some(session)),
            Notice::NewRun { session, .. } => ("run", Some(session)),
        };
        Self::said(what, session.cloned(), notice.to_string())
    }

    pub(super) fn said(what: &'static str, session: Option<String>, text: String) -> Self {
        Self::Notice {
            at: SystemTime::now(),
            what,
            session,
            text: text::cut(&text, text::MAX_DATA).into_owned(),
        }
    }

    /// One JSON object on one line. Of an event `full` has everything, otherwise only its beginning.
    pub(super) fn json(&self, full: bool) -> String {
        match self {
            Self::Session {
                session,
                run,
                platform,
                sdk_version,
                process_uuid,
            } => json!({
                "type": "session", "session": &**session, "run": run, "platform": platform,
                "sdk_version": sdk_version, "process_uuid": process_uuid,
            })
            .to_string(),
            Self::Event {
                session,
                run,
                event,
            } => match full {
                true => format!(
                    r#"{{"type":"event","session":{},"run":{run},"event":{}}}"#,
                    Value::from(&**session),
                    text::compact(event.json())
                ),
                false => short_event(session, *run, event),
            },
            Self::Request(request) => request.json(),
            Self::Notice {
                at,
                what,
                session,
                text,
            } => json!({
                "type": "notice", "at": millis(*at), "what": what, "session": session, "text": text,
            })
            .to_string(),
            Self::Clear => r#"{"type":"clear"}"#.to_owned(),
        }
    }

    pub(super) fn session(&self) -> Option<&str> {
        match self {
            Self::Session { session, .. } | Self::Event { session, .. } => Some(session),
            Self::Request(request) => request.session.as_deref(),
            Self::Notice { session, .. } => session.as_deref(),
            Self::Clear => None,
        }
    }
}

fn short_event(session: &str, run: u32, event: &EventRecord) -> String {
    let name = event.name();
    let data = event.data().unwrap_or_default();
    let preview = match event.message().or_else(|| event.duration()) {
        Some(message) => text::cut(&message, MAX_PREVIEW).into_owned(),
        None => text::beginning(data, MAX_PREVIEW),
    };
    let mut json = format!(
        r#"{{"type":"event","session":{},"run":{run},"index":{},"kind":"{}","severity":"{}","name":{},"timestamp":{},"id":{},"preview":{},"size":{}"#,
        Value::from(session),
        event.index(),
        event.kind(),
        event.severity(),
        Value::from(&*text::cut(&name, 1_000)),
        Value::from(event.timestamp().unwrap_or_default()),
        Value::from(event.id()),
        Value::from(preview),
        event.json().len(),
    );
    if name.starts_with("tinkex.") && (1..=MAX_OWN_DATA).contains(&data.len()) {
        json.push_str(r#","data":"#);
        json.push_str(&text::compact(data));
    }
    json.push('}');
    json
}

impl RequestItem {
    fn json(&self) -> String {
        let (count, first, last) = self.events.map_or((0, None, None), |(count, first, last)| {
            (count, Some(first), Some(last))
        });
        json!({
            "type": "request", "at": millis(self.at), "took": self.took.as_secs_f64() * 1e3,
            "delay": self.delay.as_secs_f64() * 1e3, "method": self.method, "path": self.path, "key": self.key,
            "bytes": self.bytes, "reply": reply(self.reply), "retry_after": self.retry_after, "reason": self.reason,
            "session": self.session, "run": self.run, "events": count, "first": first, "last": last, "new": self.new,
            "kept": self.is_kept,
        })
        .to_string()
    }
}

/// A status, or the name of what came in its place.
pub(super) fn reply(kind: ReplyKind) -> Value {
    match kind {
        ReplyKind::Status(status) => status.into(),
        ReplyKind::Truncated => "truncated".into(),
        ReplyKind::Stall => "stall".into(),
        ReplyKind::CloseBeforeBody => "close".into(),
        ReplyKind::CloseAfterBody => "lost".into(),
        ReplyKind::Garbage => "garbage".into(),
    }
}

/// Milliseconds since the epoch.
pub(super) fn millis(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Microseconds, as integers, are exact.
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 2255")]
    let micros = since.as_micros() as f64;
    micros / 1e3
}

/// As events have it: RFC 3339 with microseconds.
pub(super) fn rfc3339(at: SystemTime) -> String {
    Timestamp::from(at).to_string()
}
