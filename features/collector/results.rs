//! The default results: a valid one for each kind of request.

use alloc::{format, vec::Vec};

use serde_json::{Value, json};

pub(super) fn capabilities() -> Value {
    json!({ "supported_models": [
        { "model_name": "small", "max_context_length": 32_768 },
        { "model_name": "large", "max_context_length": 131_072 },
    ]})
}

pub(super) fn info(body: &Value) -> Value {
    json!({
        "model_data": { "arch": "transformer", "model_name": "small", "tokenizer_id": "small" },
        "model_id": body["model_id"],
        "is_lora": true,
        "lora_rank": 32,
        "model_name": "small",
    })
}

/// The result of a request; `models` and `samplers` number the models and samplers that it creates.
pub(super) fn result(name: &str, request: &Value, models: u64, samplers: &mut u64) -> Value {
    let path = |folder: &str| {
        let name = request["path"].as_str().unwrap_or_default();
        let model = request["model_id"].as_str().unwrap_or_default();
        json!({ "path": format!("tinker://{model}/{folder}/{name}") })
    };
    match name {
        "asample" => sample_result(request),
        "create_model" => json!({ "model_id": format!("model-{models}") }),
        "forward" => forward_result(&request["forward_input"]),
        "forward_backward" => forward_result(&request["forward_backward_input"]),
        "optim_step" => json!({ "metrics": { "grad_norm": 0.5 } }),
        "save_weights" => path("weights"),
        "save_weights_for_sampler" if request.get("path").is_some() => path("sampler_weights"),
        "save_weights_for_sampler" => {
            *samplers += 1;
            json!({ "sampling_session_id": format!("sampler-{samplers}") })
        }
        "load_weights" => json!({ "path": request["path"] }),
        _ => json!({}),
    }
}

fn sample_result(request: &Value) -> Value {
    let max_tokens = request["sampling_params"]["max_tokens"]
        .as_u64()
        .unwrap_or(4);
    let tokens: Vec<_> = (1..=max_tokens.min(64)).collect();
    let logprobs: Vec<_> = tokens.iter().map(|_| -0.5).collect();
    let sequence = json!({ "tokens": tokens, "logprobs": logprobs, "stop_reason": "length" });
    let count = request["num_samples"].as_u64().unwrap_or(1).min(64);
    let sequences: Vec<_> = (0..count).map(|_| sequence.clone()).collect();
    let mut result = json!({ "type": "sample", "sequences": sequences });
    if request["prompt_logprobs"] == true {
        let chunks = request["prompt"]["chunks"].as_array();
        let chunks = chunks.into_iter().flatten();
        let len: usize = chunks
            .filter_map(|chunk| Some(chunk["tokens"].as_array()?.len()))
            .sum();
        let logprobs: Vec<_> = (0..len)
            .map(|at| if at == 0 { Value::Null } else { json!(-0.25) })
            .collect();
        result["prompt_logprobs"] = logprobs.into();
        let topk = request["topk_prompt_logprobs"]
            .as_u64()
            .unwrap_or(0)
            .min(64);
        if topk > 0 {
            let tokens: Vec<_> = (1..=topk).map(|token| json!([token, -0.25])).collect();
            let tops = (0..len).map(|at| if at == 0 { Value::Null } else { json!(tokens) });
            result["topk_prompt_logprobs"] = tops.collect::<Vec<_>>().into();
        }
    }
    result
}

fn forward_result(input: &Value) -> Value {
    let data = input["data"].as_array();
    let outputs: Vec<_> = data
        .into_iter()
        .flatten()
        .map(|_| json!({ "logprobs": { "data": [-0.5], "dtype": "float32", "shape": [1] } }))
        .collect();
    json!({
        "loss_fn_output_type": "TensorData",
        "loss_fn_outputs": outputs,
        "metrics": { "loss:sum": 0.5 },
    })
}
