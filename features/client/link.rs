//! One exchange with the backend: headers, deadline, HTTP events.

use super::error::{ClientError, Result};
use super::port::{Boxed, Port, until};
use crate::features::http::{Api, Failure, HttpEvents, printable};
use crate::sys::entropy::Random;
use crate::sys::fork::Fork;
use crate::{AnswerBounds, HttpError, Instant, RetryCount, SpawnError};
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

/// The most that is read of an answer.
pub(super) const MOST_BYTES: usize = 64 << 20;

const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// The way to the backend, for all clients of a session and for what goes on beside them.
pub(super) struct Link {
    port: Box<dyn Port>,
    api: Api,
    random: Mutex<Random>,
    /// Once there is a session to tell of them.
    events: OnceLock<HttpEvents>,
    /// Nothing is ever sent in it: it is closed when the session is.
    closed: (Sender<Infallible>, Receiver<Infallible>),
    /// As many as there are exchanges under way.
    busy: (Sender<()>, Receiver<()>),
    fork: Fork,
}

/// One call of the backend.
#[derive(Clone)]
pub(super) struct Call {
    /// How errors name it.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Behind `/api/v1/`.
    pub(super) path: Box<str>,
    pub(super) body: Bytes,
    pub(super) headers: Headers,
    /// How long an attempt may take.
    pub(super) timeout: Duration,
    /// The same in every attempt.
    pub(super) key: Option<Uuid>,
    /// It waits for no other.
    pub(super) is_urgent: bool,
}

/// An exchange that may be under way.
struct Permit<'a>(&'a Receiver<()>);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// Headers of one kind of call.
#[derive(Clone, Copy)]
pub(super) enum Headers {
    None,
    /// The caller waits by itself when the backend has too much to do.
    Backpressure,
    /// The so many-th poll for a result of this kind.
    Poll(u32, &'static str),
}

/// Why there was no answer.
pub(super) enum NoAnswer {
    Late,
    Http(HttpError),
}

/// An answer, whatever its status.
pub(super) type Answer = core::result::Result<Response<Bytes>, NoAnswer>;

impl Link {
    pub(super) fn new(port: Box<dyn Port>, api: Api, random: Random, most: usize) -> Self {
        Self {
            port,
            api,
            random: Mutex::new(random),
            events: OnceLock::new(),
            closed: async_channel::bounded(1),
            busy: async_channel::bounded(most.max(1)),
            fork: Fork::here(),
        }
    }

    /// Tells of the exchanges from now on.
    pub(super) fn tell(&self, events: HttpEvents) {
        let _ = self.events.set(events);
    }

    pub(super) fn now(&self) -> Instant {
        self.port.now()
    }

    /// Waits. Beyond the clock's end it is for ever.
    pub(super) async fn sleep(&self, duration: Duration) {
        let end = self.now().checked_add(duration).unwrap_or(Instant::END);
        self.port.sleep_until(end).await;
    }

    pub(super) async fn sleep_until(&self, at: Instant) {
        self.port.sleep_until(at).await;
    }

    pub(super) fn spawn(&self, task: Boxed<'static, ()>) -> core::result::Result<(), SpawnError> {
        self.port.spawn(task)
    }

    /// Whether blocking this thread stops nothing that is under way.
    pub(super) fn may_block(&self) -> bool {
        self.port.is_dedicated() && !self.fork.is_forked()
    }

    pub(super) fn is_forked(&self) -> bool {
        self.fork.is_forked()
    }

    pub(super) fn key(&self) -> Uuid {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.uuid()
    }

    /// No more calls. True the first time.
    pub(super) fn close(&self) -> bool {
        self.closed.0.close()
    }

    /// Waits until the session is closed.
    pub(super) async fn closed(&self) {
        while self.closed.1.recv().await.is_ok() {}
    }

    /// Runs `work` while the session is not closed, and in the process that it was made in: in the child of a fork it
    /// is the parent's, numbers and locks included.
    pub(super) async fn while_open<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_forked() {
            return Err(ClientError::Closed);
        }
        let (mut closed, mut work) = (pin!(self.closed()), pin!(work));
        poll_fn(|context| {
            // What the end of the session makes of `work` is no failure of its own.
            if self.is_forked() || closed.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(ClientError::Closed));
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits until there may be one more exchange.
    async fn permit(&self) -> Permit<'_> {
        // The receiver is here, so it is never closed.
        let _ = self.busy.0.send(()).await;
        Permit(&self.busy.1)
    }

    /// One attempt. `before`: how many there were before it.
    ///
    /// Dropped half way it gives the exchange up.
    pub(super) async fn exchange(&self, call: &Call, before: u32) -> Answer {
        let _permit = match call.is_urgent {
            true => None,
            false => Some(self.permit().await),
        };
        let mut request = self.request(call);
        request.extensions_mut().insert(RetryCount(before));
        let told = self
            .events
            .get()
            .map(|events| events.start_request(&request));
        let answer = until(self.sleep(call.timeout), self.port.send(request)).await;
        match (&answer, told) {
            (Some(Ok(answer)), Some(told)) => told.stop(answer.status().as_u16()),
            (Some(Err(error)), Some(told)) => told.fail(error.failure()),
            (None, Some(told)) => told.fail(Failure::TIMEOUT),
            (_, None) => {}
        }
        match answer {
            Some(answer) => answer.map_err(NoAnswer::Http),
            None => Err(NoAnswer::Late),
        }
    }

    fn request(&self, call: &Call) -> Request<Bytes> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        // The base is a URL, and the paths behind it are ours, but for ids that may be anything.
        let url = format!("{}{}", self.api.base, call.path);
        *request.uri_mut() = url.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.clone_from(&self.api.headers);
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
            Headers::Poll(iteration, kind) => {
                headers.insert("x-tinker-request-iteration", iteration.into());
                headers.insert("x-tinker-request-type", HeaderValue::from_static(kind));
            }
        }
        let mut bounds = AnswerBounds::of(&request);
        bounds.max_bytes = MOST_BYTES;
        // A moment more than we wait ourselves.
        bounds.timeout = call.timeout.checked_add(Duration::from_secs(5));
        request.extensions_mut().insert(bounds);
        request
    }

    /// What an error may say of an answer.
    pub(super) fn excerpt(&self, body: &[u8]) -> String {
        printable::<512>(body, &self.api.secrets).as_str().into()
    }

    /// Why there was no answer.
    pub(super) fn why(&self, no_answer: &NoAnswer) -> String {
        match no_answer {
            NoAnswer::Late => "timed out".into(),
            NoAnswer::Http(error) => self.excerpt(error.message().as_bytes()),
        }
    }
}
