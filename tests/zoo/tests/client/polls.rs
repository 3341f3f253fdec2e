//! Each answer to a poll for a result has the consequence of its row.

use crate::in_each_world;
use crate::worlds::{KEY, Site, World, data_of, site, try_again};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tinkex_telemetry::client::{Category, ClientError, Result, Sampled, SamplingParams};
use tinkex_telemetry::collector::Reply;

in_each_world! {
    a_bare_result_or_a_completed_one_is_the_end,
    a_request_that_waits_is_polled_again_and_its_state_is_told,
    a_pending_one_is_polled_again,
    metadata_alone_are_not_enough,
    a_failed_request_says_whose_fault_it_was,
    a_lost_request_is_submitted_again_and_not_for_ever,
    a_backend_that_cannot_answer_is_asked_again,
    a_broken_connection_is_no_answer,
    a_wrong_poll_is_tried_three_times_more,
    a_refused_poll_is_the_end,
}

const POLL: &str = "retrieve_future";

/// Samples once while polls are answered like this; and how many polls there were.
fn sample<W: World>(
    site: &Site<W>,
    answers: impl IntoIterator<Item = Reply>,
) -> (Result<Sampled>, usize) {
    let sampler = site.sampler();
    let before = site.backend.calls_of(POLL).len();
    site.backend.script(POLL, answers);
    let result = site.wait(sampler.sample(vec![1], 1, SamplingParams::new().max_tokens(2)));
    (result, site.backend.calls_of(POLL).len() - before)
}

fn tokens(result: Result<Sampled>) -> Vec<u32> {
    result.expect("a result").sequences.swap_remove(0).tokens
}

fn a_bare_result_or_a_completed_one_is_the_end<W: World>() {
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

fn a_request_that_waits_is_polled_again_and_its_state_is_told<W: World>() {
    let site = site::<W>();
    let late = Reply::status(408)
        .body(json!({ "type": "try_again", "queue_state": "paused_rate_limit" }).to_string());
    let reason = json!({ "queue_state_reason": "no room", "retry_after_ms": 20 });
    let answers = [
        try_again("active", &json!({})),
        try_again("paused_capacity", &reason),
        try_again("paused_capacity", &reason),
        late,
        try_again("of tomorrow", &json!({ "retry_after_ms": 1 })),
    ];
    let (result, polls) = sample(&site, answers);
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
    let changes: Vec<_> = changes
        .iter()
        .map(|change| {
            let metadata = &change["metadata"];
            assert_eq!(metadata["request_id"], "request-1");
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

fn a_pending_one_is_polled_again<W: World>() {
    let site = site::<W>();
    let pending = Reply::json(&json!({ "status": "pending" }));
    let (result, polls) = sample(&site, [pending.clone(), pending]);
    assert_eq!((tokens(result), polls), (vec![1, 2], 3));
}

fn metadata_alone_are_not_enough<W: World>() {
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

fn a_failed_request_says_whose_fault_it_was<W: World>() {
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
            let error = result.expect_err("it has failed");
            assert_eq!((error.category(), polls), (category, 1));
            assert_eq!(error.to_string(), "sample failed: no [redacted]");
            assert!(error.request_id().is_some());
            assert!(!format!("{error:?}").contains(KEY));
        }
    }
}

fn a_lost_request_is_submitted_again_and_not_for_ever<W: World>() {
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
    // Under another key, or it might be answered as it was.
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

fn a_backend_that_cannot_answer_is_asked_again<W: World>() {
    let site = site::<W>();
    for status in [408, 429, 500, 503] {
        let (result, polls) = sample(&site, [Reply::status(status)]);
        assert_eq!((tokens(result), polls), (vec![1, 2], 2), "{status}");
    }
}

fn a_broken_connection_is_no_answer<W: World>() {
    let site = site::<W>();
    for answer in [Reply::close_after_body(), Reply::garbage()] {
        let (result, polls) = sample(&site, [answer]);
        assert_eq!(tokens(result), [1, 2]);
        assert!(polls >= 2);
    }
}

fn a_wrong_poll_is_tried_three_times_more<W: World>() {
    let site = site::<W>();
    let wrong = || Reply::status(400);
    let (result, polls) = sample(&site, [wrong(), wrong(), wrong()]);
    assert_eq!((tokens(result), polls), (vec![1, 2], 4));
    let (result, polls) = sample(&site, [wrong(), wrong(), wrong(), wrong()]);
    let error = result.expect_err("it is refused");
    assert_eq!((error.status(), polls), (Some(400), 4));
    assert_eq!(error.category(), Category::User);
    // An answer that is none is as good as a wrong poll.
    let nonsense = || Reply::status(200).body("nonsense");
    let answers = [nonsense(), nonsense(), nonsense(), nonsense()];
    let (result, polls) = sample(&site, answers);
    assert!(
        matches!(result, Err(ClientError::InvalidResponse { .. })),
        "{result:?}"
    );
    assert_eq!(polls, 4);
}

fn a_refused_poll_is_the_end<W: World>() {
    let site = site::<W>();
    for status in [401, 403, 404, 422] {
        let (result, polls) = sample(&site, [Reply::status(status)]);
        let error = result.expect_err("it is refused");
        assert_eq!((error.status(), polls), (Some(status), 1));
    }
}
