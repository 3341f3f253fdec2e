//! One request and its response, on a tokio runtime.

use crate::features::common::timer;
use crate::features::http::failure::has_reset;
use crate::features::http::{HttpError, ResponseBounds};
use alloc::vec::Vec;
use bytes::Bytes;
use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::mem;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use http::header::EXPECT;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use reqwest::{Client, Url};
use std::time::Instant;

pub(super) struct Exchange {
    pub(super) client: Client,
    pub(super) bounds: ResponseBounds,
    pub(super) may_redirect: bool,
}

impl Exchange {
    pub(super) async fn run(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let started = Instant::now();
        let asks_first = request.headers().contains_key(EXPECT);
        let request = request.map(|body| match asks_first {
            true => reqwest::Body::wrap(HeldBack::new(body, &self.bounds)),
            false => body.into(),
        });
        let request: reqwest::Request = request.try_into().map_err(|error| failed(&error))?;
        let mut url = request.url().clone();
        url.set_fragment(None);
        let mut response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) if error.is_redirect() => {
                let to = error.url().cloned();
                return Err(redirected(to.as_ref()));
            }
            Err(error) => return Err(no_response(error)),
        };
        if self.may_redirect && *response.url() != url {
            return Err(redirected(Some(response.url())));
        }
        let mut result = Response::new(Bytes::new());
        *result.status_mut() = response.status();
        *result.headers_mut() = mem::take(response.headers_mut());
        let limit = self.bounds.body_time(started.elapsed());
        let (body, error) = read(&mut response, self.bounds.max_bytes, limit).await;
        *result.body_mut() = body;
        match error {
            Some(error) => Err(error.with_response(result)),
            None => Ok(result),
        }
    }
}

/// The body, as much of it as arrives in time, and what went wrong, if anything did.
async fn read(
    response: &mut reqwest::Response,
    max_bytes: usize,
    limit: Option<Duration>,
) -> (Bytes, Option<HttpError>) {
    let mut body = Bytes::new();
    let mut longer = Vec::new();
    // The process's own timers: the runtime's may be paused.
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut timer = pin!(until.map(timer::sleep_until));
    let mut error = None;
    // A body read to its end lets the connection be reused.
    while body.len().max(longer.len()) < max_bytes {
        let mut chunk = pin!(response.chunk());
        let chunk = poll_fn(|context| {
            if let Poll::Ready(chunk) = chunk.as_mut().poll(context) {
                return Poll::Ready(chunk.map_err(|error| failed(&error.without_url())));
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer
                    .poll(context)
                    .map(|()| Err(HttpError::new("the response's body took too long"))),
                None => Poll::Pending,
            }
        });
        match chunk.await {
            Ok(Some(chunk)) if body.is_empty() => body = chunk,
            Ok(Some(chunk)) => {
                if longer.is_empty() {
                    longer.extend_from_slice(&body);
                }
                longer.extend_from_slice(&chunk);
            }
            Ok(None) => break,
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    if !longer.is_empty() {
        body = longer.into();
    }
    (body, error)
}

fn failed(error: &reqwest::Error) -> HttpError {
    HttpError::from_error(error)
}

fn no_response(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    let is_broken = has_reset(&error) && !error.is_connect();
    let error = failed(&error);
    if is_broken {
        error.broke_while_sending()
    } else {
        error
    }
}

/// The client has followed a redirect, against the contract of an `HttpClient`.
fn redirected(to: Option<&Url>) -> HttpError {
    let host = to.and_then(Url::host_str).unwrap_or("another URL");
    HttpError::new(format_args!(
        "the client followed a redirect: the API key has left for {host}; set redirect(Policy::none())"
    ))
    .not_retryable()
}

/// A body that is held back for a moment, so that a server that answers from the head alone is heard.
struct HeldBack {
    body: Option<Bytes>,
    wait: Option<timer::Sleep>,
}

impl HeldBack {
    fn new(body: Bytes, bounds: &ResponseBounds) -> Self {
        let wait = Duration::from_secs(1);
        let wait = bounds
            .give_up_after
            .map_or(wait, |after| wait.min(after / 4));
        Self {
            body: Some(body),
            wait: Instant::now().checked_add(wait).map(timer::sleep_until),
        }
    }
}

impl Body for HeldBack {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(wait) = &mut self.wait {
            ready!(Pin::new(wait).poll(context));
            self.wait = None;
        }
        Poll::Ready(self.body.take().map(|body| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, Bytes::len) as u64)
    }
}
