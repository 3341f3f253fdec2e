//! reqwest: an asynchronous HTTP client, for tokio.

mod builder;
mod exchange;

pub use builder::ReqwestBuilder;

use super::http::proxy::Proxies;
use super::http::{HttpClient, HttpError, ResponseBounds};
use crate::event::Blame;
use crate::sys::origin::OwnWork;
use crate::sys::own_work;
use builder::Recipe;
use bytes::Bytes;
use core::error::Error;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::pin;
use exchange::Exchange;
use http::{Request, Response, Uri};
use reqwest::{Client, ClientBuilder};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// An [`HttpClient`] over reqwest, with rustls and the Mozilla root certificates.
///
/// It works on any runtime, but its connections live on a tokio runtime (with `enable_all`): the one around the call
/// that makes the client, or the one given to [`on`](Self::on). Without one, a session cannot be built.
///
/// A server that sends interim responses (`100 Continue`) without end keeps the worker busy that reads them, in the worst
/// case for seconds at a time. Where that is the session's only worker, `http_timeout` is late by as much: if servers
/// cannot be trusted not to, give the client a runtime of its own.
///
/// The proxies come from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), as it is when the client
/// is made; [`builder`](Self::builder) sets another one, or none.
///
/// Neither uses nor sets rustls's process-wide default provider.
#[derive(Clone)]
pub struct Reqwest {
    client: Client,
    /// Where connections live.
    runtime: Option<Handle>,
    /// `None` if the client is the application's, and with it the choice of proxies.
    proxies: Option<Proxies>,
    /// How to make the client again, until the length of an attempt is known.
    recipe: Option<Recipe>,
    /// The client may follow redirects.
    may_redirect: bool,
}

impl Reqwest {
    /// A client that follows no redirects and keeps its connection between requests, on the tokio runtime around this
    /// call, if there is one.
    ///
    /// # Errors
    /// When reqwest cannot be set up.
    pub fn new() -> Result<Self, HttpError> {
        Self::builder().build()
    }

    /// [`new`](Self::new), on this tokio runtime. The session itself may run on any other.
    ///
    /// # Errors
    /// When reqwest cannot be set up.
    pub fn on(runtime: Handle) -> Result<Self, HttpError> {
        Ok(Self::new()?.spawn_on(runtime))
    }

    /// Root certificates, a client certificate, a proxy, timeouts: what the client of a session needs in some networks,
    /// without a client of the application's own.
    #[must_use]
    pub fn builder() -> ReqwestBuilder {
        ReqwestBuilder::new()
    }

    /// A client of reqwest's own builder, for settings that [`builder`](Self::builder) does not have. It follows no
    /// redirects and does not retry, whatever the builder says, so that the API key cannot travel to another host.
    ///
    /// The builder's own certificates, proxies and timeouts apply. Give it a
    /// [`connect_timeout`](ClientBuilder::connect_timeout) below `http_timeout`, so that each address of the host has
    /// its turn.
    ///
    /// # Errors
    /// When reqwest cannot be set up.
    pub fn from_builder(builder: ClientBuilder) -> Result<Self, HttpError> {
        let client = builder
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| HttpError::from_error(&error))?;
        Ok(Self {
            may_redirect: false,
            ..Self::with_client(client)
        })
    }

    /// Uses the application's `client`. **If it follows redirects, as reqwest's clients do by default, a redirect
    /// carries the API key to another host**: this can only be detected afterwards. The events then count as rejected,
    /// never as delivered, and the diagnostic says that the key has left. Prefer [`builder`](Self::builder) or
    /// [`from_builder`](Self::from_builder), which rule that out, or give the client
    /// `redirect(Policy::none())`.
    ///
    /// A redirect to the very same URL cannot be detected. The key does not travel then, but after a 301, 302 or 303
    /// the client asks again without the events, and a 2xx in response to that counts them as delivered.
    ///
    /// The client brings its own certificates, proxies and timeouts.
    #[must_use]
    pub fn with_client(client: Client) -> Self {
        Self {
            client,
            runtime: Handle::try_current().ok(),
            proxies: None,
            recipe: None,
            may_redirect: true,
        }
    }

    /// Sets the tokio runtime on which connections live.
    #[must_use]
    pub fn spawn_on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Fits the client's own time for connecting into that of an attempt.
    fn fit(&mut self, bounds: &ResponseBounds) {
        let Some(left) = bounds.give_up_after else {
            return;
        };
        if let Some(recipe) = self.recipe.take()
            && let Ok(Some(client)) = recipe.fitted(left)
        {
            self.client = client;
        }
    }

    /// Runs `work` where the connections live.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HttpError>> + Send + 'static,
    ) -> Result<T, HttpError> {
        let here = Handle::try_current().ok();
        match (&self.runtime, here) {
            (Some(runtime), Some(here)) if runtime.id() == here.id() => work.await,
            (Some(runtime), _) => spawn(runtime, work).await,
            (None, Some(_)) => work.await,
            (None, None) => Err(no_runtime()),
        }
    }
}

fn no_runtime() -> HttpError {
    HttpError::new(
        "Reqwest has no tokio runtime: make it inside one, or with Reqwest::on(handle), or use Ureq",
    )
}

/// Runs `work` as a task, which ends when this future is dropped.
async fn spawn<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T, HttpError>> + Send + 'static,
) -> Result<T, HttpError> {
    struct Task<T>(JoinHandle<T>);

    impl<T> Drop for Task<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    let sessions = own_work::current();
    let mut task = Task(runtime.spawn(async move {
        let mut work = pin!(work);
        poll_fn(|context| {
            let _own = (OwnWork::enter(), sessions.enter());
            work.as_mut().poll(context)
        })
        .await
    }));
    match (&mut task.0).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(HttpError::new("reqwest panicked")),
        Err(_) => Err(HttpError::new("the tokio runtime of Reqwest has ended")),
    }
}

impl HttpClient for Reqwest {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if let Some(proxies) = &self.proxies {
            proxies.find(request.uri())?;
        }
        let bounds = ResponseBounds::of(&request);
        self.fit(&bounds);
        let exchange = Exchange {
            client: self.client.clone(),
            bounds,
            may_redirect: self.may_redirect,
        };
        self.run(exchange.run(request)).await
    }

    fn check(&self, url: &Uri) -> Result<(), HttpError> {
        if let Some(proxies) = &self.proxies {
            proxies.find(url)?;
        }
        match self.runtime.is_some() || Handle::try_current().is_ok() {
            true => Ok(()),
            false => Err(no_runtime()),
        }
    }

    /// The status of a [`reqwest::Error`] from `error_for_status`.
    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        let status = error.downcast_ref::<reqwest::Error>()?.status()?;
        Some(Blame::status(status.as_u16()))
    }
}

impl fmt::Debug for Reqwest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reqwest")
            .field("has_runtime", &self.runtime.is_some())
            .finish_non_exhaustive()
    }
}
