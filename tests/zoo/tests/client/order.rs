//! Training requests are submitted in call order, whatever the order of the waits.

use crate::on_each_stack;
use crate::runtimes::{Stack, site};
use bytes::Bytes;
use http::Request;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tinkex_telemetry::Config;
use tinkex_telemetry::client::{AdamParams, LoraConfig, ServiceClient};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::http::HttpClient as _;

on_each_stack! {
    requests_are_submitted_in_call_order_and_awaited_in_any_order,
    requests_are_submitted_without_being_awaited,
    a_refused_request_does_not_block_those_behind_it,
    a_panic_during_submission_reaches_the_waiting_caller_and_affects_no_other_call,
}

fn requests_are_submitted_in_call_order_and_awaited_in_any_order<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    // The first needs three attempts; all others wait for it.
    let unable = [Reply::status(503), Reply::status(503)];
    site.backend.script("save_weights", unable);
    let calls: Vec<_> = (0..5)
        .map(|n| training.save_weights(&n.to_string()))
        .collect();
    for (n, call) in calls.into_iter().enumerate().rev() {
        let path = site.wait(call).unwrap().path;
        assert_eq!(path, format!("tinker://model-1/weights/{n}"));
    }
    let submitted = site.backend.calls_of("save_weights");
    let order = submitted
        .iter()
        .map(|call| (call.body()["seq_id"].clone(), call.body()["path"].clone()));
    let expected = [
        (1, "0"),
        (1, "0"),
        (1, "0"),
        (2, "1"),
        (3, "2"),
        (4, "3"),
        (5, "4"),
    ];
    let expected = expected.map(|(seq_id, path)| (json!(seq_id), json!(path)));
    assert_eq!(order.collect::<Vec<_>>(), expected);
}

fn requests_are_submitted_without_being_awaited<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    let first = training.save_weights("a");
    let second = training.save_weights("b");
    let timeout = std::time::Duration::from_secs(60);
    assert!(site.backend.wait_for("save_weights", 2, timeout));
    // So far, only the creation of the training client has polled for a result.
    assert_eq!(site.backend.calls_of("retrieve_future").len(), 1);
    drop(training);
    site.wait(second).unwrap();
    site.wait(first).unwrap();
}

fn a_refused_request_does_not_block_those_behind_it<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    let refusal = Reply::status(422).body(r#"{"error":"no"}"#);
    site.backend.script("load_weights", [refusal]);
    // The refused request has used up its number, so without a script this backend would reject the next one.
    let promise = json!({ "request_id": "request-1" });
    site.backend.script("save_weights", [Reply::json(&promise)]);
    site.backend.result("SaveWeights", json!({ "path": "x" }));
    let refused = training.load_weights("tinker://x");
    let behind = training.save_weights("b");
    assert_eq!(site.wait(behind).unwrap().path, "x");
    assert_eq!(site.wait(refused).unwrap_err().status(), Some(422));
    assert_eq!(site.only("save_weights").body()["seq_id"], 2);
}

fn a_panic_during_submission_reaches_the_waiting_caller_and_affects_no_other_call<W: Stack>() {
    let collector = Collector::start().unwrap();
    let config = Config::new(&collector.url(), "any key").unwrap();
    let inner = W::http();
    let http = move |request: Request<Bytes>| {
        let mut inner = inner.clone();
        async move {
            if request.uri().path().ends_with("optim_step") {
                // Unwinds like a panic, but without the message of the panic hook.
                resume_unwind(Box::new("simulated"));
            }
            inner.send(request).await
        }
    };
    let stack = W::default();
    let service = ServiceClient::builder(config)
        .http(http)
        .runtime(W::runtime())
        .telemetry(|telemetry| telemetry.enabled(true));
    let service = stack.wait(service.connect()).unwrap();
    let training = service.create_training_client("small", LoraConfig::default());
    let training = stack.wait(training).unwrap();
    let step = training.optim_step(AdamParams::default());
    let panic = catch_unwind(AssertUnwindSafe(|| stack.wait(step))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"simulated"));
    // The submitting task and the session live on; only the telemetry has logged its end.
    let info = stack.wait(training.get_info()).unwrap();
    assert_eq!(info.model_id, "model-1");
    let _ = stack.block_on(service.close());
    let session = collector.session(service.session_id()).unwrap();
    let events: Vec<_> = session.events().iter().map(|event| event.value()).collect();
    let fatal = events
        .iter()
        .position(|event| event["event"] == "UNHANDLED_EXCEPTION");
    let fatal = fatal.expect("the panic is reported");
    assert_eq!(events[fatal]["error_message"], "simulated");
    assert!(
        events[fatal..]
            .iter()
            .any(|event| event["event"] == "SESSION_END")
    );
    assert!(session.has_ended());
}
