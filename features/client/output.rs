//! The results of calls.

use super::memory::decode;
use super::tensor::TensorData;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the backend supports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerCapabilities {
    /// The supported models.
    #[serde(default)]
    pub supported_models: Vec<SupportedModel>,
}

/// A model that the backend supports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SupportedModel {
    /// The name.
    pub model_name: String,
    /// The maximum number of tokens in its context, if the backend says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_context_length: Option<u64>,
    /// Further properties.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The result of [`sample`](super::SamplingClient::sample).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sampled {
    /// The sequences, as many as requested.
    #[serde(default, deserialize_with = "decode")]
    pub sequences: Vec<Sequence>,
    /// The log probability of each token of the prompt, if requested; the first has none.
    #[serde(
        default,
        deserialize_with = "decode",
        skip_serializing_if = "Option::is_none"
    )]
    pub prompt_logprobs: Option<Vec<Option<f32>>>,
    /// The most probable tokens at each position of the prompt, if requested; the first has none.
    #[serde(
        default,
        deserialize_with = "decode",
        skip_serializing_if = "Option::is_none"
    )]
    pub topk_prompt_logprobs: Option<Vec<Option<TopTokens>>>,
    /// How many tokens of the prompt the backend took from its cache, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache_hit_tokens: Option<u64>,
}

/// Tokens with their log probabilities.
pub type TopTokens = Vec<(u32, f32)>;

/// A sampled sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sequence {
    /// The tokens.
    #[serde(deserialize_with = "decode")]
    pub tokens: Vec<u32>,
    /// The log probability of each token.
    #[serde(
        default,
        deserialize_with = "decode",
        skip_serializing_if = "Option::is_none"
    )]
    pub logprobs: Option<Vec<f32>>,
    /// The reason why it ended.
    #[serde(default)]
    pub stop_reason: StopReason,
}

/// The reason why a sequence ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It reached the maximum number of tokens.
    Length,
    /// It met a stop condition.
    Stop,
    /// Another reason, or none given.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The result of [`forward`](super::TrainingClient::forward) and
/// [`forward_backward`](super::TrainingClient::forward_backward).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ForwardBackward {
    /// The type of the outputs, in the backend's words.
    #[serde(default)]
    pub loss_fn_output_type: String,
    /// The outputs of the loss function for each datum, by name.
    #[serde(default, deserialize_with = "decode")]
    pub loss_fn_outputs: Vec<BTreeMap<String, TensorData>>,
    /// Metrics of the whole pass, by names like `loss:sum`.
    #[serde(default, deserialize_with = "decode")]
    pub metrics: BTreeMap<String, f64>,
}

/// The result of [`optim_step`](super::TrainingClient::optim_step).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OptimStep {
    /// Metrics of the step, if the backend returns any.
    #[serde(default)]
    pub metrics: Option<BTreeMap<String, f64>>,
}

/// Saved weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SavedWeights {
    /// Their path at the backend.
    pub path: String,
}

/// Loaded weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoadedWeights {
    /// The path that they were loaded from, if the backend returns it.
    #[serde(default)]
    pub path: Option<String>,
}

/// The result of [`get_info`](super::TrainingClient::get_info).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The trained model.
    pub model_data: ModelData,
    /// The model's id.
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
    /// The architecture.
    pub arch: Option<String>,
    /// The name.
    pub model_name: Option<String>,
    /// The id of the tokenizer.
    pub tokenizer_id: Option<String>,
}

/// The result of saving weights for a sampler: a path, or the id of a sampling session.
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
    fn results_may_lack_optional_keys_and_have_unknown_ones() {
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
