//! Waiting for the result of a request that the backend has taken.

use super::error::{ClientError, Result};
use super::link::{Call, Headers, Link, MAX_BYTES};
use super::plain::{Backpressure, backoff, read};
use super::queue::Queue;
use super::verdict::{Verdict, judge};
use crate::bus::QueueState;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How long a poll may take: the backend answers when there is something to say.
const TIMEOUT: Duration = Duration::from_secs(45);
/// How long to wait with a request that waits without the backend's saying so.
const GAP: Duration = Duration::from_millis(100);
/// How often an odd answer is taken for something that passes.
const MAX_ODD: u32 = 3;
/// How often a request is submitted again.
const MAX_SUBMITS: u32 = 3;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sample,
    CreateModel,
    Forward,
    ForwardBackward,
    OptimStep,
    SaveWeights,
    SaveWeightsForSampler,
    LoadWeights,
}

impl Kind {
    /// What `X-Tinker-Request-Type` says.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sample => "Sample",
            Self::CreateModel => "CreateModel",
            Self::Forward => "Forward",
            Self::ForwardBackward => "ForwardBackward",
            Self::OptimStep => "OptimStep",
            Self::SaveWeights => "SaveWeights",
            Self::SaveWeightsForSampler => "SaveWeightsForSampler",
            Self::LoadWeights => "LoadWeights",
        }
    }

    /// How errors name the call.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::CreateModel => "create_model",
            Self::Forward => "forward",
            Self::ForwardBackward => "forward_backward",
            Self::OptimStep => "optim_step",
            Self::SaveWeights => "save_weights",
            Self::SaveWeightsForSampler => "save_weights_for_sampler",
            Self::LoadWeights => "load_weights",
        }
    }

    /// Its path behind `/api/v1/`.
    const fn path(self) -> &'static str {
        match self {
            Self::Sample => "asample",
            other => other.name(),
        }
    }
}

/// A request that the backend answers with a promise.
pub(super) struct Submission {
    pub(super) kind: Kind,
    call: Call,
}

/// What a submission is answered.
#[derive(Deserialize)]
struct Promise {
    request_id: String,
}

#[derive(Serialize)]
struct Retrieve<'a> {
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_metadata_only: Option<bool>,
}

/// How a promise ended.
enum Kept {
    Result(Bytes, core::ops::Range<usize>),
    Expired,
}

impl Submission {
    pub(super) fn new(link: &Link, kind: Kind, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::unencodable(kind.name(), &error))?;
        Ok(Self::with_body(link, kind, body))
    }

    pub(super) fn with_body(link: &Link, kind: Kind, body: Vec<u8>) -> Self {
        let mut call = Call::with_body(link, kind.name(), kind.path(), body);
        if kind == Kind::Sample {
            call.headers = Headers::Backpressure;
        }
        Self { kind, call }
    }

    async fn submit_again(&mut self, link: &Link, busy: Option<&Backpressure>) -> Result<String> {
        // Under the key that it had, it might be answered as it was.
        self.call.key = Some(link.key());
        self.submit(link, busy).await
    }

    /// Submits it. The id under which the backend has it.
    pub(super) async fn submit(&self, link: &Link, busy: Option<&Backpressure>) -> Result<String> {
        let name = self.kind.name();
        let body = link.call(&self.call, busy).await?;
        match read::<Promise>(name, &body) {
            Ok(promise) => Ok(promise.request_id),
            // It may have failed at once.
            Err(error) => match judge(200, &body) {
                Verdict::Failed { category, message } => Err(ClientError::Failed {
                    call: name,
                    request_id: String::new(),
                    category,
                    message: link.excerpt(message.as_bytes()),
                }),
                _ => Err(error),
            },
        }
    }

    /// Waits for the result of a request that was submitted; when the backend loses it, it is submitted again.
    pub(super) async fn result<T: DeserializeOwned>(
        mut self,
        link: &Link,
        queue: &Queue,
        busy: Option<&Backpressure>,
        mut request_id: String,
    ) -> Result<T> {
        let mut submits = 1;
        loop {
            let watched = queue.watch(&request_id, self.kind);
            let kept = self.retrieve(link, &watched, &request_id).await?;
            match kept {
                Kept::Result(body, range) => {
                    watched.observe(QueueState::Active, None);
                    return read(self.kind.name(), &body[range]);
                }
                Kept::Expired if submits > MAX_SUBMITS => {
                    drop(watched);
                    let call = self.kind.name();
                    return Err(ClientError::Expired { call, request_id });
                }
                Kept::Expired => {}
            }
            drop(watched);
            submits += 1;
            request_id = self.submit_again(link, busy).await?;
        }
    }

    async fn retrieve(
        &self,
        link: &Link,
        watched: &super::queue::Watched<'_>,
        request_id: &str,
    ) -> Result<Kept> {
        let name = self.kind.name();
        let (mut iteration, mut failures, mut rounds, mut odd) = (0, 0, 0, 0);
        let mut allow_metadata_only = None;
        loop {
            let body = Retrieve {
                request_id,
                allow_metadata_only,
            };
            let mut call = Call::post(link, name, "retrieve_future", &body)?;
            call.headers = Headers::Poll(iteration, self.kind.as_str());
            call.timeout = TIMEOUT;
            call.key = None;
            iteration = iteration.wrapping_add(1);
            let Ok(answer) = link.exchange(&call, failures).await else {
                link.sleep(backoff(failures)).await;
                failures += 1;
                continue;
            };
            let (status, body) = (answer.status().as_u16(), answer.into_body());
            let verdict = judge(status, &body);
            let is_understood = matches!(
                verdict,
                Verdict::TryAgain { .. } | Verdict::Pending | Verdict::Metadata
            );
            if is_understood {
                (failures, odd) = (0, 0);
            }
            let wait = match verdict {
                Verdict::Done(result) => {
                    let start = result.as_ptr().addr() - body.as_ptr().addr();
                    let range = start..start + result.len();
                    return Ok(Kept::Result(body, range));
                }
                Verdict::Failed { category, message } => {
                    watched.observe(QueueState::Active, None);
                    return Err(ClientError::Failed {
                        call: name,
                        request_id: request_id.into(),
                        category,
                        message: link.excerpt(message.as_bytes()),
                    });
                }
                Verdict::Expired => return Ok(Kept::Expired),
                Verdict::Refused => return Err(link.refused(name, status, &body)),
                Verdict::Odd if body.len() >= MAX_BYTES => {
                    return Err(ClientError::answer(name, "it is longer than 64 MiB"));
                }
                Verdict::Odd if odd >= MAX_ODD && status == 400 => {
                    return Err(link.refused(name, status, &body));
                }
                Verdict::Odd if odd >= MAX_ODD => {
                    return Err(ClientError::answer(name, "it is not a JSON object"));
                }
                Verdict::Odd => {
                    odd += 1;
                    backoff(odd - 1)
                }
                Verdict::TryAgain {
                    state,
                    reason,
                    after,
                } => {
                    watched.observe(state, reason.as_deref());
                    let is_paused = matches!(
                        state,
                        QueueState::PausedCapacity | QueueState::PausedRateLimit
                    );
                    let own = if is_paused {
                        backoff(0)
                    } else {
                        rounds += 1;
                        backoff(rounds - 1)
                    };
                    after.unwrap_or(own)
                }
                Verdict::Pending => GAP,
                Verdict::Metadata => {
                    allow_metadata_only = Some(false);
                    Duration::ZERO
                }
                Verdict::Unable | Verdict::Busy => {
                    failures += 1;
                    backoff(failures - 1)
                }
            };
            // A backend that always says so would be asked all the time.
            let wait = if wait.is_zero() { GAP } else { wait };
            link.sleep(wait).await;
        }
    }
}
