//! What the versions of clients send to the backend, and how they ask for results.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tinkex_telemetry::collector::{Backend, Collector};

use crate::client::*;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// The fields 1 (`model_id`: m), 2 (`seq_id`), 3 (a datum of one chunk, the tokens 7 and 8) and 4 (`loss_fn`: ppo).
fn pass(seq_id: u8) -> Vec<u8> {
    let mut bytes = vec![0x0a, 1, b'm', 0x10, seq_id];
    bytes.extend([
        0x1a, 14, 0x0a, 12, 0x0a, 10, 0x0a, 8, 7, 0, 0, 0, 8, 0, 0, 0,
    ]);
    bytes.extend([0x22, 3, b'p', b'p', b'o']);
    bytes
}

fn post(
    backend: &Backend,
    call: &str,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut request = Request::post(format!("http://any/api/v1/{call}"))
        .body(body.into())
        .expect("a request");
    for (name, value) in headers {
        let value = value.parse().expect("a header");
        request.headers_mut().insert(*name, value);
    }
    backend.reply(&request).response().expect("a response")
}

fn answer(backend: &Backend, call: &str, body: &Value) -> Value {
    let response = post(backend, call, &[], body.to_string());
    assert_eq!(response.status(), 200, "{call}: {response:?}");
    serde_json::from_slice(response.body()).expect("JSON")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers["content-type"].to_str().expect("text")
}

#[test]
fn a_pass_may_be_sent_in_protobuf_and_is_recorded_with_the_keys_of_json() {
    let backend = Backend::new();
    let sent = [("content-type", PROTOBUF)];
    let response = post(&backend, "forward_backward", &sent, pass(1));
    assert_eq!(response.status(), 200, "{response:?}");
    let chunks = json!([{ "type": "encoded_text", "tokens": [7, 8] }]);
    let data = json!([{ "model_input": { "chunks": chunks }, "loss_fn_inputs": {} }]);
    let input = json!({ "data": data, "loss_fn": "ppo" });
    let expected = json!({ "forward_backward_input": input, "model_id": "m", "seq_id": 1 });
    assert_eq!(*backend.calls()[0].body(), expected);
    // Its number counts like any other.
    let response = post(&backend, "forward_backward", &sent, pass(3));
    assert_eq!(response.status(), 400);
}

#[test]
fn results_come_in_protobuf_to_those_who_accept_it() {
    let backend = Backend::new();
    let sent = [("content-type", PROTOBUF)];
    post(&backend, "forward_backward", &sent, pass(1));
    let sample = json!({
        "sampling_session_id": "sampler-1", "seq_id": 0, "num_samples": 2, "prompt": { "chunks": [] },
        "sampling_params": { "max_tokens": 1 }, "type": "sample",
    });
    let accepted = answer(&backend, "asample", &sample);
    let ids = json!(["request-2-0", "request-2-1"]);
    assert_eq!(accepted["sample_sequence_ids"], ids);
    let step = json!({ "adam_params": {}, "model_id": "m", "seq_id": 2 });
    answer(&backend, "optim_step", &step);
    for (request, is_spoken) in [
        ("request-1", true),
        ("request-2", true),
        ("request-3", false),
    ] {
        let poll = json!({ "request_id": request }).to_string();
        for (accept, expected) in [
            (JSON, JSON),
            (PROTOBUF, if is_spoken { PROTOBUF } else { JSON }),
            (
                "text/html, Application/X-Protobuf;q=0.9",
                if is_spoken { PROTOBUF } else { JSON },
            ),
            ("application/x-protobuffer", JSON),
        ] {
            let response = post(
                &backend,
                "retrieve_future",
                &[("accept", accept)],
                poll.clone(),
            );
            assert_eq!(
                content_type(response.headers()),
                expected,
                "{request} {accept}"
            );
        }
    }
    let poll = json!({ "request_id": "request-2" }).to_string();
    let response = post(&backend, "retrieve_future", &[("accept", PROTOBUF)], poll);
    // Two sequences, each with its reason, one token, and one log probability.
    let sequence = [
        &[0x0a, 14, 0x08, 1, 0x12, 4, 1, 0, 0, 0, 0x1a, 4][..],
        &(-0.5_f32).to_le_bytes(),
    ]
    .concat();
    assert_eq!(response.body()[..], [&sequence[..], &sequence].concat());
}

#[test]
fn a_failure_that_is_scripted_as_a_result_stays_json() {
    let backend = Backend::new();
    post(
        &backend,
        "forward_backward",
        &[("content-type", PROTOBUF)],
        pass(1),
    );
    let failed = json!({ "error": "no", "category": "user" });
    backend.result("ForwardBackward", failed.clone());
    let headers = [
        ("accept", PROTOBUF),
        ("x-tinker-request-type", "ForwardBackward"),
    ];
    let poll = json!({ "request_id": "request-1" }).to_string();
    let response = post(&backend, "retrieve_future", &headers, poll);
    assert_eq!(content_type(response.headers()), JSON);
    assert_eq!(
        serde_json::from_slice::<Value>(response.body()).ok(),
        Some(failed)
    );
}

#[test]
fn bodies_that_cannot_be_read_are_refused_with_the_reason() {
    let backend = Backend::new();
    let mut cut_short = pass(1);
    cut_short.pop();
    let cases = [
        (
            "forward_backward",
            PROTOBUF,
            "",
            cut_short,
            400,
            "the message ends within a field",
        ),
        (
            "optim_step",
            PROTOBUF,
            "",
            pass(1),
            415,
            "optim_step is not spoken in protobuf",
        ),
        (
            "forward_backward",
            PROTOBUF,
            "zstd",
            pass(1),
            415,
            "content-encoding zstd",
        ),
    ];
    for (call, content_type, encoding, body, status, reason) in cases {
        let mut headers = vec![("content-type", content_type)];
        if !encoding.is_empty() {
            headers.push(("content-encoding", encoding));
        }
        let response = post(&backend, call, &headers, body);
        assert_eq!(response.status(), status);
        let text = String::from_utf8_lossy(response.body()).into_owned();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn a_strict_backend_requires_what_every_version_sends() {
    let collector = Collector::start().expect("starts");
    for (call, body, expected) in [
        (
            "create_session",
            json!({ "tags": [], "user_metadata": {}, "sdk_version": "1" }),
            200,
        ),
        (
            "create_session",
            json!({ "tags": [], "user_metadata": {} }),
            422,
        ),
        (
            "optim_step",
            json!({ "optimizer_params": {}, "model_id": "a", "seq_id": 1 }),
            200,
        ),
        ("optim_step", json!({ "model_id": "a", "seq_id": 2 }), 422),
        (
            "asample",
            json!({ "base_model": "small", "prompt": {}, "sampling_params": {} }),
            200,
        ),
        (
            "asample",
            json!({ "prompt": {}, "sampling_params": {} }),
            422,
        ),
        (
            "join_sampling_session",
            json!({ "sampling_session_id": "sampler-1" }),
            200,
        ),
        ("weights_info", json!({ "tinker_path": "tinker://a" }), 200),
        ("unload_model", json!({ "model_id": "a" }), 200),
        ("cancel_future", json!({ "request_id": "request-1" }), 200),
        ("cancel_future", json!({}), 422),
    ] {
        let line = format!("POST /api/v1/{call}");
        let response = exchange(&collector, &line, &HEADERS, body.to_string().as_bytes());
        assert_eq!(status(&response), expected, "{call} {body}: {response}");
    }
}

#[test]
fn a_load_may_create_its_model() {
    let backend = Backend::new();
    let load = json!({
        "session_id": "session-1", "model_seq_id": 0, "path": "tinker://a", "optimizer": false,
    });
    answer(&backend, "load_weights", &load);
    let loaded = answer(
        &backend,
        "retrieve_future",
        &json!({ "request_id": "request-1" }),
    );
    assert_eq!(
        loaded,
        json!({ "path": "tinker://a", "model_id": "model-1" })
    );
}

#[test]
fn a_sampling_session_is_told_which_of_its_requests_are_done() {
    let backend = Backend::new();
    let sample = |session: &str| {
        let body = json!({
            "sampling_session_id": session, "seq_id": 0, "prompt": {}, "sampling_params": {},
        });
        answer(&backend, "asample", &body);
    };
    let poll = |cursor: u64| {
        let target = json!({ "type": "sampling_session", "sampling_session_id": "a" });
        answer(
            &backend,
            "retrieve_futures",
            &json!({ "target": target, "prev_cursor": cursor }),
        )
    };
    ["a", "b", "a"].into_iter().for_each(sample);
    let done = |id: &str| json!({ "state": "finished", "request_id": id });
    let expected = json!({ "completions": [done("request-1"), done("request-3")], "cursor": 3 });
    assert_eq!(poll(0), expected);
    sample("a");
    let expected = json!({ "completions": [done("request-4")], "cursor": 4 });
    assert_eq!(poll(3), expected);
    assert_eq!(poll(u64::MAX), json!({ "completions": [], "cursor": 4 }));
}
