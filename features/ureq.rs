//! ureq: a blocking HTTP client, on a thread that may block.

use super::http::{AnswerBounds, Failure, HttpClient, HttpError, HttpEvents, of_error, of_io};
use crate::{Fault, sys::origin};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use async_channel::{Sender, bounded};
use bytes::Bytes;
use core::fmt;
use core::time::Duration;
use http::{Request, Response};
use std::io::Read as _;
use std::thread;
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Agent, Body, Error, SendBody};

/// A [`HttpClient`] for every executor and for none, with rustls and the Mozilla root certificates.
///
/// ureq blocks. With the runtime `Thread` the session's own thread makes the calls, while a second one stands by to
/// keep deadlines; on any other executor they run on a worker thread, started at the first request and ended when this
/// is dropped. The connection is kept between requests. A call that the session has given up is left to itself: the
/// next one gets another thread and does not wait for it.
///
/// A clone shares the agent with its connections, and has threads of its own.
///
/// ureq writes every byte that it sends, the API key among them, to the `log` facade at level TRACE, target
/// `ureq_proto`: programs that log so much should leave that target out.
pub struct Ureq {
    agent: Agent,
    /// The worker for executors whose threads must not block, when it has nothing to do.
    idle: Option<Worker>,
    /// Cloned for each thread that makes a call.
    threads: Arc<()>,
}

/// Calls that were given up and still hang, and the one that does not.
const MAX_THREADS: usize = 8;

/// An idle connection keeps its buffers, and sessions may be many: ureq's own would be 128 KiB each.
const INPUT_BUFFER: usize = 8 * 1024;
const OUTPUT_BUFFER: usize = 16 * 1024;

type Answer = Result<Response<Bytes>, HttpError>;
type Call = Box<dyn FnOnce() + Send>;
type Worker = Sender<Call>;

impl Ureq {
    /// A client with [`with_timeout`](Self::with_timeout) of 30 s.
    #[must_use]
    pub fn new() -> Self {
        Self::with_timeout(Duration::from_secs(30))
    }

    /// A client each phase of whose calls (connecting, sending head and body, waiting for head and body of the answer)
    /// ends after `timeout` at the latest. That bounds how long a stalled server can hold one of its threads, at most
    /// eight of which there are. The session gives a call up before, after `http_timeout`, above which sensible values
    /// lie. Names are looked up for as long as the operating system takes.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        // Not `timeout_global`: with a bound on looking names up, ureq starts one more thread for each request.
        let config = Agent::config_builder()
            .timeout_connect(Some(timeout))
            .timeout_send_request(Some(timeout))
            .timeout_send_body(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            // One after the other, the requests of a session need one; clones of this share them.
            .max_idle_connections(MAX_THREADS)
            .max_idle_connections_per_host(MAX_THREADS);
        Self::with_agent(config.build().new_agent())
    }

    /// A client with this agent: certificates, proxies and the like are its own. It should follow no redirects, take no
    /// status for an error (`http_status_as_error(false)`) and have timeouts.
    #[must_use]
    pub fn with_agent(agent: Agent) -> Self {
        Self {
            agent,
            idle: None,
            threads: Arc::default(),
        }
    }

    /// The call of one request. What it answers goes to `answers`, should anybody still want to know.
    fn call(&self, request: Request<Bytes>, answers: Sender<Answer>) -> Result<Call, HttpError> {
        if Arc::strong_count(&self.threads) > MAX_THREADS {
            return Err(HttpError::new("too many stalled requests"));
        }
        let (agent, busy) = (self.agent.clone(), Arc::clone(&self.threads));
        Ok(Box::new(move || {
            let own = origin::OwnWork::enter();
            let answer = call(&agent, request);
            drop(own);
            drop(busy);
            end_call(|| drop(answers.try_send(answer)));
        }))
    }
}

/// Starts a thread that makes calls until the worker is dropped.
fn start_worker() -> Result<Worker, HttpError> {
    let (worker, calls) = bounded::<Call>(1);
    thread::Builder::new()
        .name("tinkex-ureq".into())
        .spawn(move || {
            while let Ok(call) = calls.recv_blocking() {
                call();
            }
        })
        .map_err(HttpError::new)?;
    Ok(worker)
}

impl HttpClient for Ureq {
    async fn send(&mut self, request: Request<Bytes>) -> Answer {
        let died = || HttpError::new("ureq's thread died");
        let (answers, answer) = bounded(1);
        let call = self.call(request, answers)?;
        let Err(call) = call_here(call).await else {
            return answer.recv().await.map_err(|_| died())?;
        };
        let worker = match self.idle.take() {
            Some(worker) => worker,
            None => start_worker()?,
        };
        // There is room: an idle worker has made all its calls.
        worker.try_send(call).map_err(|_| died())?;
        let answer = answer.recv().await.map_err(|_| died())?;
        self.idle = Some(worker);
        answer
    }

    /// The status of a [`ureq::Error::StatusCode`].
    fn fault<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Fault<'a>> {
        match error.downcast_ref()? {
            Error::StatusCode(status) => Some(Fault::status(*status)),
            _ => None,
        }
    }
}

/// Where the session's own thread may block, it makes the call.
#[cfg(feature = "thread")]
async fn call_here(call: Call) -> Result<(), Call> {
    let mut call = Some(call);
    core::future::poll_fn(|context| {
        let call = call
            .take()
            .map(|call| super::thread::call_here(context.waker(), call));
        core::task::Poll::Ready(call.unwrap_or(Ok(())))
    })
    .await
}

#[cfg(feature = "thread")]
use super::thread::end_call;

#[cfg(not(feature = "thread"))]
fn end_call(wake: impl FnOnce()) {
    wake();
}

#[cfg(not(feature = "thread"))]
async fn call_here(call: Call) -> Result<(), Call> {
    Err(call)
}

/// Blocks. The request is dropped before the answer goes out, so that its body's buffer is free again.
fn call(agent: &Agent, request: Request<Bytes>) -> Answer {
    let bounds = AnswerBounds::of(&request);
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, &body[..]);
    let own = agent.config().timeouts().recv_response;
    if let (Some(asked), Some(own)) = (bounds.timeout, own)
        && asked > own
    {
        let config = agent.configure_request(request);
        request = config.timeout_recv_response(Some(asked)).build();
    }
    let answer = agent
        .run(request)
        .map_err(|error| HttpError::from_error(&error))?;
    let (parts, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    // Read to its end, the connection can be used again.
    body.as_reader()
        .take(bounds.max_bytes as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| HttpError::from_error(&error))?;
    Ok(Response::from_parts(parts, bytes.into()))
}

/// A middleware of ureq's: tells of a `stop` when the head of the last answer is there, redirects behind it.
///
/// A [`RetryCount`](crate::RetryCount) is an extension of the request.
#[cfg_attr(docsrs, doc(cfg(feature = "ureq")))]
impl Middleware for HttpEvents {
    fn handle(
        &self,
        request: Request<SendBody<'_>>,
        next: MiddlewareNext<'_>,
    ) -> Result<Response<Body>, Error> {
        let call = self.start_request(&request);
        let result = next.handle(request);
        match &result {
            Ok(answer) => call.stop(answer.status().as_u16()),
            Err(Error::StatusCode(status)) => call.stop(*status),
            Err(error) => call.fail(failure(error)),
        }
        result
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Io(error) => of_io(error),
        Error::Timeout(_) => Failure::TIMEOUT,
        Error::HostNotFound => Failure::error("the name cannot be looked up"),
        Error::ConnectionFailed | Error::ConnectProxyFailed(_) => {
            Failure::error("connection failed")
        }
        Error::TooManyRedirects | Error::RedirectFailed => Failure::error("a redirect failed"),
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::TlsRequired => {
            Failure::error("TLS")
        }
        Error::Protocol(_) => Failure::error("the answer is not HTTP"),
        Error::Http(_) | Error::BadUri(_) => Failure::error("the request is not HTTP"),
        other => of_error(other),
    }
}

impl Clone for Ureq {
    fn clone(&self) -> Self {
        Self::with_agent(self.agent.clone())
    }
}

impl Default for Ureq {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Ureq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ureq")
            .field("is_idle", &self.idle.is_some())
            .field("threads", &(Arc::strong_count(&self.threads) - 1))
            .finish_non_exhaustive()
    }
}
