//! How far a call has come: written by what makes its requests, read by what reports it.

use super::api::{Api, Exchanged};
use super::open_calls::OpenRequest;
use crate::bus::QueueState;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far a call has come.
#[derive(Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    request_id: Option<String>,
    queue_state: Option<QueueState>,
    queue_state_reason: Option<String>,
    polls: u64,
    last_response: Option<LastResponse>,
}

enum LastResponse {
    Status(u16),
    /// There was none, for this reason.
    None(String),
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the response to a request of the call.
    pub(super) fn responded(&self, api: &Api, outcome: &Exchanged) {
        let response = match outcome {
            Ok(response) => LastResponse::Status(response.status().as_u16()),
            Err(no_response) => LastResponse::None(api.reason(no_response)),
        };
        self.state().last_response = Some(response);
    }

    /// Notes that the backend has accepted the request, perhaps once more.
    pub(super) fn submitted(&self, request_id: &str) {
        let mut state = self.state();
        state.request_id = Some(request_id.to_owned());
        (state.queue_state, state.queue_state_reason) = (None, None);
    }

    /// Notes a poll that begins.
    pub(super) fn polls(&self) {
        self.state().polls += 1;
    }

    /// Notes the state of the request in the queue. The reason contains no secrets.
    pub(super) fn queued(&self, queue_state: QueueState, reason: Option<&str>) {
        let mut state = self.state();
        state.queue_state = Some(queue_state);
        if state.queue_state_reason.as_deref() != reason {
            state.queue_state_reason = reason.map(ToOwned::to_owned);
        }
    }

    /// Adds what is known to the description of the call.
    pub(super) fn describe(&self, request: &mut OpenRequest) {
        let state = self.state();
        request.request_id.clone_from(&state.request_id);
        request.queue_state = state.queue_state;
        request
            .queue_state_reason
            .clone_from(&state.queue_state_reason);
        request.polls = state.polls;
        request.last_response = state.last_response.as_ref().map(|response| match response {
            LastResponse::Status(status) => format!("HTTP {status}"),
            LastResponse::None(reason) => reason.clone(),
        });
    }
}
