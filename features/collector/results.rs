//! The default results: a valid one for each kind of request.

use alloc::{borrow::Cow, format, vec::Vec};

use serde_json::{Value, json};

use super::super::wire::json::{self, Object, Raw};

/// The object in a request's body, read in place: a decoded [`Value`] may take thirty times the memory. Other JSON is an
/// object without members.
pub(super) struct Input<'a>(Option<Object<'a>>);

impl<'a> Input<'a> {
    pub(super) fn read(body: &'a [u8]) -> Self {
        let text = core::str::from_utf8(body).ok();
        Self(text.and_then(|text| Object::read(text).ok()))
    }

    pub(super) fn get(&self, key: &str) -> Option<Raw<'a>> {
        self.0.as_ref()?.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).and_then(json::string)
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.get().parse().ok()
    }

    fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|raw| raw.get() == "true")
    }

    pub(super) fn has_any<const N: usize>(&self, keys: [&str; N]) -> bool {
        keys.iter().any(|key| self.get(key).is_some())
    }

    pub(super) fn object(&self, key: &str) -> Self {
        let object = self.get(key).and_then(|raw| Object::of(raw).ok());
        Self(object)
    }

    fn len_of(&self, key: &str) -> usize {
        self.get(key).map_or(0, json::array_len)
    }

    fn objects(&self, key: &str) -> Vec<Input<'a>> {
        let items = self.get(key).and_then(Raw::items).into_iter().flatten();
        items.map(|raw| Input(Object::of(raw).ok())).collect()
    }
}

pub(super) fn capabilities() -> Value {
    json!({ "supported_models": [
        { "model_name": "small", "max_context_length": 32_768 },
        { "model_name": "large", "max_context_length": 131_072 },
    ]})
}

pub(super) fn info(body: &Input<'_>) -> Value {
    json!({
        "model_data": { "arch": "transformer", "model_name": "small", "tokenizer_id": "small" },
        "model_id": body.text("model_id"),
        "is_lora": true,
        "lora_rank": 32,
        "model_name": "small",
    })
}

pub(super) fn weights_info() -> Value {
    json!({ "base_model": "small", "is_lora": true, "lora_rank": 32 })
}

/// The response to a request whose result is then polled for.
pub(super) fn accepted(name: &str, request: &Input<'_>, id: &str) -> Value {
    let mut accepted = json!({ "request_id": id });
    if name == "asample" {
        let ids: Vec<_> = (0..samples(request))
            .map(|at| format!("{id}-{at}"))
            .collect();
        accepted["sample_sequence_ids"] = ids.into();
    }
    accepted
}

/// The number of sequences in the result of a sample.
fn samples(request: &Input<'_>) -> u64 {
    request.number("num_samples").unwrap_or(1).min(64)
}

/// The result of a request; `models` and `samplers` number the models and samplers that it creates.
pub(super) fn result(name: &str, request: &Input<'_>, models: u64, samplers: &mut u64) -> Value {
    let path = |folder: &str| {
        let name = request.text("path").unwrap_or_default();
        let model = request.text("model_id").unwrap_or_default();
        json!({ "path": format!("tinker://{model}/{folder}/{name}") })
    };
    match name {
        "asample" => sample_result(request),
        "create_model" => json!({ "model_id": format!("model-{models}") }),
        "forward" => forward_result(&request.object("forward_input")),
        "forward_backward" => forward_result(&request.object("forward_backward_input")),
        "optim_step" => json!({ "metrics": { "grad_norm": 0.5 } }),
        "save_weights" => path("weights"),
        "save_weights_for_sampler" if request.get("path").is_some() => path("sampler_weights"),
        "save_weights_for_sampler" => {
            *samplers += 1;
            json!({ "sampling_session_id": format!("sampler-{samplers}") })
        }
        "load_weights" if request.get("session_id").is_some() => {
            json!({ "path": request.text("path"), "model_id": format!("model-{models}") })
        }
        "load_weights" => json!({ "path": request.text("path") }),
        "unload_model" => json!({ "model_id": request.text("model_id") }),
        _ => json!({}),
    }
}

/// How many numbers the result of a request has, about.
pub(super) fn entries(name: &str, request: &Input<'_>) -> u64 {
    let len = match name {
        "asample" if request.is_true("prompt_logprobs") => {
            let chunks = request.object("prompt").objects("chunks");
            let tops = request.number("topk_prompt_logprobs").unwrap_or(0).min(64);
            let len: usize = chunks.iter().map(|chunk| chunk.len_of("tokens")).sum();
            return (len as u64).saturating_mul(tops + 1);
        }
        "forward" => request.object("forward_input").len_of("data"),
        "forward_backward" => request.object("forward_backward_input").len_of("data"),
        _ => 0,
    };
    // Each has a text and a list as well.
    (len as u64).saturating_mul(8)
}

fn sample_result(request: &Input<'_>) -> Value {
    let params = request.object("sampling_params");
    let max_tokens = params.number("max_tokens").unwrap_or(4);
    let tokens: Vec<_> = (1..=max_tokens.min(64)).collect();
    let logprobs: Vec<_> = tokens.iter().map(|_| -0.5).collect();
    let sequence = json!({ "tokens": tokens, "logprobs": logprobs, "stop_reason": "length" });
    let sequences: Vec<_> = (0..samples(request)).map(|_| sequence.clone()).collect();
    let mut result = json!({ "type": "sample", "sequences": sequences });
    if request.is_true("prompt_logprobs") {
        let chunks = request.object("prompt").objects("chunks");
        let len: usize = chunks.iter().map(|chunk| chunk.len_of("tokens")).sum();
        let logprobs: Vec<_> = (0..len)
            .map(|at| if at == 0 { Value::Null } else { json!(-0.25) })
            .collect();
        result["prompt_logprobs"] = logprobs.into();
        let topk = request.number("topk_prompt_logprobs").unwrap_or(0).min(64);
        if topk > 0 {
            let tokens: Vec<_> = (1..=topk).map(|token| json!([token, -0.25])).collect();
            let tops = (0..len).map(|at| if at == 0 { Value::Null } else { json!(tokens) });
            result["topk_prompt_logprobs"] = tops.collect::<Vec<_>>().into();
        }
    }
    result
}

fn forward_result(input: &Input<'_>) -> Value {
    let outputs: Vec<_> = (0..input.len_of("data"))
        .map(|_| json!({ "logprobs": { "data": [-0.5], "dtype": "float32", "shape": [1] } }))
        .collect();
    json!({
        "loss_fn_output_type": "TensorData",
        "loss_fn_outputs": outputs,
        "metrics": { "loss:sum": 0.5 },
    })
}
