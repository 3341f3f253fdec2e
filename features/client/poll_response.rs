//! Classifies responses to `retrieve_future`.

use super::error::Category;
use crate::bus::QueueState;
use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use core::time::Duration;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// What a response says about the request.
#[derive(Debug, PartialEq)]
pub(super) enum PollResponse<'a> {
    /// It is done; this is its result, as JSON.
    Done(&'a [u8]),
    /// It is queued.
    TryAgain {
        state: QueueState,
        reason: Option<Cow<'a, str>>,
        retry_after: Option<Duration>,
        queue_depth: Option<u64>,
    },
    /// It is running.
    Pending,
    /// It is done, and the response has only its metadata.
    MetadataOnly,
    /// It has failed.
    Failed { category: Category, message: String },
    /// The backend has lost it.
    Expired,
    /// Nothing: the backend cannot respond now.
    Unavailable,
    /// Nothing: the backend is overloaded.
    Busy,
    /// Nothing: poll or response is malformed, perhaps only this once.
    Malformed,
    /// Nothing: the poll was refused for good.
    Refused,
}

/// The fields of a response around its result.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    queue_state: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    queue_state_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    retry_after_ms: Option<f64>,
    #[serde(default)]
    queue_depth: Option<f64>,
    #[serde(borrow, default)]
    category: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

/// Classifies a response.
pub(super) fn classify(status: u16, body: &[u8]) -> PollResponse<'_> {
    match status {
        200..300 => classify_body(body),
        408 => match parse(body).as_ref().and_then(try_again) {
            Some(response) => response,
            None => PollResponse::Unavailable,
        },
        500.. => PollResponse::Unavailable,
        410 => PollResponse::Expired,
        429 => PollResponse::Busy,
        400 => PollResponse::Malformed,
        _ => PollResponse::Refused,
    }
}

fn classify_body(body: &[u8]) -> PollResponse<'_> {
    let Some(envelope) = parse(body) else {
        // A result may use these keys with other types; any object is one. Decoded values could take thirty times its
        // size.
        let is_object =
            first(body) == Some(b'{') && serde_json::from_slice::<IgnoredAny>(body).is_ok();
        return match is_object {
            true => PollResponse::Done(body),
            false => PollResponse::Malformed,
        };
    };
    if let Some(response) = try_again(&envelope) {
        return response;
    }
    match envelope.status.as_deref() {
        Some("pending") => return PollResponse::Pending,
        Some("complete_metadata") => return PollResponse::MetadataOnly,
        Some("completed") => {
            let result = envelope
                .result
                .map_or(body, |result| result.get().as_bytes());
            return PollResponse::Done(result);
        }
        _ => {}
    }
    let has_failed = envelope.status.as_deref() == Some("failed");
    if has_failed || (envelope.error.is_some() && envelope.category.is_some()) {
        return failure(&envelope);
    }
    // A string is a failure even without a category, unless the fields next to it make it part of a result.
    match envelope.error {
        Some(error) if is_string(error) && envelope.kind.is_none() && envelope.result.is_none() => {
            failure(&envelope)
        }
        _ => PollResponse::Done(body),
    }
}

fn parse(body: &[u8]) -> Option<Envelope<'_>> {
    // Serde would also accept an array of the right length.
    (first(body) == Some(b'{'))
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

fn first(body: &[u8]) -> Option<u8> {
    body.iter()
        .copied()
        .find(|byte| !byte.is_ascii_whitespace())
}

fn is_string(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn try_again<'a>(envelope: &Envelope<'a>) -> Option<PollResponse<'a>> {
    if envelope.kind.as_deref() != Some("try_again") {
        return None;
    }
    let state = envelope.queue_state.as_deref().map(QueueState::parse);
    let seconds = envelope.retry_after_ms.map(|millis| millis / 1_000.0);
    let retry_after = seconds.and_then(duration);
    // Any form of a number: a response is not malformed for what is only shown.
    let depth = envelope.queue_depth.filter(|depth| *depth >= 0.0);
    Some(PollResponse::TryAgain {
        state: state.unwrap_or_default(),
        reason: envelope.queue_state_reason.clone(),
        retry_after,
        queue_depth: depth.map(|depth| depth as u64),
    })
}

/// `None` for a negative number; the longest duration for one that is too large.
fn duration(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn failure(envelope: &Envelope<'_>) -> PollResponse<'static> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Fields<'a> {
        #[serde(borrow)]
        category: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let error = envelope.error;
    let fields = error.filter(|error| first(error.get().as_bytes()) == Some(b'{'));
    let fields: Fields<'_> = fields
        .and_then(|error| serde_json::from_str(error.get()).ok())
        .unwrap_or_default();
    let of_error = fields.category.and_then(string).map(Cow::Owned);
    let category = envelope.category.clone().or(of_error);
    let message = match error {
        Some(text) if is_string(text) => string(text).unwrap_or_default(),
        Some(error) => {
            let named = fields.message.and_then(string);
            let named = named.or_else(|| fields.error.and_then(string));
            named.unwrap_or_else(|| error.get().to_owned())
        }
        None => String::new(),
    };
    PollResponse::Failed {
        category: category
            .map(|word| Category::parse(&word))
            .unwrap_or_default(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QueueState::{Active, PausedCapacity, Unknown};
    use alloc::format;
    use alloc::vec::Vec;

    fn try_again(
        state: QueueState,
        reason: Option<&'static str>,
        retry_after_ms: Option<u64>,
    ) -> PollResponse<'static> {
        PollResponse::TryAgain {
            state,
            reason: reason.map(Into::into),
            retry_after: retry_after_ms.map(Duration::from_millis),
            queue_depth: None,
        }
    }

    fn failure(category: Category, message: &str) -> PollResponse<'static> {
        PollResponse::Failed {
            category,
            message: message.into(),
        }
    }

    #[test]
    fn each_response_has_its_class() {
        let bare = r#"{"type": "sample", "sequences": []}"#;
        let capacity = r#"{"type":"try_again","request_id":"r","queue_state":" Paused_Capacity",
            "queue_state_reason":"no room","retry_after_ms":250}"#;
        let rows = [
            (200, bare, PollResponse::Done(bare.as_bytes())),
            (
                200,
                r#"{"status":"completed","result":{"path": 1}}"#,
                PollResponse::Done(br#"{"path": 1}"#),
            ),
            (
                200,
                capacity,
                try_again(PausedCapacity, Some("no room"), Some(250)),
            ),
            (
                408,
                r#"{"type":"try_again","queue_state":"active"}"#,
                try_again(Active, None, None),
            ),
            (
                408,
                r#"{"type":"try_again","queue_state":"of tomorrow","retry_after_ms":-1}"#,
                try_again(Unknown, None, None),
            ),
            (200, r#"{"status":"pending"}"#, PollResponse::Pending),
            (
                200,
                r#"{"status":"complete_metadata","response_payload_size":7}"#,
                PollResponse::MetadataOnly,
            ),
            (
                200,
                r#"{"error":"no","category":"user"}"#,
                failure(Category::User, "no"),
            ),
            (
                200,
                r#"{"error":"no","category":"server"}"#,
                failure(Category::Server, "no"),
            ),
            (
                200,
                r#"{"error":"no","category":"of tomorrow"}"#,
                failure(Category::Unknown, "no"),
            ),
            (200, r#"{"error":"no"}"#, failure(Category::Unknown, "no")),
            (
                200,
                r#"{"status":"failed","error":{"category":"user","message":"no"}}"#,
                failure(Category::User, "no"),
            ),
            (
                200,
                r#"{"status":"failed"}"#,
                failure(Category::Unknown, ""),
            ),
            (410, "", PollResponse::Expired),
            (408, "", PollResponse::Unavailable),
            (408, r#"{"status":"pending"}"#, PollResponse::Unavailable),
            (500, bare, PollResponse::Unavailable),
            (599, "", PollResponse::Unavailable),
            (429, "", PollResponse::Busy),
            (400, "", PollResponse::Malformed),
            (200, "", PollResponse::Malformed),
            (200, "[]", PollResponse::Malformed),
            (200, "{\"type\":", PollResponse::Malformed),
            (401, "", PollResponse::Refused),
            (404, "", PollResponse::Refused),
            (307, "", PollResponse::Refused),
        ];
        for (status, body, expected) in rows {
            assert_eq!(
                classify(status, body.as_bytes()),
                expected,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_result_may_use_keys_of_the_envelope() {
        for body in [
            r#"{"status":5,"path":"x"}"#,
            r#"{"error":{"of":1},"type":"x"}"#,
        ] {
            assert_eq!(
                classify(200, body.as_bytes()),
                PollResponse::Done(body.as_bytes())
            );
        }
    }

    #[test]
    fn a_depth_and_a_wait_of_any_size_are_read() {
        let row =
            |fields: &str| format!(r#"{{"type":"try_again","queue_state":"active",{fields}}}"#);
        for (fields, wait, depth) in [
            (r#""queue_depth":7"#, None, Some(7)),
            (
                r#""queue_depth":null,"retry_after_ms":1e15"#,
                Some(1e12),
                None,
            ),
            (
                r#""queue_depth":-1,"retry_after_ms":1e300"#,
                Some(1e19),
                None,
            ),
            (r#""queue_depth":2.0,"retry_after_ms":-1"#, None, Some(2)),
        ] {
            let body = row(fields);
            let PollResponse::TryAgain {
                retry_after,
                queue_depth,
                ..
            } = classify(200, body.as_bytes())
            else {
                panic!("{body}");
            };
            assert_eq!(queue_depth, depth, "{body}");
            assert_eq!(retry_after.is_some(), wait.is_some(), "{body}");
            assert!(retry_after.map(|wait| wait.as_secs_f64()) >= wait, "{body}");
        }
    }

    #[test]
    fn no_response_makes_it_panic() {
        const TOKENS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "null",
            "1e999",
            "-1",
            "\u{e9}",
            "\"type\"",
            "\"try_again\"",
            "\"status\"",
            "\"completed\"",
            "\"failed\"",
            "\"pending\"",
            "\"result\"",
            "\"error\"",
            "\"category\"",
            "\"retry_after_ms\"",
            "\"queue_state\"",
            "\"queue_depth\"",
            "\"message\"",
            "{\"error\":",
            "{\"status\":",
        ];
        arbtest::arbtest(|u| {
            let mut body = Vec::new();
            for _ in 0..u.int_in_range(0..=24)? {
                if u.ratio(1, 8)? {
                    body.push(u.arbitrary()?);
                } else {
                    body.extend_from_slice(u.choose(TOKENS)?.as_bytes());
                }
            }
            let status = *u.choose(&[200_u16, 200, 200, 408, 400, 410, 429, 503])?;
            let is_object =
                serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
            match classify(status, &body) {
                PollResponse::Done(result) => {
                    assert!(status == 200);
                    assert!(serde_json::from_slice::<IgnoredAny>(result).is_ok());
                }
                PollResponse::Malformed if status == 200 => assert!(!is_object),
                _ => {}
            }
            Ok(())
        })
        .budget_ms(500);
    }
}
