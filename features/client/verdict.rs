//! What an answer to `retrieve_future` says. The whole table of answers is here.

use super::error::Category;
use crate::bus::QueueState;
use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use core::time::Duration;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What an answer says of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<'a> {
    /// It is done: this is the result.
    Done(&'a [u8]),
    /// It waits, and says how.
    TryAgain {
        state: QueueState,
        reason: Option<Cow<'a, str>>,
        after: Option<Duration>,
    },
    /// It is under way.
    Pending,
    /// It is done, and the result is to be asked for in full.
    Metadata,
    /// It has failed.
    Failed { category: Category, message: String },
    /// The backend has lost it.
    Expired,
    /// The backend could not answer now.
    Unable,
    /// The backend has too much to do.
    Busy,
    /// The poll was wrong, or its answer cannot be read. That may pass.
    Odd,
    /// The poll was refused for good.
    Refused,
}

/// What an answer may have besides a result.
#[derive(Deserialize)]
struct Head<'a> {
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

/// Judges an answer.
pub(super) fn judge(status: u16, body: &[u8]) -> Verdict<'_> {
    match status {
        200..300 => judge_body(body),
        408 => match read(body).as_ref().and_then(try_again_of) {
            Some(verdict) => verdict,
            None => Verdict::Unable,
        },
        500.. => Verdict::Unable,
        410 => Verdict::Expired,
        429 => Verdict::Busy,
        400 => Verdict::Odd,
        _ => Verdict::Refused,
    }
}

fn judge_body(body: &[u8]) -> Verdict<'_> {
    let Some(head) = read(body) else {
        // A result may have keys of these names with other types in them, but it is an object.
        return match serde_json::from_slice::<serde_json::Map<String, Value>>(body) {
            Ok(_) => Verdict::Done(body),
            Err(_) => Verdict::Odd,
        };
    };
    if let Some(verdict) = try_again_of(&head) {
        return verdict;
    }
    match head.status.as_deref() {
        Some("pending") => return Verdict::Pending,
        Some("complete_metadata") => return Verdict::Metadata,
        Some("completed") => {
            let result = head.result.map_or(body, |result| result.get().as_bytes());
            return Verdict::Done(result);
        }
        _ => {}
    }
    let has_failed = head.status.as_deref() == Some("failed");
    if has_failed || (head.error.is_some() && head.category.is_some()) {
        return failed(&head);
    }
    // Alone it is an error, too; beside a result it is part of that.
    match &head.error {
        Some(Value::String(_)) if head.kind.is_none() && head.result.is_none() => failed(&head),
        _ => Verdict::Done(body),
    }
}

fn read(body: &[u8]) -> Option<Head<'_>> {
    // A list of the right length would be one, too.
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    (first == Some(&b'{'))
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

fn try_again_of<'a>(head: &Head<'a>) -> Option<Verdict<'a>> {
    if head.kind.as_deref() != Some("try_again") {
        return None;
    }
    let state = head.queue_state.as_deref().map(QueueState::parse);
    let seconds = head.retry_after_ms.map(|millis| millis / 1_000.0);
    let after = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(Verdict::TryAgain {
        state: state.unwrap_or_default(),
        reason: head.queue_state_reason.clone(),
        after,
    })
}

fn failed(head: &Head<'_>) -> Verdict<'static> {
    let of_error = |name| head.error.as_ref().and_then(|error| error[name].as_str());
    let category = head.category.as_deref().or_else(|| of_error("category"));
    let message = match &head.error {
        Some(Value::String(message)) => message.clone(),
        Some(error) => {
            let named = of_error("message").or_else(|| of_error("error"));
            named.map_or_else(|| alloc::format!("{error}"), ToOwned::to_owned)
        }
        None => String::new(),
    };
    Verdict::Failed {
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
        after_ms: Option<u64>,
    ) -> Verdict<'static> {
        Verdict::TryAgain {
            state,
            reason: reason.map(Into::into),
            after: after_ms.map(Duration::from_millis),
        }
    }

    fn failure(category: Category, message: &str) -> Verdict<'static> {
        Verdict::Failed {
            category,
            message: message.into(),
        }
    }

    #[test]
    fn every_answer_has_its_verdict() {
        let bare = r#"{"type": "sample", "sequences": []}"#;
        let capacity = r#"{"type":"try_again","request_id":"r","queue_state":" Paused_Capacity",
            "queue_state_reason":"no room","retry_after_ms":250}"#;
        let rows = [
            (200, bare, Verdict::Done(bare.as_bytes())),
            (
                200,
                r#"{"status":"completed","result":{"path": 1}}"#,
                Verdict::Done(br#"{"path": 1}"#),
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
            (200, r#"{"status":"pending"}"#, Verdict::Pending),
            (
                200,
                r#"{"status":"complete_metadata","response_payload_size":7}"#,
                Verdict::Metadata,
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
            (410, "", Verdict::Expired),
            (408, "", Verdict::Unable),
            (408, r#"{"status":"pending"}"#, Verdict::Unable),
            (500, bare, Verdict::Unable),
            (599, "", Verdict::Unable),
            (429, "", Verdict::Busy),
            (400, "", Verdict::Odd),
            (200, "", Verdict::Odd),
            (200, "[]", Verdict::Odd),
            (200, "{\"type\":", Verdict::Odd),
            (401, "", Verdict::Refused),
            (404, "", Verdict::Refused),
            (307, "", Verdict::Refused),
        ];
        for (status, body, expected) in rows {
            assert_eq!(judge(status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_result_may_have_keys_of_the_same_names() {
        for body in [
            r#"{"status":5,"path":"x"}"#,
            r#"{"error":{"of":1},"type":"x"}"#,
        ] {
            assert_eq!(judge(200, body.as_bytes()), Verdict::Done(body.as_bytes()));
        }
    }
}
