//! What a server answers: an acknowledgement, an error, or that no stream listens.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use async_nats::{Message, StatusCode};
use core::time::Duration;
use serde_json::Value;

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// It is in the stream, now or since an earlier attempt.
    Stored,
    /// It can never be: too large for the stream.
    TooLarge(String),
    /// It is not, and may be later.
    Refused(String),
}

/// Codes of JetStream's errors.
const MESSAGE_EXCEEDS_MAXIMUM: u64 = 10054;
const HEADER_EXCEEDS_MAXIMUM: u64 = 10097;
const STREAM_NOT_FOUND: u64 = 10059;

impl Ack {
    pub(super) fn of(message: &Message, stream: &str) -> Self {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Self::Refused(format!(
                "no stream takes subjects tinkex.v1.>: create {stream}, or JetStream is not available now"
            ));
        }
        let Ok(Value::Object(answer)) = serde_json::from_slice(&message.payload) else {
            return Self::Refused("the acknowledgement is not one of JetStream".to_owned());
        };
        if let Some(error) = answer.get("error") {
            let code = error.get("err_code").and_then(Value::as_u64);
            let said = format!("stream {stream}: {}", described(error));
            return match code {
                Some(MESSAGE_EXCEEDS_MAXIMUM | HEADER_EXCEEDS_MAXIMUM) => Self::TooLarge(said),
                _ => Self::Refused(said),
            };
        }
        match answer.get("stream").and_then(Value::as_str) {
            Some(name) if name == stream => Self::Stored,
            _ => Self::Refused(format!(
                "the acknowledgement is not one of the stream {stream}"
            )),
        }
    }
}

/// What a server says about a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamInfo {
    /// For how long it recognizes duplicates.
    Window(Duration),
    Missing,
    /// The server does not say: this user may not ask, or JetStream is off.
    Unknown,
}

impl StreamInfo {
    pub(super) fn of(message: &Message) -> Self {
        let Ok(answer) = serde_json::from_slice::<Value>(&message.payload) else {
            return Self::Unknown;
        };
        if answer.pointer("/error/err_code").and_then(Value::as_u64) == Some(STREAM_NOT_FOUND) {
            return Self::Missing;
        }
        let window = answer.pointer("/config/duplicate_window");
        match window.and_then(Value::as_u64) {
            Some(nanos) => Self::Window(Duration::from_nanos(nanos)),
            None if answer.get("config").is_some() => Self::Window(Duration::ZERO),
            None => Self::Unknown,
        }
    }
}

fn described(error: &Value) -> String {
    let text = error.get("description").and_then(Value::as_str);
    let code = error.get("err_code").or_else(|| error.get("code"));
    let code = code.and_then(Value::as_u64).unwrap_or(0);
    let text: String = text
        .unwrap_or("no description")
        .chars()
        .filter(|c| !c.is_control())
        .take(80)
        .collect();
    format!("{text} ({code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str, status: Option<StatusCode>) -> Message {
        Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status,
            description: None,
            length: payload.len(),
        }
    }

    fn ack(payload: &str) -> Ack {
        Ack::of(&message(payload, None), "EVENTS")
    }

    #[test]
    fn only_an_acknowledgement_of_the_stream_counts_as_one() {
        assert_eq!(ack(r#"{"stream":"EVENTS","seq":3}"#), Ack::Stored);
        assert_eq!(
            ack(r#"{"stream":"EVENTS","seq":3,"duplicate":true}"#),
            Ack::Stored
        );
        for other in [
            "",
            "+OK",
            "{}",
            "[]",
            "null",
            r#"{"stream":"OTHER","seq":1}"#,
        ] {
            assert!(matches!(ack(other), Ack::Refused(_)), "{other}");
        }
        let silent = message("", Some(StatusCode::NO_RESPONDERS));
        assert!(matches!(Ack::of(&silent, "EVENTS"), Ack::Refused(_)));
    }

    #[test]
    fn only_a_message_that_is_too_large_is_given_up() {
        for (code, is_too_large) in [
            (10054, true),
            (10097, true),
            (10077, false),
            (10060, false),
            (10047, false),
        ] {
            let error = format!(
                r#"{{"error":{{"code":400,"err_code":{code},"description":"why"}},"stream":"EVENTS"}}"#
            );
            match ack(&error) {
                Ack::TooLarge(said) if is_too_large => assert!(said.contains("why"), "{said}"),
                Ack::Refused(said) if !is_too_large => {
                    assert_eq!(said, format!("stream EVENTS: why ({code})"));
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_duplicate_window_is_read_in_nanoseconds() {
        let info = |payload| StreamInfo::of(&message(payload, None));
        let window = info(r#"{"config":{"name":"EVENTS","duplicate_window":120000000000}}"#);
        assert_eq!(window, StreamInfo::Window(Duration::from_secs(120)));
        assert_eq!(info(r#"{"config":{}}"#), StreamInfo::Window(Duration::ZERO));
        assert_eq!(
            info(r#"{"error":{"code":404,"err_code":10059}}"#),
            StreamInfo::Missing
        );
        assert_eq!(
            info(r#"{"error":{"code":503,"err_code":10039}}"#),
            StreamInfo::Unknown
        );
        assert_eq!(info("?"), StreamInfo::Unknown);
    }
}
