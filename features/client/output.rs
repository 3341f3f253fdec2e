//! What the backend answers.

use super::tensor::TensorData;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the backend can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerCapabilities {
    /// The models that it knows.
    #[serde(default)]
    pub supported_models: Vec<SupportedModel>,
}

/// A model that the backend knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SupportedModel {
    /// Its name.
    pub model_name: String,
    /// The most tokens that it takes, if the backend has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_context_length: Option<u64>,
    /// What else the backend says of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What [`sample`](super::SamplingClient::sample) comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sampled {
    /// The sequences, as many as were asked for.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// The logarithm of the probability of each token of the prompt, where it was asked for; the first has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<f32>>>,
    /// The most probable tokens at each place of the prompt, where they were asked for; the first has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topk_prompt_logprobs: Option<Vec<Option<TopTokens>>>,
}

/// Tokens, each with the logarithm of its probability.
pub type TopTokens = Vec<(u32, f32)>;

/// A sequence that was sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sequence {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The logarithm of the probability of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// Why it ends.
    #[serde(default)]
    pub stop_reason: StopReason,
}

/// Why a sequence ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It has as many tokens as it may.
    Length,
    /// One of the stops was met.
    Stop,
    /// Something else, or the backend has not said.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What [`forward`](super::TrainingClient::forward) and
/// [`forward_backward`](super::TrainingClient::forward_backward) come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ForwardBackward {
    /// The kind of the outputs, in the backend's words.
    #[serde(default)]
    pub loss_fn_output_type: String,
    /// What the loss function gave for each datum, by its own names.
    #[serde(default)]
    pub loss_fn_outputs: Vec<BTreeMap<String, TensorData>>,
    /// Numbers about the whole, by names like `loss:sum`.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

/// What [`optim_step`](super::TrainingClient::optim_step) comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OptimStep {
    /// Numbers about the step, if the backend gives any.
    #[serde(default)]
    pub metrics: Option<BTreeMap<String, f64>>,
}

/// Weights that were saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SavedWeights {
    /// Where the backend has them.
    pub path: String,
}

/// Weights that were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoadedWeights {
    /// Where they came from, if the backend says so.
    #[serde(default)]
    pub path: Option<String>,
}

/// What [`get_info`](super::TrainingClient::get_info) comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The model that is trained.
    pub model_data: ModelData,
    /// Its id.
    pub model_id: String,
    /// Whether an adapter is trained.
    #[serde(default)]
    pub is_lora: Option<bool>,
    /// The adapter's rank.
    #[serde(default)]
    pub lora_rank: Option<u32>,
    /// The base model's name.
    #[serde(default)]
    pub model_name: Option<String>,
}

/// The model behind a [`ModelInfo`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ModelData {
    /// Its architecture.
    pub arch: Option<String>,
    /// Its name.
    pub model_name: Option<String>,
    /// Which tokenizer it has.
    pub tokenizer_id: Option<String>,
}

/// What has the id of a session to sample in, or the path of weights that a sampler can use.
#[derive(Deserialize)]
pub(super) struct SavedForSampler {
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) sampling_session_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn answers_are_read_with_what_they_need_not_have_and_with_what_is_not_known() {
        let sampled: Sampled = from_value(json!({
            "type": "sample",
            "sequences": [
                { "tokens": [1], "logprobs": [-0.5], "stop_reason": "stop" },
                { "tokens": [], "stop_reason": "length" },
                { "tokens": [], "stop_reason": "of tomorrow" },
            ],
            "prompt_logprobs": [null, -1.5],
            "topk_prompt_logprobs": [null, [[7, -0.25]]],
        }))
        .unwrap();
        let reasons = sampled
            .sequences
            .iter()
            .map(|sequence| sequence.stop_reason);
        let expected = [StopReason::Stop, StopReason::Length, StopReason::Unknown];
        assert!(reasons.eq(expected));
        assert_eq!(sampled.prompt_logprobs.unwrap(), [None, Some(-1.5)]);
        let tops = [None, Some(TopTokens::from([(7, -0.25)]))];
        assert_eq!(sampled.topk_prompt_logprobs.unwrap(), tops);

        let models = json!({ "supported_models": [{ "model_name": "m", "colour": "blue" }] });
        let models: ServerCapabilities = from_value(models).unwrap();
        assert_eq!(models.supported_models[0].other["colour"], "blue");

        let step: OptimStep = from_value(json!({})).unwrap();
        assert_eq!(step.metrics, None);
        let info = json!({ "model_data": { "arch": "a" }, "model_id": "m", "is_lora": true });
        let info: ModelInfo = from_value(info).unwrap();
        assert_eq!(info.model_data.arch.as_deref(), Some("a"));
    }
}
