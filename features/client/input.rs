//! The input of a model, and the options of a sample.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The input of a model: a sequence of chunks.
///
/// ```
/// use tinkex_telemetry::client::ModelInput;
///
/// let input = ModelInput::from_tokens([1, 2]).and_tokens([3]);
/// assert_eq!(input.len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelInput {
    /// The chunks.
    pub chunks: Vec<Chunk>,
}

/// A piece of a [`ModelInput`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Chunk {
    /// Text as tokens of the model.
    EncodedText {
        /// The tokens.
        tokens: Vec<u32>,
    },
}

impl ModelInput {
    /// An empty input.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// An input of one chunk of text.
    #[must_use]
    pub fn from_tokens(tokens: impl Into<Vec<u32>>) -> Self {
        Self::new().and_tokens(tokens)
    }

    /// Appends a chunk of text.
    #[must_use]
    pub fn and_tokens(mut self, tokens: impl Into<Vec<u32>>) -> Self {
        let tokens = tokens.into();
        self.chunks.push(Chunk::EncodedText { tokens });
        self
    }

    /// The number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut len = 0;
        for Chunk::EncodedText { tokens } in &self.chunks {
            len += tokens.len();
        }
        len
    }

    /// Whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<u32>> for ModelInput {
    fn from(tokens: Vec<u32>) -> Self {
        Self::from_tokens(tokens)
    }
}

/// The parameters of sampling. An option that is `None` is left to the backend.
///
/// ```
/// use tinkex_telemetry::client::SamplingParams;
///
/// let params = SamplingParams::new().max_tokens(64).temperature(0.7).stop(["\n"]);
/// assert_eq!(params.top_k, -1);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SamplingParams {
    /// The maximum number of tokens in a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The random seed, for reproducible results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What ends a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The temperature; 0 always takes the most probable token. Default: 1.
    pub temperature: f32,
    /// Samples only from the `top_k` most probable tokens; -1 means all. Default: -1.
    pub top_k: i32,
    /// Samples only from the most probable tokens, up to a total probability of `top_p`. Default: 1.
    pub top_p: f32,
}

/// The stop condition of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Stop {
    /// One of these tokens.
    Tokens(Vec<u32>),
    /// One of these texts.
    Texts(Vec<String>),
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            max_tokens: None,
            seed: None,
            stop: None,
            temperature: 1.0,
            top_k: -1,
            top_p: 1.0,
        }
    }
}

impl SamplingParams {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`max_tokens`](Self::max_tokens).
    #[must_use]
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets [`stop`](Self::stop) to texts.
    #[must_use]
    pub fn stop<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.stop = Some(Stop::Texts(texts.into_iter().map(Into::into).collect()));
        self
    }

    /// Sets [`stop`](Self::stop) to tokens.
    #[must_use]
    pub fn stop_tokens(mut self, tokens: impl Into<Vec<u32>>) -> Self {
        self.stop = Some(Stop::Tokens(tokens.into()));
        self
    }

    /// Sets [`temperature`](Self::temperature).
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets [`top_k`](Self::top_k).
    #[must_use]
    pub fn top_k(mut self, tokens: i32) -> Self {
        self.top_k = tokens;
        self
    }

    /// Sets [`top_p`](Self::top_p).
    #[must_use]
    pub fn top_p(mut self, probability: f32) -> Self {
        self.top_p = probability;
        self
    }
}

/// A request for samples with all options, for [`sample_with`](super::SamplingClient::sample_with).
///
/// ```
/// use tinkex_telemetry::client::{ModelInput, SampleRequest};
///
/// let request = SampleRequest::new(ModelInput::from_tokens([1, 2]))
///     .num_samples(4)
///     .topk_prompt_logprobs(3);
/// assert!(request.prompt_logprobs);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SampleRequest {
    /// The text that the sequences continue.
    pub prompt: ModelInput,
    /// The number of sequences. Default: 1.
    pub num_samples: u32,
    /// The parameters of sampling.
    pub params: SamplingParams,
    /// Whether to return the log probabilities of the prompt's tokens. Default: false.
    pub prompt_logprobs: bool,
    /// The number of most probable tokens to return at each position of the prompt. Default: 0.
    pub topk_prompt_logprobs: u32,
}

impl SampleRequest {
    /// A request for one sequence, with the defaults.
    #[must_use]
    pub fn new(prompt: impl Into<ModelInput>) -> Self {
        Self {
            prompt: prompt.into(),
            num_samples: 1,
            params: SamplingParams::new(),
            prompt_logprobs: false,
            topk_prompt_logprobs: 0,
        }
    }

    /// Sets [`num_samples`](Self::num_samples).
    #[must_use]
    pub fn num_samples(mut self, sequences: u32) -> Self {
        self.num_samples = sequences;
        self
    }

    /// Sets [`params`](Self::params).
    #[must_use]
    pub fn params(mut self, params: SamplingParams) -> Self {
        self.params = params;
        self
    }

    /// Sets [`prompt_logprobs`](Self::prompt_logprobs).
    #[must_use]
    pub fn prompt_logprobs(mut self, wanted: bool) -> Self {
        self.prompt_logprobs = wanted;
        self
    }

    /// Sets [`topk_prompt_logprobs`](Self::topk_prompt_logprobs), and [`prompt_logprobs`](Self::prompt_logprobs) to
    /// true.
    #[must_use]
    pub fn topk_prompt_logprobs(mut self, tokens: u32) -> Self {
        self.topk_prompt_logprobs = tokens;
        self.prompt_logprobs(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_prompt_is_written_as_chunks_of_encoded_text() {
        let prompt = ModelInput::from_tokens([1, 2]).and_tokens([3]);
        let form = json!({ "chunks": [
            { "type": "encoded_text", "tokens": [1, 2] },
            { "type": "encoded_text", "tokens": [3] },
        ]});
        assert_eq!(to_value(&prompt).unwrap(), form);
        assert_eq!(from_value::<ModelInput>(form).unwrap(), prompt);
        assert!(ModelInput::new().is_empty());
    }

    #[test]
    fn params_have_defaults_and_omit_unset_options() {
        let form = json!({ "temperature": 1.0, "top_k": -1, "top_p": 1.0 });
        assert_eq!(to_value(SamplingParams::new()).unwrap(), form);
        let all = SamplingParams::new()
            .max_tokens(5)
            .seed(7)
            .stop(["\n"])
            .temperature(0.5)
            .top_k(40)
            .top_p(0.25);
        let form = json!({
            "max_tokens": 5, "seed": 7, "stop": ["\n"], "temperature": 0.5, "top_k": 40, "top_p": 0.25,
        });
        assert_eq!(to_value(&all).unwrap(), form);
        assert_eq!(from_value::<SamplingParams>(form).unwrap(), all);
        let tokens = SamplingParams::new().stop_tokens([2]);
        assert_eq!(to_value(tokens).unwrap()["stop"], json!([2]));
    }
}
