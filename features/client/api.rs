//! One HTTP exchange with the backend: headers, deadline, HTTP events.

use super::error::{ClientError, Result};
use super::exchange_report::ExchangeReport;
use super::io::{Boxed, Io, with_deadline};
use crate::features::http::{
    Api as Endpoint, Failure, HttpError, HttpEvents, ResponseBounds, RetryCount, printable,
};
use crate::spawner::SpawnError;
use crate::sys::entropy::Random;
use crate::sys::fork::Fork;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use std::sync::{Mutex, OnceLock, PoisonError};
use uuid::Uuid;

/// The longest result that is read, in bytes.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// The longest response to every other call, which has no more than ids, names and messages.
pub(super) const MAX_SMALL_BYTES: usize = 1 << 20;

const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// The connection to the backend, shared by all clients and background tasks of a session.
pub(super) struct Api {
    io: Box<dyn Io>,
    endpoint: Endpoint,
    random: Mutex<Random>,
    /// Empty until there is a session to report to.
    events: OnceLock<HttpEvents>,
    /// Carries no messages: it is closed when the session is.
    closed: (Sender<Infallible>, Receiver<Infallible>),
    /// A semaphore: holds one message for each exchange under way.
    permits: (Sender<()>, Receiver<()>),
    fork: Fork,
}

/// One call to the backend.
#[derive(Clone)]
pub(super) struct Call {
    /// Its name in errors.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Relative to `/api/v1/`.
    pub(super) path: Box<str>,
    pub(super) body: Bytes,
    pub(super) headers: Headers,
    /// The deadline of one attempt.
    pub(super) timeout: Duration,
    /// How long it is retried.
    pub(super) patience: Duration,
    /// The longest wait between two attempts.
    pub(super) max_wait: Duration,
    /// How much of the response is read, in bytes.
    pub(super) max_bytes: usize,
    /// The idempotency key, the same in every attempt.
    pub(super) key: Option<Uuid>,
    /// Whether it bypasses the limit on concurrent exchanges.
    pub(super) is_urgent: bool,
}

/// Permission for one exchange.
struct Permit<'a>(&'a Receiver<()>);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// Extra headers of a call.
#[derive(Clone, Copy)]
pub(super) enum Headers {
    None,
    /// The caller handles the backend's 429 itself.
    Backpressure,
    /// The iteration (from 0) and the request type of a poll.
    Poll(u32, &'static str),
}

/// The reason why there is no response.
pub(super) enum NoResponse {
    TimedOut,
    Http(HttpError),
}

impl NoResponse {
    /// Whether the request may be repeated.
    pub(super) const fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Http(error) => error.is_retryable(),
        }
    }
}

/// A response of any status, or none.
pub(super) type Exchanged = core::result::Result<Response<Bytes>, NoResponse>;

impl Api {
    pub(super) fn new(
        io: Box<dyn Io>,
        endpoint: Endpoint,
        random: Random,
        max_requests: usize,
    ) -> Self {
        Self {
            io,
            endpoint,
            random: Mutex::new(random),
            events: OnceLock::new(),
            closed: async_channel::bounded(1),
            permits: async_channel::bounded(max_requests.max(1)),
            fork: Fork::here(),
        }
    }

    /// Reports every later exchange to `events`.
    pub(super) fn report_to(&self, events: HttpEvents) {
        let _ = self.events.set(events);
    }

    pub(super) fn now(&self) -> Instant {
        self.io.now()
    }

    /// Sleeps; past the end of the clock, forever.
    pub(super) async fn sleep(&self, duration: Duration) {
        let end = self.now().checked_add(duration).unwrap_or(Instant::END);
        self.io.sleep_until(end).await;
    }

    pub(super) async fn sleep_until(&self, at: Instant) {
        self.io.sleep_until(at).await;
    }

    pub(super) fn spawn(&self, task: Boxed<'static, ()>) -> core::result::Result<(), SpawnError> {
        self.io.spawn(task)
    }

    /// Runs `wait`, which blocks until tasks have made progress, if they do while this thread blocks.
    pub(super) fn block_in_place(&self, wait: &mut dyn FnMut()) {
        self.io.block_in_place(wait);
    }

    pub(super) fn is_forked(&self) -> bool {
        self.fork.is_forked()
    }

    /// A new idempotency key.
    pub(super) fn new_key(&self) -> Uuid {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.uuid()
    }

    /// Closes the session to further calls. Returns true the first time.
    pub(super) fn close(&self) -> bool {
        self.closed.0.close()
    }

    /// Waits until the session is closed.
    pub(super) async fn closed(&self) {
        while self.closed.1.recv().await.is_ok() {}
    }

    /// Runs `work` until the session is closed, and only in the process that opened it: in the child of a fork the
    /// session, with its sequence numbers and locks, still belongs to the parent.
    pub(super) async fn while_open<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_forked() {
            return Err(ClientError::Closed);
        }
        let (mut closed, mut work) = (pin!(self.closed()), pin!(work));
        poll_fn(|context| {
            // Checked first: an error that `work` returns because the session has ended is not reported as its own.
            if self.is_forked() || closed.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(ClientError::Closed));
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits until one more exchange may start.
    async fn permit(&self) -> Permit<'_> {
        // Cannot fail: `self` owns the receiver, so the channel is open.
        let _ = self.permits.0.send(()).await;
        Permit(&self.permits.1)
    }

    /// Makes one attempt, after `retries` earlier ones.
    ///
    /// Dropping the future cancels the exchange.
    pub(super) async fn exchange(&self, call: &Call, retries: u32) -> Exchanged {
        self.exchange_in(call, retries, &mut ExchangeReport::default())
            .await
    }

    /// [`exchange`](Self::exchange), reported as one request with all others for which `report` is kept.
    pub(super) async fn exchange_in(
        &self,
        call: &Call,
        retries: u32,
        report: &mut ExchangeReport,
    ) -> Exchanged {
        let _permit = match call.is_urgent {
            true => None,
            false => Some(self.permit().await),
        };
        let mut request = self.request(call);
        request.extensions_mut().insert(RetryCount(retries));
        report.begin(self.events.get(), &request);
        let outcome = with_deadline(self.sleep(call.timeout), self.io.send(request)).await;
        match &outcome {
            Some(Ok(response)) => report.responded(response.status().as_u16()),
            Some(Err(error)) => report.fail(error.failure()),
            None => report.fail(Failure::TIMEOUT),
        }
        match outcome {
            Some(result) => result.map_err(NoResponse::Http),
            None => Err(NoResponse::TimedOut),
        }
    }

    fn request(&self, call: &Call) -> Request<Bytes> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        // The base is a valid URL and the paths are constants; only an id in a path could make this fail.
        let url = format!("{}{}", self.endpoint.base, call.path);
        *request.uri_mut() = url.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.clone_from(&self.endpoint.headers);
        if let Some(key) = call.key
            && let Ok(key) = HeaderValue::try_from(format!("{key}"))
        {
            headers.insert(X_IDEMPOTENCY_KEY, key);
        }
        match call.headers {
            Headers::None => {}
            Headers::Backpressure => {
                let one = HeaderValue::from_static("1");
                headers.insert("x-tinker-sampling-backpressure", one);
            }
            Headers::Poll(iteration, request_type) => {
                let request_type = HeaderValue::from_static(request_type);
                headers.insert("x-tinker-request-iteration", iteration.into());
                headers.insert("x-tinker-request-type", request_type);
            }
        }
        let mut bounds = ResponseBounds::of(&request);
        bounds.max_bytes = call.max_bytes;
        // Longer than our own deadline, so that ours fires first.
        bounds.timeout = call.timeout.checked_add(Duration::from_secs(5));
        request.extensions_mut().insert(bounds);
        request
    }

    /// The part of the backend's text that an error may show: printable, short, without secrets.
    pub(super) fn excerpt(&self, body: &[u8]) -> String {
        printable::<512>(body, &self.endpoint.secrets)
            .as_str()
            .into()
    }

    /// Where calls go, for messages.
    pub(super) fn address(&self) -> String {
        self.excerpt(self.endpoint.base.as_bytes())
    }

    /// The reason for a missing response, in words.
    pub(super) fn reason(&self, no_response: &NoResponse) -> String {
        match no_response {
            NoResponse::TimedOut => "timed out".into(),
            NoResponse::Http(error) => self.excerpt(error.message().as_bytes()),
        }
    }
}
