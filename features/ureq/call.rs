//! One blocking call: a request within its bounds, and the response.

use crate::features::http::failure::is_reset;
use crate::features::http::{HttpError, ResponseBounds};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::mem;
use core::time::Duration;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, StatusCode};
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use ureq::config::Timeouts;
use ureq::{Agent, Error, Timeout};

use super::SendResult;
use super::builder::TIMEOUT;

pub(super) struct Call {
    agent: Agent,
    /// `None`: as the agent decides.
    proxy: Option<Option<ureq::Proxy>>,
    request: Request<Bytes>,
    pub(super) early: Arc<Early>,
}

/// The head of a response whose body is still being read.
pub(super) struct Early {
    /// From when on the head must do.
    late: Option<Instant>,
    state: Mutex<EarlyState>,
}

enum EarlyState {
    Waiting,
    Head(Response<()>),
    Taken,
}

impl Early {
    fn new(bounds: &ResponseBounds) -> Arc<Self> {
        let late = bounds.give_up_after.and_then(|after| {
            // Shortly before the end, for the session may measure from a little earlier.
            Instant::now().checked_add(after - after / 32)
        });
        Arc::new(Self {
            late,
            state: Mutex::new(EarlyState::Waiting),
        })
    }

    fn set(&self, state: EarlyState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The head as a response that was cut off, if there is one and the attempt is about to end.
    pub(super) fn take_if_late(&self) -> Option<SendResult> {
        if self.late.is_none_or(|late| Instant::now() < late) {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::replace(&mut *state, EarlyState::Taken) {
            EarlyState::Head(head) => {
                let response = head.map(|()| Bytes::new());
                Some(Err(
                    HttpError::new("timeout: receive body").with_response(response)
                ))
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// Whether the head was taken, and with it the call abandoned.
    pub(super) fn is_taken(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*state, EarlyState::Taken)
    }
}

impl Call {
    pub(super) fn new(
        agent: Agent,
        proxy: Option<Option<ureq::Proxy>>,
        request: Request<Bytes>,
    ) -> Self {
        let early = Early::new(&ResponseBounds::of(&request));
        Self {
            agent,
            proxy,
            request,
            early,
        }
    }

    /// Blocks. The request is dropped before the response is returned, so that its body's buffer can be reused.
    pub(super) fn run(self) -> SendResult {
        let bounds = ResponseBounds::of(&self.request);
        let (mut parts, body) = self.request.into_parts();
        let asks_first = parts.headers.contains_key(EXPECT);
        if asks_first {
            // ureq reads on after a refusal, although it has all of it, until the connection ends.
            let close = HeaderValue::from_static("close");
            parts.headers.insert(CONNECTION, close);
        }
        let request = Request::from_parts(parts, &body[..]);
        let limits = limits(self.agent.config().timeouts(), &bounds);
        // The contract of an `HttpClient`, whatever the agent's own settings.
        let mut config = self
            .agent
            .configure_request(request)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(limits.connect)
            .timeout_send_request(limits.send_request)
            .timeout_await_100(limits.await_100)
            .timeout_send_body(limits.send_body)
            .timeout_recv_response(limits.recv_response)
            .timeout_recv_body(limits.recv_body);
        if let Some(proxy) = self.proxy {
            config = config.proxy(proxy);
        }
        let response = match self.agent.run(config.build()) {
            Ok(response) => response,
            // From middleware.
            Err(Error::StatusCode(status)) => return status_alone(status),
            Err(error) => return Err(no_response(&error, asks_first)),
        };
        let (parts, mut body) = response.into_parts();
        let mut head = Response::new(());
        *head.status_mut() = parts.status;
        head.headers_mut().clone_from(&parts.headers);
        self.early.set(EarlyState::Head(head));
        let mut bytes = Vec::new();
        // A body read to its end lets the connection be reused.
        let read = body
            .as_reader()
            .take(bounds.max_bytes as u64)
            .read_to_end(&mut bytes);
        let response = Response::from_parts(parts, bytes.into());
        match read {
            Ok(_) => Ok(response),
            Err(error) => Err(HttpError::from_error(&error).with_response(response)),
        }
    }
}

fn status_alone(status: u16) -> SendResult {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::from_u16(status).map_err(HttpError::new)?;
    Ok(response)
}

fn no_response(error: &Error, asked_first: bool) -> HttpError {
    let broke = match error {
        Error::Io(error) => is_reset(error),
        // The server has stopped reading: it may have answered.
        Error::Timeout(Timeout::SendBody) => true,
        Error::Timeout(Timeout::RecvResponse) => asked_first,
        _ => false,
    };
    let error = HttpError::from_error(error);
    if broke {
        error.broke_while_sending()
    } else {
        error
    }
}

/// The timeouts of the phases: the agent's own, within what is left of the attempt. The sum may exceed that, but a
/// server that stalls does so in one phase.
fn limits(own: Timeouts, bounds: &ResponseBounds) -> Timeouts {
    let left = bounds.give_up_after;
    let share = |own: Option<Duration>, eighths: u32| {
        let own = own.or(left.is_none().then_some(TIMEOUT));
        let left = left.map(|left| left / 8 * eighths);
        own.into_iter().chain(left).min()
    };
    let at_least = |limit: Option<Duration>| match bounds.timeout {
        Some(asked) => limit.map(|limit| limit.max(asked)),
        None => limit,
    };
    let recv_body = at_least(share(own.recv_body, 8));
    Timeouts {
        // ureq gives the first of two addresses two thirds of this, so that the second has its turn.
        connect: share(own.connect, 6),
        send_request: share(own.send_request, 7),
        await_100: share(own.await_100, 2),
        send_body: share(own.send_body, 7),
        recv_response: at_least(share(own.recv_response, 8)),
        recv_body: recv_body.into_iter().chain(bounds.body_timeout).min(),
        ..own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn own() -> Timeouts {
        Agent::config_builder()
            .timeout_connect(Some(30 * SECOND))
            .timeout_recv_response(Some(30 * SECOND))
            .build()
            .timeouts()
    }

    fn bounds() -> ResponseBounds {
        ResponseBounds::of(&Request::new(()))
    }

    #[test]
    fn each_phase_ends_with_the_attempt_and_connecting_before_it() {
        let mut bounds = bounds();
        bounds.give_up_after = Some(8 * SECOND);
        bounds.body_timeout = Some(SECOND / 2);
        let limits = limits(own(), &bounds);
        assert_eq!(limits.connect, Some(6 * SECOND));
        assert_eq!(limits.await_100, Some(SECOND));
        assert_eq!(limits.send_body, Some(7 * SECOND));
        assert_eq!(limits.recv_response, Some(8 * SECOND));
        assert_eq!(limits.recv_body, Some(SECOND / 2));
        // Bounding a name lookup would start another thread for each request.
        assert_eq!((limits.resolve, limits.global), (None, None));
    }

    #[test]
    fn a_longer_timeout_that_is_asked_for_extends_the_wait_for_the_response_alone() {
        let mut bounds = bounds();
        bounds.timeout = Some(60 * SECOND);
        let limits = limits(own(), &bounds);
        assert_eq!(limits.connect, Some(30 * SECOND));
        assert_eq!(limits.recv_response, Some(60 * SECOND));
        assert_eq!(limits.send_body, Some(TIMEOUT));
    }
}
