//! The effect of each response to a poll for a result.

use crate::on_each_stack;
use crate::runtimes::{KEY, Site, Stack, data_of, site, try_again};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tinkex_telemetry::client::{Category, ClientError, Result, Sampled, SamplingParams};
use tinkex_telemetry::collector::Reply;

on_each_stack! {
    a_bare_or_completed_result_ends_the_polling,
    a_queued_request_is_polled_again_and_its_state_is_reported,
    a_pending_request_is_polled_again,
    metadata_alone_triggers_another_poll,
    a_failed_request_has_the_category_of_its_error,
    an_expired_request_is_resubmitted_a_limited_number_of_times,
    a_poll_with_a_transient_status_is_repeated,
    a_poll_whose_connection_breaks_is_repeated,
    a_400_or_a_malformed_response_is_retried_three_times,
    a_refused_poll_fails_the_call,
}

const POLL: &str = "retrieve_future";

/// Samples once with these replies to the polls. Returns the result and the number of polls.
fn sample<W: Stack>(
    site: &Site<W>,
    replies: impl IntoIterator<Item = Reply>,
) -> (Result<Sampled>, usize) {
    let sampler = site.sampler();
    let before = site.backend.calls_of(POLL).len();
    site.backend.script(POLL, replies);
    let result = site.wait(sampler.sample(vec![1], 1, SamplingParams::new().max_tokens(2)));
    (result, site.backend.calls_of(POLL).len() - before)
}

fn tokens(result: Result<Sampled>) -> Vec<u32> {
    result.expect("a result").sequences.swap_remove(0).tokens
}

fn a_bare_or_completed_result_ends_the_polling<W: Stack>() {
    let site = site::<W>();
    let bare = json!({ "sequences": [{ "tokens": [7], "stop_reason": "stop" }] });
    let wrapped = json!({ "status": "completed", "result": bare });
    for body in [bare, wrapped] {
        let (result, polls) = sample(&site, [Reply::json(&body)]);
        assert_eq!((tokens(result), polls), (vec![7], 1));
    }
    let (result, _) = sample(&site, [Reply::json(&json!({ "sequences": 5 }))]);
    assert!(
        matches!(result, Err(ClientError::InvalidResponse { .. })),
        "{result:?}"
    );
}

fn a_queued_request_is_polled_again_and_its_state_is_reported<W: Stack>() {
    let site = site::<W>();
    let late = Reply::status(408)
        .body(json!({ "type": "try_again", "queue_state": "paused_rate_limit" }).to_string());
    let reason = json!({ "queue_state_reason": "no room", "retry_after_ms": 20 });
    let replies = [
        try_again("active", &json!({})),
        try_again("paused_capacity", &reason),
        try_again("paused_capacity", &reason),
        late,
        try_again("of tomorrow", &json!({ "retry_after_ms": 1 })),
    ];
    let (result, polls) = sample(&site, replies);
    assert_eq!((tokens(result), polls), (vec![1, 2], 6));
    let iterations: Vec<_> = site
        .backend
        .calls_of(POLL)
        .iter()
        .filter_map(|poll| {
            poll.header("x-tinker-request-iteration")?
                .parse::<u32>()
                .ok()
        })
        .collect();
    assert_eq!(iterations, [0, 1, 2, 3, 4, 5]);
    let changes = data_of(&site.close(), "tinkex.queue.state_change");
    let calls = changes.clone();
    let changes: Vec<_> = changes
        .iter()
        .map(|change| {
            let metadata = &change["metadata"];
            assert_eq!(metadata["request_id"], "request-1");
            assert_eq!(metadata["call"], calls[0]["metadata"]["call"]);
            (metadata["to"].clone(), metadata["reason"].clone())
        })
        .collect();
    assert_eq!(
        changes,
        [
            (json!("active"), Value::Null),
            (json!("paused_capacity"), json!("no room")),
            (json!("paused_rate_limit"), Value::Null),
            (json!("unknown"), Value::Null),
            (json!("active"), Value::Null),
        ]
    );
}

fn a_pending_request_is_polled_again<W: Stack>() {
    let site = site::<W>();
    let pending = Reply::json(&json!({ "status": "pending" }));
    let (result, polls) = sample(&site, [pending.clone(), pending]);
    assert_eq!((tokens(result), polls), (vec![1, 2], 3));
}

fn metadata_alone_triggers_another_poll<W: Stack>() {
    let site = site::<W>();
    let metadata = json!({ "status": "complete_metadata", "response_payload_size": 7 });
    let (result, polls) = sample(&site, [Reply::json(&metadata)]);
    assert_eq!((tokens(result), polls), (vec![1, 2], 2));
    let bodies: Vec<_> = site
        .backend
        .calls_of(POLL)
        .iter()
        .map(|poll| poll.body().clone())
        .collect();
    assert_eq!(
        bodies,
        [
            json!({ "request_id": "request-1" }),
            json!({ "request_id": "request-1", "allow_metadata_only": false }),
        ]
    );
}

fn a_failed_request_has_the_category_of_its_error<W: Stack>() {
    let site = site::<W>();
    for (category, word) in [
        (Category::User, "user"),
        (Category::Server, "server"),
        (Category::Unknown, "unknown"),
    ] {
        let flat = json!({ "error": format!("no {KEY}"), "category": word });
        let nested = json!({
            "status": "failed", "error": { "category": word, "message": format!("no {KEY}") },
        });
        for body in [flat, nested] {
            let (result, polls) = sample(&site, [Reply::json(&body)]);
            let error = result.expect_err("the request failed");
            assert_eq!((error.category(), polls), (category, 1));
            assert_eq!(error.to_string(), "sample failed: no [redacted]");
            assert!(error.request_id().is_some());
            assert!(!format!("{error:?}").contains(KEY));
        }
    }
}

fn an_expired_request_is_resubmitted_a_limited_number_of_times<W: Stack>() {
    let site = site::<W>();
    let (result, polls) = sample(&site, [Reply::status(410), Reply::status(410)]);
    assert_eq!((tokens(result), polls), (vec![1, 2], 3));
    let submitted = site.backend.calls_of("asample");
    assert_eq!(submitted.len(), 3);
    assert!(
        submitted
            .iter()
            .all(|call| call.body() == submitted[0].body())
    );
    // Under a new key: with the old one, the backend might return the old response.
    let keys = submitted
        .iter()
        .filter_map(|call| call.header("x-idempotency-key"));
    assert_eq!(keys.collect::<BTreeSet<_>>().len(), 3);
    let ids = site.backend.calls_of(POLL);
    let ids: Vec<_> = ids
        .iter()
        .map(|poll| poll.body()["request_id"].clone())
        .collect();
    assert_eq!(ids, ["request-1", "request-2", "request-3"]);

    site.backend.always(POLL, Reply::status(410));
    let (result, polls) = sample(&site, []);
    assert!(
        matches!(result, Err(ClientError::Expired { .. })),
        "{result:?}"
    );
    assert_eq!(polls, 4);
}

fn a_poll_with_a_transient_status_is_repeated<W: Stack>() {
    let site = site::<W>();
    for status in [408, 429, 500, 503] {
        let (result, polls) = sample(&site, [Reply::status(status)]);
        assert_eq!((tokens(result), polls), (vec![1, 2], 2), "{status}");
    }
}

fn a_poll_whose_connection_breaks_is_repeated<W: Stack>() {
    let site = site::<W>();
    for reply in [Reply::close_after_body(), Reply::garbage()] {
        let (result, polls) = sample(&site, [reply]);
        assert_eq!(tokens(result), [1, 2]);
        assert!(polls >= 2);
    }
}

fn a_400_or_a_malformed_response_is_retried_three_times<W: Stack>() {
    let site = site::<W>();
    let wrong = || Reply::status(400);
    let (result, polls) = sample(&site, [wrong(), wrong(), wrong()]);
    assert_eq!((tokens(result), polls), (vec![1, 2], 4));
    let (result, polls) = sample(&site, [wrong(), wrong(), wrong(), wrong()]);
    let error = result.expect_err("the poll is refused");
    assert_eq!((error.status(), polls), (Some(400), 4));
    assert_eq!(error.category(), Category::User);
    // A malformed response counts like a 400.
    let nonsense = || Reply::status(200).body("nonsense");
    let replies = [nonsense(), nonsense(), nonsense(), nonsense()];
    let (result, polls) = sample(&site, replies);
    assert!(
        matches!(result, Err(ClientError::InvalidResponse { .. })),
        "{result:?}"
    );
    assert_eq!(polls, 4);
}

fn a_refused_poll_fails_the_call<W: Stack>() {
    let site = site::<W>();
    for status in [401, 403, 404, 422] {
        let (result, polls) = sample(&site, [Reply::status(status)]);
        let error = result.expect_err("the poll is refused");
        assert_eq!((error.status(), polls), (Some(status), 1));
    }
}
