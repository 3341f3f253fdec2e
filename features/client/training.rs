//! The training client.

use super::api::Call;
use super::error::{ClientError, Result};
use super::kind::RequestKind;
use super::output::{
    ForwardBackward, LoadedWeights, ModelInfo, OptimStep, SavedForSampler, SavedWeights,
};
use super::params::{AdamParams, LoraConfig, Loss, NewModel};
use super::pending::Pending;
use super::progress::Progress;
use super::sampling::SamplingClient;
use super::sequencer::Sequencer;
use super::session::ClientSession;
use super::submission::Submission;
use super::tensor::{Datum, LossFn};
use super::usage::Tokens;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Trains a model. Clones share the client. Dropping it cancels none of its calls, and leaves the session open for
/// other clients.
///
/// Requests are submitted in the order of the calls, one after the other, whether they are awaited or not:
///
/// ```
/// # use tinkex_telemetry::client::{AdamParams, Datum, LossFn, Result, TrainingClient};
/// # async fn step(training: &TrainingClient, data: Vec<Datum>) -> Result<()> {
/// let gradients = training.forward_backward(data, LossFn::CrossEntropy);
/// let step = training.optim_step(AdamParams::learning_rate(1e-4));
/// println!("{:?}", gradients.await?.metrics);
/// step.await?;
/// # Ok(())
/// # }
/// ```
///
/// A call that is dropped before its request is submitted has no effect; later, the backend may still carry it out.
#[derive(Clone)]
pub struct TrainingClient(Arc<Inner>);

struct Inner {
    session: Arc<ClientSession>,
    id: Box<str>,
    base_model: Box<str>,
    sequencer: Sequencer,
}

#[derive(Serialize)]
struct CreateModel<'a> {
    session_id: &'a str,
    model_seq_id: u64,
    base_model: &'a str,
    lora_config: &'a LoraConfig,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    user_metadata: &'a BTreeMap<String, String>,
    r#type: &'static str,
}

#[derive(Deserialize)]
struct CreatedModel {
    model_id: Box<str>,
}

#[derive(Serialize)]
struct GetInfo<'a> {
    model_id: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Pass<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    forward_input: Option<PassInput<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward_backward_input: Option<PassInput<'a>>,
    model_id: &'a str,
}

#[derive(Serialize)]
struct PassInput<'a> {
    data: &'a [Datum],
    loss_fn: &'a LossFn,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    loss_fn_config: &'a BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct Step<'a> {
    adam_params: &'a AdamParams,
    model_id: &'a str,
}

#[derive(Serialize)]
struct Save<'a> {
    model_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_session_seq_id: Option<u64>,
}

#[derive(Serialize)]
struct Load<'a> {
    model_id: &'a str,
    path: &'a str,
    optimizer: bool,
}

impl TrainingClient {
    pub(super) async fn create(
        session: Arc<ClientSession>,
        base_model: String,
        model: NewModel,
        progress: &Arc<Progress>,
    ) -> Result<Self> {
        let api = &session.api;
        let body = CreateModel {
            session_id: &session.id,
            model_seq_id: session.next_model_seq_id(),
            base_model: &base_model,
            lora_config: &model.lora,
            user_metadata: &model.user_metadata,
            r#type: "create_model",
        };
        let submission = Submission::new(api, RequestKind::CreateModel, &body, progress)?;
        let id = submission.submit(api, None).await?;
        let created = submission.result(api, &session.queue_watch, None, id);
        let CreatedModel { model_id } = created.await?;
        let sequencer = Sequencer::start(api)?;
        Ok(Self(Arc::new(Inner {
            session,
            id: model_id,
            base_model: base_model.into(),
            sequencer,
        })))
    }

    /// The model's id, which the backend has assigned.
    #[must_use]
    pub fn model_id(&self) -> &str {
        &self.0.id
    }

    /// Asks the backend about the model.
    pub fn get_info(&self) -> Pending<ModelInfo> {
        let inner = Arc::clone(&self.0);
        let progress = Arc::<Progress>::default();
        let listed = Arc::clone(&progress);
        self.0.session.run_listed("get_info", listed, async move {
            let body = GetInfo {
                model_id: &inner.id,
                r#type: "get_info",
            };
            let api = &inner.session.api;
            let call = Call::post(api, "get_info", "get_info", &body)?;
            api.ask(&call, &progress).await
        })
    }

    /// Computes the loss of `data`, without gradients.
    pub fn forward(
        &self,
        data: impl AsRef<[Datum]>,
        loss: impl Into<Loss>,
    ) -> Pending<ForwardBackward> {
        let loss = loss.into();
        let tokens = Tokens {
            prefilled: token_count(data.as_ref()),
            ..Tokens::default()
        };
        let body = Pass {
            forward_input: Some(pass_input(data.as_ref(), &loss)),
            forward_backward_input: None,
            model_id: &self.0.id,
        };
        self.submit_counted(RequestKind::Forward, &body, tokens)
    }

    /// Computes the loss of `data` and accumulates its gradients.
    pub fn forward_backward(
        &self,
        data: impl AsRef<[Datum]>,
        loss: impl Into<Loss>,
    ) -> Pending<ForwardBackward> {
        let loss = loss.into();
        let tokens = Tokens {
            trained: token_count(data.as_ref()),
            ..Tokens::default()
        };
        let body = Pass {
            forward_input: None,
            forward_backward_input: Some(pass_input(data.as_ref(), &loss)),
            model_id: &self.0.id,
        };
        self.submit_counted(RequestKind::ForwardBackward, &body, tokens)
    }

    /// Applies the accumulated gradients: one step of the optimizer.
    pub fn optim_step(&self, params: AdamParams) -> Pending<OptimStep> {
        let body = Step {
            adam_params: &params,
            model_id: &self.0.id,
        };
        self.submit(RequestKind::OptimStep, &body)
    }

    /// Saves the weights and the state of the optimizer under a name. Returns a path for
    /// [`load_weights`](Self::load_weights).
    pub fn save_weights(&self, name: &str) -> Pending<SavedWeights> {
        self.submit(RequestKind::SaveWeights, &self.save_body(Some(name), None))
    }

    /// Saves the weights under a name, for sampling. Returns a path for
    /// [`SamplingModel::Path`](super::SamplingModel::Path).
    pub fn save_weights_for_sampler(&self, name: &str) -> Pending<SavedWeights> {
        let body = self.save_body(Some(name), None);
        let saved = self.submit::<SavedForSampler>(RequestKind::SaveWeightsForSampler, &body);
        self.0.session.run(async move {
            let path = saved.await?.path;
            let name = RequestKind::SaveWeightsForSampler.name();
            let missing = || ClientError::invalid_response(name, "it has no path");
            Ok(SavedWeights {
                path: path.ok_or_else(missing)?,
            })
        })
    }

    /// Creates a client that samples from the current weights.
    pub fn create_sampling_client(&self) -> Pending<SamplingClient> {
        let (session, model) = (Arc::clone(&self.0.session), self.0.base_model.clone());
        let body = self.save_body(None, Some(session.next_sampler_seq_id()));
        let saved = self.submit::<SavedForSampler>(RequestKind::SaveWeightsForSampler, &body);
        self.0.session.run(async move {
            let id = saved.await?.sampling_session_id;
            let name = RequestKind::SaveWeightsForSampler.name();
            let missing = || ClientError::invalid_response(name, "it has no sampling_session_id");
            let id = id.ok_or_else(missing)?.into();
            Ok(SamplingClient::new(session, id, model))
        })
    }

    /// Loads [saved](Self::save_weights) weights, without the state of the optimizer.
    pub fn load_weights(&self, path: &str) -> Pending<LoadedWeights> {
        self.load(path, false)
    }

    /// Loads [saved](Self::save_weights) weights and the saved state of the optimizer.
    pub fn load_weights_with_optimizer(&self, path: &str) -> Pending<LoadedWeights> {
        self.load(path, true)
    }

    fn load(&self, path: &str, optimizer: bool) -> Pending<LoadedWeights> {
        let body = Load {
            model_id: &self.0.id,
            path,
            optimizer,
        };
        self.submit(RequestKind::LoadWeights, &body)
    }

    fn save_body<'a>(&'a self, path: Option<&'a str>, sampler_seq_id: Option<u64>) -> Save<'a> {
        Save {
            model_id: &self.0.id,
            path,
            sampling_session_seq_id: sampler_seq_id,
        }
    }

    /// Queues a request at once. The returned call waits for its result.
    fn submit<T>(&self, kind: RequestKind, body: &impl Serialize) -> Pending<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.submit_counted(kind, body, Tokens::default())
    }

    /// [`submit`](Self::submit), for a request whose result uses `tokens`.
    fn submit_counted<T>(
        &self,
        kind: RequestKind,
        body: &impl Serialize,
        tokens: Tokens,
    ) -> Pending<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let progress = Arc::<Progress>::default();
        let session = Arc::clone(&self.0.session);
        let body: Result<Vec<u8>> =
            serde_json::to_vec(body).map_err(|error| ClientError::unencodable(kind.name(), &error));
        // In the child of a fork no task submits requests.
        let ticket = match session.api.is_forked() {
            true => Err(ClientError::Closed),
            false => body.map(|body| {
                let progress = Arc::clone(&progress);
                self.0.sequencer.submit(kind, body, progress)
            }),
        };
        // Keeps the task that submits alive until this request is submitted.
        let inner = Arc::clone(&self.0);
        let call = async move {
            let (submission, request_id) = ticket?.submitted().await?;
            let model = inner.base_model.clone();
            drop(inner);
            let result = submission.result(&session.api, &session.queue_watch, None, request_id);
            let result = result.await?;
            if tokens != Tokens::default() {
                session.usage.add(&model, tokens);
            }
            Ok(result)
        };
        self.0.session.run_listed(kind.name(), progress, call)
    }
}

fn token_count(data: &[Datum]) -> u64 {
    data.iter()
        .map(|datum| datum.model_input.len() as u64)
        .sum()
}

fn pass_input<'a>(data: &'a [Datum], loss: &'a Loss) -> PassInput<'a> {
    PassInput {
        data,
        loss_fn: &loss.function,
        loss_fn_config: &loss.config,
    }
}

impl fmt::Debug for TrainingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingClient")
            .field("model_id", &self.0.id)
            .finish_non_exhaustive()
    }
}
