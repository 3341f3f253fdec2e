//! The request and the result of each call.

use crate::on_each_stack;
use crate::runtimes::{KEY, Site, Stack, builder, site};
use serde_json::json;
use std::time::Duration;
use tinkex_telemetry::Config;
use tinkex_telemetry::client::{
    AdamParams, ClientError, Datum, EndReason, LoraConfig, Loss, LossFn, ModelInput, NewModel,
    SampleRequest, SamplingModel, SamplingParams, ServiceClient, StopReason,
};
use tinkex_telemetry::collector::{Collector, Reply};

on_each_stack! {
    a_session_is_created_with_tags_metadata_version_project_and_name,
    heartbeats_come_every_ten_seconds_and_stop_at_a_410,
    a_session_is_finished_with_its_reason,
    a_close_tolerates_an_older_server_without_finish,
    capabilities_are_requested_with_a_get,
    samplers_are_numbered_from_zero,
    a_sample_is_submitted_and_its_result_is_typed,
    a_429_repeats_the_same_sample_request,
    compute_logprobs_returns_the_logprobs_of_the_prompt,
    a_model_is_created_with_its_lora_config,
    training_calls_have_the_documented_requests_and_results,
    weights_are_saved_and_loaded,
    a_sampling_client_uses_the_current_weights,
    plain_calls_are_retried_after_transient_failures,
    plain_calls_fail_at_once_after_permanent_errors,
    every_request_has_the_protocol_headers,
    a_long_result_is_read_completely,
}

fn prompt() -> ModelInput {
    ModelInput::from_tokens([5, 6])
}

fn a_session_is_created_with_tags_metadata_version_project_and_name<W: Stack>() {
    let collector = Collector::start().unwrap();
    let stack = W::default();
    let service = builder::<W>(&collector)
        .tags(["a", "b"])
        .user_metadata("who", "me")
        .project("p-1")
        .display_name("the run")
        .sdk_version("9.9.9")
        .connect();
    let service = stack.wait(service).unwrap();
    let call = &collector.backend().calls_of("create_session")[0];
    assert_eq!(
        *call.body(),
        json!({
            "tags": ["a", "b"], "user_metadata": { "who": "me" }, "sdk_version": "9.9.9",
            "project_id": "p-1", "display_name": "the run", "type": "create_session",
        })
    );
    let id = service.session_id();
    assert_eq!(id, format!("session-{}-1", collector.addr().port()));
    assert!(service.telemetry().is_some());
    let _ = stack.block_on(service.close());
    let session = collector.session(id).unwrap();
    assert_eq!(session.sdk_version(), "9.9.9");
}

fn heartbeats_come_every_ten_seconds_and_stop_at_a_410<W: Stack>() {
    let collector = Collector::start().unwrap();
    let name = "session_heartbeat";
    let replies = [Reply::status(503), Reply::json(&json!({}))];
    collector.backend().script(name, replies);
    collector.backend().script(name, [Reply::status(410)]);
    let stack = W::default();
    let service = stack.wait(builder::<W>(&collector).connect()).unwrap();
    assert!(
        collector
            .backend()
            .wait_for(name, 3, Duration::from_secs(60))
    );
    let drain = stack.block_on(service.close());
    assert!(drain.all_delivered());
    let beats = collector.backend().calls_of(name);
    let body = json!({ "session_id": service.session_id(), "type": "session_heartbeat" });
    assert!(beats.iter().all(|beat| *beat.body() == body));
    let statuses: Vec<_> = beats.iter().map(|beat| beat.status()).collect();
    assert_eq!(statuses, [Some(503), Some(200), Some(410)]);
}

fn a_session_is_finished_with_its_reason<W: Stack>() {
    let site = site::<W>();
    let end = site.service.close_as(EndReason::Errored, "no more data");
    assert!(site.stack.block_on(end).all_delivered());
    let finish = site.only("finish");
    assert_eq!(
        *finish.body(),
        json!({ "reason": { "type": "errored" }, "detail": "no more data" })
    );
    // Only once.
    site.close();
    site.only("finish");
}

fn a_close_tolerates_an_older_server_without_finish<W: Stack>() {
    let site = site::<W>();
    site.backend.always("finish", Reply::status(404));
    assert!(site.close().has_ended());
    site.only("finish");
}

fn capabilities_are_requested_with_a_get<W: Stack>() {
    let site = site::<W>();
    let found = site.wait(site.service.get_server_capabilities()).unwrap();
    let names: Vec<_> = found
        .supported_models
        .iter()
        .map(|model| &*model.model_name)
        .collect();
    assert_eq!(names, ["small", "large"]);
    assert_eq!(found.supported_models[0].max_context_length, Some(32_768));
}

fn samplers_are_numbered_from_zero<W: Stack>() {
    let site = site::<W>();
    let first = site.sampler();
    let path = SamplingModel::from("tinker://x/y");
    let _second = site
        .wait(site.service.create_sampling_client(path))
        .unwrap();
    assert_eq!(first.sampling_session_id(), "sampler-1");
    let calls = site.backend.calls_of("create_sampling_session");
    assert_eq!(
        *calls[0].body(),
        json!({
            "session_id": site.service.session_id(), "sampling_session_seq_id": 0, "base_model": "small",
            "type": "create_sampling_session",
        })
    );
    assert_eq!(
        *calls[1].body(),
        json!({
            "session_id": site.service.session_id(), "sampling_session_seq_id": 1,
            "model_path": "tinker://x/y", "type": "create_sampling_session",
        })
    );
}

fn a_sample_is_submitted_and_its_result_is_typed<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    let params = SamplingParams::new().max_tokens(3).stop(["\n"]);
    let sampled = site.wait(sampler.sample(prompt(), 2, params)).unwrap();
    assert_eq!(sampled.sequences.len(), 2);
    let sequence = &sampled.sequences[0];
    assert_eq!(sequence.tokens, [1, 2, 3]);
    assert_eq!(sequence.stop_reason, StopReason::Length);
    let call = site.only("asample");
    assert_eq!(
        *call.body(),
        json!({
            "sampling_session_id": "sampler-1", "seq_id": 0, "num_samples": 2,
            "prompt": { "chunks": [{ "type": "encoded_text", "tokens": [5, 6] }] },
            "sampling_params": {
                "max_tokens": 3, "stop": ["\n"], "temperature": 1.0, "top_k": -1, "top_p": 1.0,
            },
            "prompt_logprobs": false, "topk_prompt_logprobs": 0, "type": "sample",
        })
    );
    assert_eq!(call.header("x-tinker-sampling-backpressure"), Some("1"));
    site.wait(sampler.sample(prompt(), 1, SamplingParams::new()))
        .unwrap();
    assert_eq!(site.backend.calls_of("asample")[1].body()["seq_id"], 1);
}

fn a_429_repeats_the_same_sample_request<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    let busy = [Reply::status(429), Reply::status(429)];
    site.backend.script("asample", busy);
    site.wait(sampler.sample(prompt(), 1, SamplingParams::new()))
        .unwrap();
    let calls = site.backend.calls_of("asample");
    assert_eq!(calls.len(), 3);
    let key = calls[0]
        .header("x-idempotency-key")
        .expect("an idempotency key");
    for call in &calls {
        assert_eq!(call.body(), calls[0].body());
        assert_eq!(call.header("x-idempotency-key"), Some(key));
    }
}

fn compute_logprobs_returns_the_logprobs_of_the_prompt<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    let logprobs = site.wait(sampler.compute_logprobs(prompt())).unwrap();
    assert_eq!(logprobs, [None, Some(-0.25)]);
    let body = site.only("asample").body().clone();
    assert_eq!(body["prompt_logprobs"], true);
    assert_eq!(body["num_samples"], 1);
    let request = SampleRequest::new(prompt()).num_samples(2);
    let sampled = site.wait(sampler.sample_with(request.topk_prompt_logprobs(3)));
    let tops = sampled.unwrap().topk_prompt_logprobs.unwrap();
    assert_eq!(tops[1].as_ref().map(Vec::len), Some(3));
    let body = site.backend.calls_of("asample")[1].body().clone();
    assert_eq!(body["prompt_logprobs"], true);
    assert_eq!(body["topk_prompt_logprobs"], 3);
    site.backend.result("Sample", json!({ "sequences": [] }));
    let error = site.wait(sampler.compute_logprobs(prompt())).unwrap_err();
    assert!(
        matches!(error, ClientError::InvalidResponse { .. }),
        "{error}"
    );
}

fn a_model_is_created_with_its_lora_config<W: Stack>() {
    let site = site::<W>();
    let lora = LoraConfig::rank(4).seed(7).train_unembed(false);
    let model = NewModel::from(lora).user_metadata("run", "7");
    let call = site.service.create_training_client("large", model);
    let training = site.wait(call).unwrap();
    assert_eq!(training.model_id(), "model-1");
    assert_eq!(
        *site.only("create_model").body(),
        json!({
            "session_id": site.service.session_id(), "model_seq_id": 0, "base_model": "large",
            "lora_config": {
                "rank": 4, "seed": 7, "train_unembed": false, "train_mlp": true, "train_attn": true,
            },
            "user_metadata": { "run": "7" }, "type": "create_model",
        })
    );
    let poll = site.only("retrieve_future");
    assert_eq!(poll.header("x-tinker-request-type"), Some("CreateModel"));
    let info = site.wait(training.get_info()).unwrap();
    assert_eq!(info.model_id, "model-1");
    assert_eq!(info.lora_rank, Some(32));
    assert_eq!(info.model_data.arch.as_deref(), Some("transformer"));
    assert_eq!(
        *site.only("get_info").body(),
        json!({ "model_id": "model-1", "type": "get_info" })
    );
}

fn training_calls_have_the_documented_requests_and_results<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    let data = [Datum::new(prompt()).input("target_tokens", vec![6_i64, 7])];
    let datum = json!({
        "model_input": { "chunks": [{ "type": "encoded_text", "tokens": [5, 6] }] },
        "loss_fn_inputs": { "target_tokens": { "data": [6, 7], "dtype": "int64", "shape": [2] } },
    });
    let loss = Loss::from(LossFn::Ppo).config("clip", 0.5);
    let result = site.wait(training.forward(&data, loss)).unwrap();
    assert_eq!(result.loss_fn_output_type, "TensorData");
    assert_eq!(result.metrics["loss:sum"], 0.5);
    assert_eq!(
        result.loss_fn_outputs[0]["logprobs"].floats(),
        Some(&[-0.5][..])
    );
    let input = json!({ "data": [datum], "loss_fn": "ppo", "loss_fn_config": { "clip": 0.5 } });
    assert_eq!(
        *site.only("forward").body(),
        json!({ "forward_input": input, "model_id": "model-1", "seq_id": 1 })
    );
    site.wait(training.forward_backward(&data, LossFn::CrossEntropy))
        .unwrap();
    let input = json!({ "data": [datum], "loss_fn": "cross_entropy" });
    assert_eq!(
        *site.only("forward_backward").body(),
        json!({ "forward_backward_input": input, "model_id": "model-1", "seq_id": 2 })
    );
    let step = AdamParams::learning_rate(0.5).weight_decay(0.25);
    let step = site.wait(training.optim_step(step)).unwrap();
    assert_eq!(step.metrics.unwrap()["grad_norm"], 0.5);
    assert_eq!(
        *site.only("optim_step").body(),
        json!({
            "adam_params": {
                "learning_rate": 0.5, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12, "weight_decay": 0.25,
            },
            "model_id": "model-1", "seq_id": 3,
        })
    );
    let kinds: Vec<_> = site
        .backend
        .calls_of("retrieve_future")
        .iter()
        .filter_map(|poll| poll.header("x-tinker-request-type").map(str::to_owned))
        .collect();
    assert_eq!(
        kinds,
        ["CreateModel", "Forward", "ForwardBackward", "OptimStep"]
    );
}

fn weights_are_saved_and_loaded<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    let saved = site.wait(training.save_weights("a")).unwrap();
    assert_eq!(saved.path, "tinker://model-1/weights/a");
    let loaded = site
        .wait(training.load_weights_with_optimizer(&saved.path))
        .unwrap();
    assert_eq!(loaded.path, Some(saved.path));
    let saved = site.wait(training.save_weights_for_sampler("b")).unwrap();
    assert_eq!(saved.path, "tinker://model-1/sampler_weights/b");
    assert_eq!(
        *site.only("save_weights").body(),
        json!({ "model_id": "model-1", "path": "a", "seq_id": 1 })
    );
    assert_eq!(
        *site.only("load_weights").body(),
        json!({
            "model_id": "model-1", "path": "tinker://model-1/weights/a", "optimizer": true,
            "seq_id": 2,
        })
    );
    assert_eq!(
        *site.only("save_weights_for_sampler").body(),
        json!({ "model_id": "model-1", "path": "b", "seq_id": 3 })
    );
}

fn a_sampling_client_uses_the_current_weights<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    let _first = site.sampler();
    let sampler = site.wait(training.create_sampling_client()).unwrap();
    assert_eq!(sampler.sampling_session_id(), "sampler-2");
    assert_eq!(
        *site.only("save_weights_for_sampler").body(),
        json!({ "model_id": "model-1", "sampling_session_seq_id": 1, "seq_id": 1 })
    );
}

fn plain_calls_are_retried_after_transient_failures<W: Stack>() {
    let site = site::<W>();
    let name = "get_server_capabilities";
    for reply in [
        Reply::status(408),
        Reply::status(409),
        Reply::status(429),
        Reply::status(500),
        Reply::status(503),
        Reply::close_after_body(),
    ] {
        let before = site.backend.calls_of(name).len();
        site.backend.script(name, [reply]);
        site.wait(site.service.get_server_capabilities()).unwrap();
        // An HTTP client may itself retry when its connection was closed.
        assert!(site.backend.calls_of(name).len() >= before + 2);
    }
}

fn plain_calls_fail_at_once_after_permanent_errors<W: Stack>() {
    let site = site::<W>();
    let name = "get_server_capabilities";
    for status in [302, 400, 401, 403, 404, 410, 422] {
        let before = site.backend.calls_of(name).len();
        let body = format!("{{\"error\":\"no, {KEY}\"}}");
        let reply = Reply::status(status).body(body);
        site.backend.script(name, [reply]);
        let result = site.wait(site.service.get_server_capabilities());
        let error = result.expect_err(&status.to_string());
        assert_eq!(error.status(), Some(status));
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("no, [redacted]"), "{shown}");
        assert_eq!(site.backend.calls_of(name).len(), before + 1);
    }
}

fn every_request_has_the_protocol_headers<W: Stack>() {
    let collector = Collector::builder().api_key(KEY).start().unwrap();
    let config = Config::new(&collector.url(), KEY)
        .and_then(|config| config.header("cf-access-client-id", "someone"))
        .unwrap();
    let stack = W::default();
    let service = ServiceClient::builder(config)
        .http(W::http())
        .runtime(W::runtime())
        .telemetry(|telemetry| telemetry.enabled(true));
    let service = stack.wait(service.connect()).unwrap();
    let sampler = stack.wait(service.create_sampling_client("small")).unwrap();
    stack
        .wait(sampler.sample(prompt(), 1, SamplingParams::new()))
        .unwrap();
    let _ = stack.block_on(service.close());
    let calls = collector.backend().calls();
    for call in &calls {
        assert_eq!(call.header("accept"), Some("application/json"));
        assert_eq!(call.header("x-api-key"), Some(KEY));
        assert_eq!(call.header("cf-access-client-id"), Some("someone"));
        assert!(call.header("user-agent").is_some());
        let has_key = call.header("x-idempotency-key").is_some();
        let is_repeated = ["retrieve_future", "session_heartbeat"].contains(&call.name());
        assert_eq!(has_key, !is_repeated, "{}", call.name());
    }
    assert!(calls.len() >= 5);
}

fn a_long_result_is_read_completely<W: Stack>() {
    let site: Site<W> = site();
    let sampler = site.sampler();
    let tokens: Vec<u32> = (0..200_000).collect();
    let result = json!({ "sequences": [{ "tokens": tokens, "stop_reason": "stop" }] });
    assert!(result.to_string().len() > 16 * tinkex_telemetry::http::MAX_RESPONSE_BYTES);
    site.backend.result("Sample", result);
    let sampled = site
        .wait(sampler.sample(prompt(), 1, SamplingParams::new()))
        .unwrap();
    assert_eq!(sampled.sequences[0].tokens, tokens);
}
