//! ureq: a blocking HTTP client, run on a thread that may block.

use super::http::failure::Failure;
use super::http::{HttpClient, HttpError, HttpEvents, ResponseBounds};
use crate::event::Blame;
use crate::sys::{origin, own_work};
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

/// An [`HttpClient`] for any executor or none, with rustls and the Mozilla root certificates.
///
/// ureq blocks. With the `Thread` runtime, the session's own thread makes the calls while a standby thread enforces the
/// deadlines. On any other executor, calls run on a worker thread, which starts with the first request and ends when
/// this client is dropped. The connection is kept between requests. A call that the session abandons keeps its thread
/// until it ends; the next call uses another thread and does not wait. At most eight calls hang at once: beyond that,
/// requests fail.
///
/// A clone shares the agent and its connections, and has threads of its own.
///
/// At level TRACE, ureq logs every byte it sends, the API key included, to the `log` facade under the target
/// `ureq_proto`: exclude that target if you log at TRACE.
pub struct Ureq {
    agent: Agent,
    /// The idle worker, for executors whose threads must not block.
    idle: Option<Worker>,
    /// Its reference count, less one, is the number of calls in flight.
    threads: Arc<()>,
}

/// Bounds the calls in flight: the abandoned ones that still hang, and the current one.
const MAX_THREADS: usize = 8;

/// An idle connection keeps its buffers, and there may be many sessions: ureq's defaults are 128 KiB each.
const INPUT_BUFFER: usize = 8 * 1024;
const OUTPUT_BUFFER: usize = 16 * 1024;

type SendResult = Result<Response<Bytes>, HttpError>;
type Job = Box<dyn FnOnce() + Send>;
type Worker = Sender<Job>;

impl Ureq {
    /// A client with a [timeout](Self::with_timeout) of 30 s.
    #[must_use]
    pub fn new() -> Self {
        Self::with_timeout(Duration::from_secs(30))
    }

    /// A client that bounds each phase of a call (connecting, sending head and body, waiting for head and body of the
    /// response) by `timeout`.
    ///
    /// This limits how long a stalled server can hold one of the client's at most eight threads. Choose less than
    /// `http_timeout`, and a stalled call fails and frees its thread before the session abandons it; with more, as by
    /// default, it holds its thread until then. Name lookups are not bounded: they take as long as the operating
    /// system takes.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        // Not `timeout_global`: to bound name lookups, ureq starts another thread for each request.
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
            // A session's requests are sequential and need one; clones share the pool.
            .max_idle_connections(MAX_THREADS)
            .max_idle_connections_per_host(MAX_THREADS);
        Self::with_agent(config.build().new_agent())
    }

    /// A client that uses `agent`, which brings its own certificates and proxies. It should not follow redirects, not
    /// treat statuses as errors (`http_status_as_error(false)`), and have timeouts.
    #[must_use]
    pub fn with_agent(agent: Agent) -> Self {
        Self {
            agent,
            idle: None,
            threads: Arc::default(),
        }
    }

    /// A job that makes one call and sends the result to `results`, unless the receiver is gone.
    fn job(&self, request: Request<Bytes>, results: Sender<SendResult>) -> Result<Job, HttpError> {
        if Arc::strong_count(&self.threads) > MAX_THREADS {
            return Err(HttpError::new("too many stalled requests"));
        }
        let (agent, busy) = (self.agent.clone(), Arc::clone(&self.threads));
        let sessions = own_work::current();
        Ok(Box::new(move || {
            let own = (origin::OwnWork::enter(), sessions.enter());
            let result = exchange(&agent, request);
            drop(own);
            drop(busy);
            finish_call(|| drop(results.try_send(result)));
        }))
    }
}

/// Starts a thread that runs jobs until the worker is dropped.
fn start_worker() -> Result<Worker, HttpError> {
    let (worker, jobs) = bounded::<Job>(1);
    thread::Builder::new()
        .name("tinkex-ureq".into())
        .spawn(move || {
            while let Ok(job) = jobs.recv_blocking() {
                job();
            }
        })
        .map_err(HttpError::new)?;
    Ok(worker)
}

impl HttpClient for Ureq {
    async fn send(&mut self, request: Request<Bytes>) -> SendResult {
        let died = || HttpError::new("ureq's thread died");
        let (results, result) = bounded(1);
        let job = self.job(request, results)?;
        let Err(job) = run_here(job).await else {
            return result.recv().await.map_err(|_| died())?;
        };
        let worker = match self.idle.take() {
            Some(worker) => worker,
            None => start_worker()?,
        };
        // The channel has room: an idle worker has run all its jobs.
        worker.try_send(job).map_err(|_| died())?;
        let result = result.recv().await.map_err(|_| died())?;
        self.idle = Some(worker);
        result
    }

    /// The status of a [`ureq::Error::StatusCode`].
    fn blame<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Blame<'a>> {
        match error.downcast_ref()? {
            Error::StatusCode(status) => Some(Blame::status(*status)),
            _ => None,
        }
    }
}

/// Runs the job on the session's own thread, if that may block; else returns it.
#[cfg(feature = "thread")]
async fn run_here(job: Job) -> Result<(), Job> {
    let mut job = Some(job);
    core::future::poll_fn(|context| {
        let result = job
            .take()
            .map(|job| super::thread::run_on_leader(context.waker(), job));
        core::task::Poll::Ready(result.unwrap_or(Ok(())))
    })
    .await
}

#[cfg(feature = "thread")]
use super::thread::finish_call;

#[cfg(not(feature = "thread"))]
fn finish_call(wake: impl FnOnce()) {
    wake();
}

#[cfg(not(feature = "thread"))]
async fn run_here(job: Job) -> Result<(), Job> {
    Err(job)
}

/// Blocks. The request is dropped before the response is sent on, so that its body's buffer can be reused.
fn exchange(agent: &Agent, request: Request<Bytes>) -> SendResult {
    let bounds = ResponseBounds::of(&request);
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, &body[..]);
    let default = agent.config().timeouts().recv_response;
    if let (Some(requested), Some(default)) = (bounds.timeout, default)
        && requested > default
    {
        let config = agent.configure_request(request);
        request = config.timeout_recv_response(Some(requested)).build();
    }
    let response = agent
        .run(request)
        .map_err(|error| HttpError::from_error(&error))?;
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    // A body read to its end lets the connection be reused.
    body.as_reader()
        .take(bounds.max_bytes as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| HttpError::from_error(&error))?;
    Ok(Response::from_parts(parts, bytes.into()))
}

/// ureq middleware: emits `stop` once the head of the final response, after any redirects, has arrived.
///
/// Set a [`RetryCount`](crate::http::RetryCount) as a request extension.
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
            Ok(response) => call.stop(response.status().as_u16()),
            Err(Error::StatusCode(status)) => call.stop(*status),
            Err(error) => call.fail(failure(error)),
        }
        result
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Io(error) => Failure::from_io(error),
        Error::Timeout(_) => Failure::TIMEOUT,
        Error::HostNotFound => Failure::LOOKUP,
        Error::ConnectionFailed | Error::ConnectProxyFailed(_) => {
            Failure::error("connection failed")
        }
        Error::TooManyRedirects | Error::RedirectFailed => Failure::error("redirect failed"),
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::TlsRequired => Failure::TLS,
        Error::Protocol(_) => Failure::error("the response is not valid HTTP"),
        Error::Http(_) | Error::BadUri(_) => Failure::error("the request is not valid HTTP"),
        other => Failure::from_error(other),
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
