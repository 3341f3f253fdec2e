//! ureq: a blocking HTTP client, run on a thread that may block.

mod buffers;
mod builder;
mod call;
mod connect;
mod events;
mod socket;

pub use builder::UreqBuilder;

use super::http::proxy::Proxies;
use super::http::{HttpClient, HttpError};
use crate::event::Blame;
use crate::sys::fork::Fork;
use crate::sys::{origin, own_work};
use alloc::boxed::Box;
use alloc::sync::Arc;
use async_channel::{Sender, bounded};
use bytes::Bytes;
use call::{Call, Early};
use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use http::{Request, Response, Uri};
use std::thread;
use ureq::{Agent, Error};

/// An [`HttpClient`] for any executor or none, with rustls and the Mozilla root certificates.
///
/// ureq blocks. With the `Thread` runtime, the session's own thread makes the calls while a standby thread enforces the
/// deadlines. On any other executor, calls run on a worker thread, which starts with the first request and ends when
/// this client is dropped.
///
/// The connection is kept between requests, with up to 84 KiB of buffers, and twice that with TLS. Before it is used
/// again, one probe shows whether the server has closed it. A request of the usual size leaves in one write.
///
/// A call that the session abandons is ended: its connection is shut down, and its thread is free again. Only a name
/// lookup or a connection that is being made keeps the thread, the first until the operating system gives up, the second
/// until its timeout. At most eight calls hang at once: beyond that, requests fail.
///
/// The proxies come from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), as it is when the client
/// is made; [`builder`](Self::builder) sets another one, or none.
///
/// A clone has the same settings, and connections and threads of its own.
///
/// At level TRACE, ureq logs every byte it sends, the API key included, to the `log` facade under the target
/// `ureq_proto`: exclude that target if you log at TRACE.
pub struct Ureq {
    agent: Agent,
    /// `None` if the agent is the application's, and with it the choice of proxies.
    proxies: Option<Proxies>,
    /// The process that owns the connections.
    fork: Fork,
    /// The idle worker, for executors whose threads must not block.
    idle: Option<Worker>,
    /// Its reference count, less one, is the number of calls in flight.
    threads: Arc<()>,
}

/// Bounds the calls in flight: the abandoned ones that still hang, and the current one.
const MAX_THREADS: usize = 8;

type SendResult = Result<Response<Bytes>, HttpError>;
type Job = Box<dyn FnOnce() + Send>;
type Worker = Sender<Job>;

impl Ureq {
    /// A client with a [timeout](Self::with_timeout) of 30 s.
    #[must_use]
    pub fn new() -> Self {
        Self::with_timeout(builder::TIMEOUT)
    }

    /// A client that bounds each phase of a call (connecting, sending head and body, waiting for head and body of the
    /// response) by `timeout`.
    ///
    /// A session's calls are also bounded by what is left of the attempt, so this matters only if it is less than
    /// `http_timeout`. Name lookups are not bounded: they take as long as the operating system takes.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self::with_settings(builder::config(timeout).build(), Proxies::from_env())
    }

    /// Root certificates, a client certificate, a proxy, timeouts: what the client of a session needs in some networks,
    /// without an agent of the application's own.
    #[must_use]
    pub fn builder() -> UreqBuilder {
        UreqBuilder::new()
    }

    /// A client that uses `agent`, which brings its own certificates, proxies and middleware.
    ///
    /// Per request, whatever the agent's settings: no redirects are followed, statuses are not errors, and timeouts
    /// that are longer than what is left of the attempt, or missing, are set to that. An abandoned call ends by these
    /// timeouts, not at once. Middleware that follows redirects itself would carry the API key to another host.
    #[must_use]
    pub fn with_agent(agent: Agent) -> Self {
        Self::with_parts(agent, None)
    }

    fn with_settings(config: ureq::config::Config, proxies: Proxies) -> Self {
        Self::with_parts(connect::agent(config), Some(proxies))
    }

    fn with_parts(agent: Agent, proxies: Option<Proxies>) -> Self {
        Self {
            agent,
            proxies,
            fork: Fork::here(),
            idle: None,
            threads: Arc::default(),
        }
    }

    /// A job that makes one call and sends the result to `results`, unless the receiver is gone.
    fn job(&self, call: Call, results: Sender<SendResult>) -> Result<Job, HttpError> {
        if Arc::strong_count(&self.threads) > MAX_THREADS {
            return Err(HttpError::new("too many stalled requests"));
        }
        let busy = Arc::clone(&self.threads);
        let sessions = own_work::current();
        Ok(Box::new(move || {
            let own = (origin::OwnWork::enter(), sessions.enter());
            let result = call.run();
            drop(own);
            drop(busy);
            finish_call(|| drop(results.try_send(result)));
        }))
    }

    /// The proxy for a request, unless the agent decides.
    fn proxy(&self, url: &Uri) -> Result<Option<Option<ureq::Proxy>>, HttpError> {
        let Some(proxies) = &self.proxies else {
            return Ok(None);
        };
        let proxy = proxies.find(url)?;
        let proxy = proxy.map(|url| ureq::Proxy::new(&url)).transpose();
        proxy
            .map(Some)
            .map_err(|_| HttpError::new("proxy: invalid"))
    }

    /// Ends the calls in flight: shuts the agent down, and goes on with another one.
    fn abandon_calls(&mut self) {
        // The application's agent may be in use elsewhere, and in the child of a fork, the connections are the parent's.
        if self.proxies.is_some() && !self.fork.is_forked() {
            let next = connect::agent(self.agent.config().clone());
            core::mem::replace(&mut self.agent, next).shutdown();
        }
    }

    async fn start(&mut self, call: Call) -> SendResult {
        let early = Arc::clone(&call.early);
        let (results, result) = bounded(1);
        let job = self.job(call, results)?;
        let result = wait(result, &early);
        let Err(job) = run_here(job).await else {
            return result.await;
        };
        let worker = match self.idle.take() {
            Some(worker) => worker,
            None => start_worker()?,
        };
        // The channel has room: an idle worker has run all its jobs.
        worker.try_send(job).map_err(|_| died())?;
        let result = result.await;
        if !early.is_taken() {
            self.idle = Some(worker);
        }
        result
    }
}

fn died() -> HttpError {
    HttpError::new("ureq's thread died")
}

/// Waits for the result, or if the attempt is about to end, takes the head of a response whose body has not come.
async fn wait(result: async_channel::Receiver<SendResult>, early: &Early) -> SendResult {
    let mut result = pin!(result.recv());
    poll_fn(|context| match result.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|_| died())?),
        // The session polls once more at its deadline.
        Poll::Pending => early.take_if_late().map_or(Poll::Pending, Poll::Ready),
    })
    .await
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

/// Ends its call when it is dropped, unless that is over.
struct InFlight<'a> {
    client: &'a mut Ureq,
    is_over: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.client.abandon_calls();
        }
    }
}

impl HttpClient for Ureq {
    async fn send(&mut self, request: Request<Bytes>) -> SendResult {
        let proxy = self.proxy(request.uri())?;
        let call = Call::new(self.agent.clone(), proxy, request);
        let early = Arc::clone(&call.early);
        let mut in_flight = InFlight {
            client: self,
            is_over: false,
        };
        let result = in_flight.client.start(call).await;
        in_flight.is_over = !early.is_taken();
        result
    }

    fn check(&self, url: &Uri) -> Result<(), HttpError> {
        self.proxy(url).map(drop)
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
    poll_fn(|context| {
        let result = job
            .take()
            .map(|job| super::thread::run_on_leader(context.waker(), job));
        Poll::Ready(result.unwrap_or(Ok(())))
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

impl Clone for Ureq {
    fn clone(&self) -> Self {
        let agent = match self.proxies {
            Some(_) => connect::agent(self.agent.config().clone()),
            None => self.agent.clone(),
        };
        Self::with_parts(agent, self.proxies.clone())
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
