//! The sampling client.

use super::api::Call;
use super::call::Backpressure;
use super::error::{ClientError, Result};
use super::input::{ModelInput, SampleRequest, SamplingParams};
use super::kind::RequestKind;
use super::output::Sampled;
use super::pending::Pending;
use super::progress::Progress;
use super::session::ClientSession;
use super::submission::Submission;
use super::usage::Tokens;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

/// The model to sample from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SamplingModel {
    /// A base model, by its name.
    Base(String),
    /// Weights [saved for a sampler](super::TrainingClient::save_weights_for_sampler), by their path.
    Path(String),
}

/// A path if the text begins with `tinker://`, else a base model.
impl From<&str> for SamplingModel {
    fn from(name: &str) -> Self {
        if name.starts_with("tinker://") {
            Self::Path(name.into())
        } else {
            Self::Base(name.into())
        }
    }
}

/// Samples from a model. Clones share the client. Dropping it cancels none of its calls, and leaves the session open
/// for other clients.
#[derive(Clone)]
pub struct SamplingClient(Arc<Inner>);

struct Inner {
    session: Arc<ClientSession>,
    id: Box<str>,
    /// The name under which its tokens are counted.
    model: Box<str>,
    next_seq_id: AtomicU64,
    backpressure: Backpressure,
}

#[derive(Serialize)]
struct NewSampler<'a> {
    session_id: &'a str,
    sampling_session_seq_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_path: Option<&'a str>,
    r#type: &'static str,
}

#[derive(Deserialize)]
struct CreatedSampler {
    sampling_session_id: Box<str>,
}

#[derive(Serialize)]
struct Sample<'a> {
    sampling_session_id: &'a str,
    seq_id: u64,
    num_samples: u32,
    prompt: &'a ModelInput,
    sampling_params: &'a SamplingParams,
    prompt_logprobs: bool,
    topk_prompt_logprobs: u32,
    r#type: &'static str,
}

impl SamplingClient {
    pub(super) async fn create(
        session: Arc<ClientSession>,
        model: SamplingModel,
        progress: &Progress,
    ) -> Result<Self> {
        let (base_model, model_path) = match &model {
            SamplingModel::Base(name) => (Some(name.as_str()), None),
            SamplingModel::Path(path) => (None, Some(path.as_str())),
        };
        let body = NewSampler {
            session_id: &session.id,
            sampling_session_seq_id: session.next_sampler_seq_id(),
            base_model,
            model_path,
            r#type: "create_sampling_session",
        };
        let name = "create_sampling_session";
        let call = Call::post(&session.api, name, name, &body)?;
        let created: CreatedSampler = session.api.ask(&call, progress).await?;
        let (SamplingModel::Base(model) | SamplingModel::Path(model)) = model;
        Ok(Self::new(
            session,
            created.sampling_session_id,
            model.into(),
        ))
    }

    pub(super) fn new(session: Arc<ClientSession>, id: Box<str>, model: Box<str>) -> Self {
        Self(Arc::new(Inner {
            session,
            id,
            model,
            next_seq_id: AtomicU64::new(0),
            backpressure: Backpressure::default(),
        }))
    }

    /// The client's id, which the backend has assigned.
    #[must_use]
    pub fn sampling_session_id(&self) -> &str {
        &self.0.id
    }

    /// Samples `num_samples` continuations of `prompt`.
    ///
    /// While the backend is overloaded, all samples of this client wait before they are submitted: 1 s after it
    /// refuses one, or 5 s if that one's body is larger than 128 KiB.
    pub fn sample(
        &self,
        prompt: impl Into<ModelInput>,
        num_samples: u32,
        params: SamplingParams,
    ) -> Pending<Sampled> {
        let request = SampleRequest::new(prompt);
        self.sample_with(request.num_samples(num_samples).params(params))
    }

    /// Computes the log probability of each token of `prompt`; the first has none.
    pub fn compute_logprobs(&self, prompt: impl Into<ModelInput>) -> Pending<Vec<Option<f32>>> {
        let request = SampleRequest::new(prompt)
            .params(SamplingParams::new().max_tokens(1))
            .prompt_logprobs(true);
        let sampled = self.sample_with(request);
        // `sampled` reports its own errors, this call the others.
        self.0.session.run(async move {
            let missing =
                || ClientError::invalid_response("compute_logprobs", "it has no prompt_logprobs");
            sampled.await?.prompt_logprobs.ok_or_else(missing)
        })
    }

    /// [`sample`](Self::sample), with all options.
    pub fn sample_with(&self, request: SampleRequest) -> Pending<Sampled> {
        let inner = Arc::clone(&self.0);
        let progress = Arc::<Progress>::default();
        let listed = Arc::clone(&progress);
        let name = RequestKind::Sample.name();
        self.0.session.run_listed(name, listed, async move {
            let (api, backpressure) = (&inner.session.api, Some(&inner.backpressure));
            let body = Sample {
                sampling_session_id: &inner.id,
                seq_id: inner.next_seq_id.fetch_add(1, Ordering::Relaxed),
                num_samples: request.num_samples,
                prompt: &request.prompt,
                sampling_params: &request.params,
                prompt_logprobs: request.prompt_logprobs,
                topk_prompt_logprobs: request.topk_prompt_logprobs,
                r#type: "sample",
            };
            let submission = Submission::new(api, RequestKind::Sample, &body, &progress)?;
            let prefilled = request.prompt.len() as u64;
            drop(request);
            let request_id = submission.submit(api, backpressure).await?;
            let queue_watch = &inner.session.queue_watch;
            let sampled: Sampled = submission
                .result(api, queue_watch, backpressure, request_id)
                .await?;
            let cached = sampled.prompt_cache_hit_tokens.unwrap_or_default();
            let lens = sampled.sequences.iter().map(|one| one.tokens.len() as u64);
            let tokens = Tokens {
                prefilled,
                cached: cached.min(prefilled),
                sampled: lens.sum(),
                trained: 0,
            };
            inner.session.usage.add(&inner.model, tokens);
            Ok(sampled)
        })
    }
}

impl fmt::Debug for SamplingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SamplingClient")
            .field("sampling_session_id", &self.0.id)
            .finish_non_exhaustive()
    }
}
