//! Sampling from a model.

use super::api::Call;
use super::call::Backpressure;
use super::error::{ClientError, Result};
use super::input::{ModelInput, SampleRequest, SamplingParams};
use super::kind::RequestKind;
use super::output::Sampled;
use super::pending::Pending;
use super::session::ClientSession;
use super::submission::Submission;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

/// What is sampled from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SamplingModel {
    /// A base model, by its name.
    Base(String),
    /// Weights that were [saved for a sampler](super::TrainingClient::save_weights_for_sampler), by their path.
    Path(String),
}

/// A base model; a path, if it begins with `tinker://`.
impl From<&str> for SamplingModel {
    fn from(name: &str) -> Self {
        if name.starts_with("tinker://") {
            Self::Path(name.into())
        } else {
            Self::Base(name.into())
        }
    }
}

/// Samples from a model. Clones are the same client. Dropping it ends neither the session nor calls under way.
#[derive(Clone)]
pub struct SamplingClient(Arc<Inner>);

struct Inner {
    session: Arc<ClientSession>,
    id: Box<str>,
    seq: AtomicU64,
    busy: Backpressure,
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
struct Created {
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
    pub(super) async fn create(session: Arc<ClientSession>, model: SamplingModel) -> Result<Self> {
        let (base_model, model_path) = match &model {
            SamplingModel::Base(name) => (Some(name.as_str()), None),
            SamplingModel::Path(path) => (None, Some(path.as_str())),
        };
        let body = NewSampler {
            session_id: &session.id,
            sampling_session_seq_id: session.next_sampler(),
            base_model,
            model_path,
            r#type: "create_sampling_session",
        };
        let name = "create_sampling_session";
        let call = Call::post(&session.api, name, name, &body)?;
        let created: Created = session.api.ask(&call).await?;
        Ok(Self::new(session, created.sampling_session_id))
    }

    pub(super) fn new(session: Arc<ClientSession>, id: Box<str>) -> Self {
        Self(Arc::new(Inner {
            session,
            id,
            seq: AtomicU64::new(0),
            busy: Backpressure::default(),
        }))
    }

    /// The id that the backend has given it.
    #[must_use]
    pub fn sampling_session_id(&self) -> &str {
        &self.0.id
    }

    /// Samples `num_samples` sequences that go on from `prompt`.
    ///
    /// When the backend has too much to do, all samples of this client wait a moment before they are submitted.
    pub fn sample(
        &self,
        prompt: impl Into<ModelInput>,
        num_samples: u32,
        params: SamplingParams,
    ) -> Pending<Sampled> {
        let request = SampleRequest::new(prompt);
        self.sample_with(request.num_samples(num_samples).params(params))
    }

    /// The logarithm of the probability of each token of `prompt`; the first has none.
    pub fn compute_logprobs(&self, prompt: impl Into<ModelInput>) -> Pending<Vec<Option<f32>>> {
        let request = SampleRequest::new(prompt)
            .params(SamplingParams::new().max_tokens(1))
            .prompt_logprobs(true);
        let sampled = self.sample_with(request);
        // The call inside reports what it fails with, and this one the rest.
        self.0.session.run(async move {
            let missing =
                || ClientError::invalid_response("compute_logprobs", "it has no prompt_logprobs");
            sampled.await?.prompt_logprobs.ok_or_else(missing)
        })
    }

    /// [`sample`](Self::sample), with all that can be asked for.
    pub fn sample_with(&self, request: SampleRequest) -> Pending<Sampled> {
        let inner = Arc::clone(&self.0);
        self.0.session.run(async move {
            let (api, busy) = (&inner.session.api, Some(&inner.busy));
            let body = Sample {
                sampling_session_id: &inner.id,
                seq_id: inner.seq.fetch_add(1, Ordering::Relaxed),
                num_samples: request.num_samples,
                prompt: &request.prompt,
                sampling_params: &request.params,
                prompt_logprobs: request.prompt_logprobs,
                topk_prompt_logprobs: request.topk_prompt_logprobs,
                r#type: "sample",
            };
            let submission = Submission::new(api, RequestKind::Sample, &body)?;
            drop(request);
            let request_id = submission.submit(api, busy).await?;
            let queue_watch = &inner.session.queue_watch;
            submission.result(api, queue_watch, busy, request_id).await
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
