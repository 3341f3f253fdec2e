//! Classifies responses to `retrieve_future`.

use super::error::Category;
use crate::bus::QueueState;
use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use core::time::Duration;
use serde::Deserialize;
use serde_json::Value;
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
    #[serde(borrow, default)]
    category: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<Value>,
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
        // A result may use these keys with other types; any object is one.
        return match serde_json::from_slice::<serde_json::Map<String, Value>>(body) {
            Ok(_) => PollResponse::Done(body),
            Err(_) => PollResponse::Malformed,
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
    match &envelope.error {
        Some(Value::String(_)) if envelope.kind.is_none() && envelope.result.is_none() => {
            failure(&envelope)
        }
        _ => PollResponse::Done(body),
    }
}

fn parse(body: &[u8]) -> Option<Envelope<'_>> {
    // Serde would also accept an array of the right length.
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    (first == Some(&b'{'))
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

fn try_again<'a>(envelope: &Envelope<'a>) -> Option<PollResponse<'a>> {
    if envelope.kind.as_deref() != Some("try_again") {
        return None;
    }
    let state = envelope.queue_state.as_deref().map(QueueState::parse);
    let seconds = envelope.retry_after_ms.map(|millis| millis / 1_000.0);
    let retry_after = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(PollResponse::TryAgain {
        state: state.unwrap_or_default(),
        reason: envelope.queue_state_reason.clone(),
        retry_after,
    })
}

fn failure(envelope: &Envelope<'_>) -> PollResponse<'static> {
    let of_error = |name| {
        envelope
            .error
            .as_ref()
            .and_then(|error| error[name].as_str())
    };
    let category = envelope
        .category
        .as_deref()
        .or_else(|| of_error("category"));
    let message = match &envelope.error {
        Some(Value::String(message)) => message.clone(),
        Some(error) => {
            let named = of_error("message").or_else(|| of_error("error"));
            named.map_or_else(|| alloc::format!("{error}"), ToOwned::to_owned)
        }
        None => String::new(),
    };
    PollResponse::Failed {
        category: category.map(Category::parse).unwrap_or_default(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QueueState::{Active, PausedCapacity, Unknown};

    fn try_again(
        state: QueueState,
        reason: Option<&'static str>,
        retry_after_ms: Option<u64>,
    ) -> PollResponse<'static> {
        PollResponse::TryAgain {
            state,
            reason: reason.map(Into::into),
            retry_after: retry_after_ms.map(Duration::from_millis),
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
}
