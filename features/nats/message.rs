//! What an event becomes: a subject and headers.

use super::config::Config;
use crate::transport::Batch;
use crate::transport::member::member;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use async_nats::{HeaderMap, Subject};
use core::fmt::Write as _;

/// Bytes of a subject's beginning. By default a server closes a connection whose line is longer than 4 096 bytes, with the
/// kind of event, the reply's subject and two numbers.
const MAX_SUBJECT: usize = 3_500;

/// What the messages of a session share, kept from batch to batch.
#[derive(Default)]
pub(super) struct Head {
    /// The body up to its events: what the rest was made from.
    body: Vec<u8>,
    /// `tinkex.v1.<session>.`
    subject: String,
    headers: HeaderMap,
    /// What the headers take on the wire without an event's id.
    headers_len: usize,
}

impl Head {
    /// Makes it that of this batch.
    pub(super) fn follow(&mut self, batch: &Batch<'_>, config: &Config) {
        let body = batch.body();
        let end = body.len()
            - batch.events().next().map_or(0, |first| {
                // The events are slices of the body.
                let before = first.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
                body.len().saturating_sub(before)
            });
        let before_events = &body[..end];
        if before_events == self.body && !self.subject.is_empty() {
            return;
        }
        self.body = before_events.to_vec();
        let session = escaped(batch.session_id().as_bytes(), is_plain);
        self.subject = format!("tinkex.v1.{session}.");
        self.headers = HeaderMap::new();
        self.headers
            .insert(async_nats::header::NATS_EXPECTED_STREAM, &*config.stream);
        self.headers.insert("Tinkex-Session", &*session);
        for (header, field) in [
            ("Tinkex-Platform", "platform"),
            ("Tinkex-Sdk-Version", "sdk_version"),
            ("Tinkex-Process", "process_uuid"),
        ] {
            let text = member(before_events, field).and_then(|json| {
                let text: Option<String> = serde_json::from_slice(json).ok();
                text
            });
            if let Some(text) = text {
                let printable = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
                self.headers
                    .insert(header, &*escaped(text.as_bytes(), printable));
            }
        }
        self.headers_len = wire_len(&self.headers);
    }

    /// The size of an event's message as a server counts it: its headers and its payload.
    pub(super) fn message_len(&self, event: &[u8], event_id: &str) -> usize {
        let name: &str = async_nats::header::NATS_MESSAGE_ID.as_ref();
        self.headers_len + header_len(name, event_id) + event.len()
    }

    pub(super) fn subject(&self, event: &[u8]) -> Subject {
        let kind = member(event, "event").map_or(&b"UNKNOWN"[..], unquoted);
        let kind = escaped(kind, is_plain);
        let kind = if kind.is_empty() { "UNKNOWN" } else { &kind };
        Subject::from(format!("{}{kind}", self.subject))
    }

    /// How much too long the subjects are for a server, whose limit is on a whole line of the protocol.
    pub(super) fn excess(&self) -> Option<usize> {
        self.subject
            .len()
            .checked_sub(MAX_SUBJECT)
            .filter(|excess| *excess > 0)
    }

    pub(super) fn headers(&self, event_id: &str) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, event_id);
        headers
    }
}

/// What headers take on the wire, the lines before and after them included.
fn wire_len(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let values = values.iter();
        values.map(|value| header_len(name.as_ref(), value.as_str()))
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

const fn header_len(name: &str, value: &str) -> usize {
    name.len() + ": \r\n".len() + value.len()
}

/// Whether an event is the end of its session.
pub(super) fn is_end(event: &[u8]) -> bool {
    member(event, "event") == Some(b"\"SESSION_END\"")
}

/// An event's id, as a header may hold it.
pub(super) fn event_id(event: &[u8]) -> Option<Cow<'_, str>> {
    let id = unquoted(member(event, "event_id")?);
    let printable = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    (!id.is_empty()).then(|| escaped(id, printable))
}

/// A JSON string's contents, escapes included: what this crate writes has none.
fn unquoted(json: &[u8]) -> &[u8] {
    let inner = json
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(json)
}

/// What may stand in a subject's token, and means nothing there.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Percent-encodes every byte that is not plain.
fn escaped(text: &[u8], is_plain: impl Fn(u8) -> bool) -> Cow<'_, str> {
    if let Ok(text) = core::str::from_utf8(text)
        && text.bytes().all(&is_plain)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() * 3);
    for &byte in text {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::JetStream;
    use crate::transport::SampleBatch;

    fn head(session: &'static str, event: &str) -> (Head, String) {
        let transport = JetStream::connect("localhost").stream("EVENTS");
        let mut sample = SampleBatch::new(session, [event]);
        let batch = sample.batch();
        let mut head = Head::default();
        head.follow(&batch, transport.config().expect("a config"));
        let subject = head.subject(event.as_bytes()).into_string();
        (head, subject)
    }

    #[test]
    fn a_subject_has_four_tokens_whatever_the_session_is_called() {
        for (session, token) in [
            ("run-7_b", "run-7_b"),
            ("a.b", "a%2Eb"),
            ("a b\t\r\n", "a%20b%09%0D%0A"),
            ("*", "%2A"),
            (">", "%3E"),
            ("100%", "100%25"),
            ("ü", "%C3%BC"),
            ("\"\\", "%22%5C"),
            ("$SYS/1", "%24SYS%2F1"),
        ] {
            let (head, subject) = head(session, r#"{"event_id":"i","event":"SESSION_START"}"#);
            assert_eq!(subject, format!("tinkex.v1.{token}.SESSION_START"));
            let header = head.headers("i");
            assert_eq!(
                header.get("Tinkex-Session").map(|it| it.as_str()),
                Some(token)
            );
        }
    }

    #[test]
    fn two_sessions_never_share_a_subject() {
        let (_, one) = head("a%2Eb", r#"{"event_id":"i","event":"X"}"#);
        let (_, other) = head("a.b", r#"{"event_id":"i","event":"X"}"#);
        assert_ne!(one, other);
    }

    #[test]
    fn the_kind_is_that_of_the_event_and_not_of_its_data() {
        let (_, subject) = head("s", r#"{"event_data":{"event":"B"},"event":"A.C"}"#);
        assert_eq!(subject, "tinkex.v1.s.A%2EC");
        for event in ["{}", r#"{"event":""}"#] {
            assert_eq!(head("s", event).1, "tinkex.v1.s.UNKNOWN");
        }
    }

    #[test]
    fn the_headers_have_the_id_the_stream_and_the_head() {
        let (head, _) = head("s", "{}");
        let headers = head.headers("id-1");
        for (name, value) in [
            ("Nats-Msg-Id", "id-1"),
            ("Nats-Expected-Stream", "EVENTS"),
            ("Tinkex-Session", "s"),
            ("Tinkex-Platform", "test/test"),
            ("Tinkex-Sdk-Version", "0.0.0"),
        ] {
            assert_eq!(headers.get(name).map(|it| it.as_str()), Some(value));
        }
    }

    #[test]
    fn an_event_without_an_id_has_none() {
        assert_eq!(event_id(br#"{"event_id":"a b"}"#).as_deref(), Some("a%20b"));
        assert_eq!(event_id(br#"{"event_id":""}"#), None);
        assert_eq!(event_id(br#"{"event_data":{"event_id":"x"}}"#), None);
    }

    #[test]
    fn a_session_whose_subjects_are_too_long_is_found_out() {
        let excess = |session: String| {
            let (head, _) = head(
                session.leak(),
                r#"{"event_id":"i","event":"SESSION_START"}"#,
            );
            head.excess()
        };
        let plain = MAX_SUBJECT - "tinkex.v1..".len();
        assert_eq!(excess("s".repeat(plain)), None);
        assert_eq!(excess("s".repeat(plain + 2)), Some(2));
        // Each of these bytes takes three in a subject.
        assert!(excess(".".repeat(plain / 2)).is_some());
    }
}
