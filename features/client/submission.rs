//! Submits requests and polls for their results.

use super::api::{Api, Call, Headers};
use super::call::{Backpressure, parse};
use super::error::{Category, ClientError, Result};
use super::exchange_report::ExchangeReport;
use super::kind::RequestKind;
use super::poll::{Next, Poll};
use super::poll_response::{PollResponse, classify};
use super::progress::Progress;
use super::queue_watch::{QueueWatch, WatchedRequest};
use crate::bus::QueueState;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The deadline of one poll: a long poll, whose response the backend delays until there is something to report.
const POLL_TIMEOUT: Duration = Duration::from_secs(45);
/// How many times a lost request is submitted again.
const MAX_RESUBMITS: u32 = 3;

/// A request whose result is polled for.
pub(super) struct Submission {
    kind: RequestKind,
    call: Call,
    progress: Arc<Progress>,
}

/// The response to a submission.
#[derive(Deserialize)]
struct Submitted {
    request_id: String,
}

#[derive(Serialize)]
struct Retrieve<'a> {
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_metadata_only: Option<bool>,
}

/// The end of polling.
enum Retrieved {
    /// The result, as JSON.
    Result(Bytes),
    Expired,
}

impl Submission {
    pub(super) fn new(
        api: &Api,
        kind: RequestKind,
        body: &impl Serialize,
        progress: &Arc<Progress>,
    ) -> Result<Self> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::unencodable(kind.name(), &error))?;
        Ok(Self::with_body(api, kind, body, Arc::clone(progress)))
    }

    pub(super) fn with_body(
        api: &Api,
        kind: RequestKind,
        body: Vec<u8>,
        progress: Arc<Progress>,
    ) -> Self {
        let mut call = Call::with_body(api, kind.name(), kind.path(), body);
        if kind == RequestKind::Sample {
            call.headers = Headers::Backpressure;
        }
        Self {
            kind,
            call,
            progress,
        }
    }

    /// Submits the request. Returns the id that the backend assigns.
    pub(super) async fn submit(
        &self,
        api: &Api,
        backpressure: Option<&Backpressure>,
    ) -> Result<String> {
        let body = api.call(&self.call, backpressure, &self.progress).await?;
        match parse::<Submitted>(self.kind.name(), &body) {
            Ok(submitted) => {
                self.progress.submitted(&submitted.request_id);
                Ok(submitted.request_id)
            }
            // The backend may report a failure at once.
            Err(error) => match classify(200, &body) {
                PollResponse::Failed { category, message } => {
                    Err(self.failed(api, "", category, &message))
                }
                _ => Err(error),
            },
        }
    }

    /// Waits for the result of a submitted request. If the backend loses the request, submits it again.
    pub(super) async fn result<T: DeserializeOwned>(
        mut self,
        api: &Api,
        queue_watch: &QueueWatch,
        backpressure: Option<&Backpressure>,
        mut request_id: String,
    ) -> Result<T> {
        let progress = Arc::clone(&self.progress);
        let mut resubmits = 0;
        loop {
            let watched = queue_watch.watch(&request_id, self.kind, &progress);
            match self.retrieve(api, &watched, &request_id).await? {
                Retrieved::Result(result) => {
                    watched.observe(QueueState::Active, None, None);
                    return parse(self.kind.name(), &result);
                }
                Retrieved::Expired => drop(watched),
            }
            if resubmits == MAX_RESUBMITS {
                let call = self.kind.name();
                return Err(ClientError::Expired { call, request_id });
            }
            resubmits += 1;
            // Under the old key the backend might repeat its old response.
            self.call.key = Some(api.new_key());
            request_id = self.submit(api, backpressure).await?;
        }
    }

    /// Polls until the request ends; [`Poll`] decides, this carries it out.
    async fn retrieve(
        &self,
        api: &Api,
        watched: &WatchedRequest<'_>,
        request_id: &str,
    ) -> Result<Retrieved> {
        let name = self.kind.name();
        let mut poll = Poll::new(self.kind.max_bytes());
        let mut report = ExchangeReport::default();
        loop {
            let call = self.poll_call(api, &poll, request_id)?;
            let started = api.now();
            self.progress.polls();
            let outcome = api.exchange_in(&call, poll.retries(), &mut report).await;
            self.progress.responded(api, &outcome);
            let response = match outcome {
                Ok(response) => response,
                Err(no_response) if no_response.is_retryable() => {
                    api.sleep(poll.no_response()).await;
                    continue;
                }
                Err(no_response) => return Err(api.no_response(name, &no_response)),
            };
            let (status, body) = (response.status().as_u16(), response.into_body());
            poll.took(api.now().saturating_duration_since(started));
            let next = poll.next(status, &body);
            if !poll.is_quick() {
                report.end();
            }
            match next {
                Next::PollAgain(wait) => api.sleep(wait).await,
                Next::Queued {
                    state,
                    reason,
                    queue_depth,
                    wait,
                } => {
                    watched.observe(state, reason.as_deref(), queue_depth);
                    api.sleep(wait).await;
                }
                Next::Done(result) => return Ok(Retrieved::Result(body.slice_ref(result))),
                Next::Failed { category, message } => {
                    watched.observe(QueueState::Active, None, None);
                    return Err(self.failed(api, request_id, category, &message));
                }
                Next::Resubmit => return Ok(Retrieved::Expired),
                Next::Refused => return Err(api.status_error(name, status, &body)),
                Next::Invalid(reason) => return Err(ClientError::invalid_response(name, reason)),
            }
        }
    }

    fn poll_call(&self, api: &Api, poll: &Poll, request_id: &str) -> Result<Call> {
        let body = Retrieve {
            request_id,
            allow_metadata_only: poll.allow_metadata_only(),
        };
        let mut call = Call::post(api, self.kind.name(), "retrieve_future", &body)?;
        call.headers = Headers::Poll(poll.iteration(), self.kind.as_str());
        call.timeout = POLL_TIMEOUT;
        call.max_bytes = self.kind.max_bytes();
        call.key = None;
        Ok(call)
    }

    fn failed(
        &self,
        api: &Api,
        request_id: &str,
        category: Category,
        message: &str,
    ) -> ClientError {
        ClientError::Failed {
            call: self.kind.name(),
            request_id: request_id.into(),
            category,
            message: api.excerpt(message.as_bytes()),
        }
    }
}
