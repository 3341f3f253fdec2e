//! surf: an asynchronous HTTP client with pluggable backends.

use super::common::timer;
use super::http::events::{Marks, OwnRequest};
use super::http::failure::{Failure, has_reset};
use super::http::{HttpClient, HttpError, HttpEvents, ResponseBounds, RetryCount};
use crate::event::exception::DynamicError;
use crate::event::{Blame, Loggable};
use crate::sys::panics;
use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;
use futures::io::{AsyncRead, AsyncReadExt as _, Cursor};
use http::header::{CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use std::sync::OnceLock;
use std::time::Instant;
use surf::http::{Body, Method};
use surf::middleware::{Middleware, Next};
use surf::{Client, Url};

/// An [`HttpClient`] over the application's own `surf::Client`, on any executor that the client's backend supports.
/// surf is unmaintained: this is for programs that already use it.
///
#[cfg_attr(not(doctest), doc = include_str!("surf.md"))]
///
/// This crate enables none of surf's backends: the application chooses one, and with it TLS, through surf's own
/// features. The client must have no middleware that follows redirects, for that carries the API key to another host:
/// events that were redirected count as rejected, and a diagnostic says that the key has left. Its own timeout (60 s)
/// is only a backstop: the session abandons an attempt after `http_timeout`.
///
/// surf's own backend (`h1-client`, `h1-client-rustls`, and `h1-client-no-tls`, which supports only `http://`) has
/// limits that this adapter cannot lift: name lookups block the executor's thread, and with it `http_timeout`; an
/// address that swallows packets is waited for, and a second one never tried; proxies are not used; an answer that
/// comes while a large request is still being sent is not heard (batches are then halved); responses of HTTP/1.0
/// servers, those with a head of 8 KiB or more, and those after a `100 Continue` are refused; so are those with a header
/// whose value is not ASCII, on which surf panics (the attempt fails, and the process's panic hook prints a line); and
/// requests, the API key included, are logged to the `log` facade at level TRACE, target `async_h1`.
///
/// A clone creates clients of its own.
pub struct Surf {
    make: Arc<dyn Fn() -> Client + Send + Sync>,
    /// `None` during a call, and after one that failed or whose connection cannot be reused.
    client: Option<Client>,
}

impl Clone for Surf {
    fn clone(&self) -> Self {
        Self {
            make: Arc::clone(&self.make),
            client: None,
        }
    }
}

impl Surf {
    /// An adapter over the clients that `make` creates, each with connections of its own: not a clone of one in use
    /// elsewhere.
    ///
    /// `make` is called for the first request, and again after a request that failed or was abandoned: surf's own
    /// backend returns that request's connection to its pool, where the next request would take the late response for
    /// its own.
    #[must_use]
    pub fn new(make: impl Fn() -> Client + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(make),
            client: None,
        }
    }
}

impl HttpClient for Surf {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let bounds = ResponseBounds::of(&request);
        let request = convert(request)?;
        let client = self.client.take().unwrap_or_else(|| (self.make)());
        let (response, is_drained) = catch_panic(exchange(&client, request, &bounds)).await?;
        self.client = is_drained.then_some(client);
        Ok(response)
    }
}

/// surf panics on what a server may send, and the application is not to panic with it.
async fn catch_panic<T>(
    exchange: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    let mut exchange = pin!(exchange);
    poll_fn(
        |context| match panics::catch(|| exchange.as_mut().poll(context)) {
            Some(poll) => poll,
            None => Poll::Ready(Err(HttpError::new(
                "surf panicked, as it does on a response with a header that is not ASCII",
            ))),
        },
    )
    .await
}

/// The response, and whether its connection was read to the end and can be reused.
async fn exchange(
    client: &Client,
    mut request: surf::Request,
    bounds: &ResponseBounds,
) -> Result<(Response<Bytes>, bool), HttpError> {
    let started = Instant::now();
    let guard = RedirectGuard::new(request.url());
    let redirected = Arc::clone(&guard.redirected);
    // The last to run: after the client's own middleware.
    request.middleware(guard);
    let sent = client.send(request).await;
    if let Some(host) = redirected.get() {
        return Err(HttpError::new(format_args!(
            "surf's middleware followed a redirect: the API key has left for {host}; remove it"
        ))
        .not_retryable());
    }
    let mut response = sent.map_err(|error| {
        let is_broken = has_reset(error.as_ref()) || is_closed(&error);
        let error = HttpError::new(error);
        if is_broken {
            error.broke_while_sending()
        } else {
            error
        }
    })?;
    // surf takes an interim response for the final one.
    if response.status().is_informational() {
        return Err(HttpError::new(
            "interim response: surf does not wait for the final one",
        ));
    }
    let mut result = Response::new(Bytes::new());
    *result.status_mut() =
        StatusCode::from_u16(response.status().into()).map_err(HttpError::new)?;
    for (name, values) in response.iter() {
        // Headers that surf accepts and the http crate rejects do not matter here.
        if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
            for value in values {
                if let Ok(value) = HeaderValue::from_str(value.as_str()) {
                    result.headers_mut().append(&name, value);
                }
            }
        }
    }
    let len = response.len();
    let is_chunked = response.header(TRANSFER_ENCODING.as_str()).is_some();
    let max_bytes = bounds.max_bytes;
    let limit = bounds.body_time(started.elapsed());
    // A body read to its end lets the connection be reused.
    let (body, error) = read(response.take_body().take(max_bytes as u64), limit).await;
    let body_len = body.len();
    *result.body_mut() = body.into();
    if let Some(error) = error {
        return Err(error.with_response(result));
    }
    // surf takes a closed connection for the end of the body.
    if body_len < len.unwrap_or(0).min(max_bytes) {
        return Err(HttpError::new("the response broke off").with_response(result));
    }
    let has_end = len.is_some() || is_chunked;
    let is_drained = has_end && body_len < max_bytes;
    Ok((result, is_drained))
}

/// Whether the connection was closed before any response. A server that does so may do it because of the request's
/// size, and surf's own backend reads what came before the end only if the whole request could be written.
fn is_closed(error: &surf::Error) -> bool {
    error.to_string() == "connection closed"
}

/// The body, as much of it as arrives in time, and what went wrong, if anything did.
async fn read(
    body: impl AsyncRead + Unpin,
    limit: Option<Duration>,
) -> (Vec<u8>, Option<HttpError>) {
    let (mut body, mut bytes, mut piece) = (body, Vec::new(), [0; 4096]);
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut timer = pin!(until.map(timer::sleep_until));
    let result = poll_fn(|context| {
        loop {
            match Pin::new(&mut body).poll_read(context, &mut piece) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(len)) => bytes.extend_from_slice(&piece[..len]),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(HttpError::from_error(&error)));
                }
                Poll::Pending => break,
            }
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer
                .poll(context)
                .map(|()| Err(HttpError::new("the response's body took too long"))),
            None => Poll::Pending,
        }
    })
    .await;
    (bytes, result.err())
}

/// Stops a request that other middleware has sent to another URL, with the API key.
struct RedirectGuard {
    url: Url,
    /// The host to which it was redirected.
    redirected: Arc<OnceLock<String>>,
}

impl RedirectGuard {
    fn new(url: &Url) -> Self {
        Self {
            url: url.clone(),
            redirected: Arc::default(),
        }
    }
}

#[surf::utils::async_trait]
impl Middleware for RedirectGuard {
    async fn handle(
        &self,
        request: surf::Request,
        client: Client,
        next: Next<'_>,
    ) -> surf::Result<surf::Response> {
        if *request.url() == self.url {
            return next.run(request, client).await;
        }
        let host = request.url().host_str().unwrap_or("another URL");
        let _ = self.redirected.set(host.to_string());
        Err(surf::Error::from_str(surf::StatusCode::Found, "redirected"))
    }
}

fn convert(request: Request<Bytes>) -> Result<surf::Request, HttpError> {
    let (parts, body) = request.into_parts();
    let method: Method = parts.method.as_str().parse().map_err(HttpError::new)?;
    let url = Url::parse(&alloc::format!("{}", parts.uri)).map_err(HttpError::new)?;
    let mut request = surf::Request::new(method, url);
    // The client may have `HttpEvents` as middleware.
    if let Some(own) = parts.extensions.get::<OwnRequest>() {
        request.set_ext(*own);
    }
    let len = body.len();
    request.set_body(Body::from_reader(Cursor::new(body), Some(len)));
    // The body sets a content type of its own.
    request.remove_header(CONTENT_TYPE.as_str());
    let mut headers = parts.headers;
    // surf would take the `100 Continue` for the final response.
    headers.remove(EXPECT);
    for (name, value) in &headers {
        let text = value.to_str();
        let text = text.map_err(|_| {
            HttpError::new(format_args!(
                "surf accepts only ASCII header values, and that of {name} is not"
            ))
            .not_retryable()
        })?;
        request.append_header(name.as_str(), text);
    }
    Ok(request)
}

/// Selects the implementation of [`Loggable`] for surf's errors.
#[derive(Debug)]
pub enum BySurf {}

/// `surf::Error` does not implement `std::error::Error`.
impl Loggable<BySurf> for surf::Error {
    type Any<'a> = DynamicError<'a>;

    fn any(&self) -> DynamicError<'_> {
        DynamicError {
            blame: Some(Blame::status(self.status().into())),
            ..DynamicError::new(self.as_ref())
        }
    }
}

/// surf middleware: emits `stop` once the head of a response has arrived.
///
/// It observes only what the middleware after it does, as one request. Set a [`RetryCount`](crate::http::RetryCount) as
/// a request extension (`set_ext`).
#[cfg_attr(docsrs, doc(cfg(feature = "surf")))]
#[surf::utils::async_trait]
impl Middleware for HttpEvents {
    async fn handle(
        &self,
        request: surf::Request,
        client: Client,
        next: Next<'_>,
    ) -> surf::Result<surf::Response> {
        let marks = Marks {
            is_own: request.ext::<OwnRequest>().is_some(),
            retry_count: request.ext().map_or(0, |RetryCount(count)| *count),
        };
        let path = request.url().path();
        let call = self.start_marked(request.method().as_ref(), path, marks);
        let result = next.run(request, client).await;
        match &result {
            Ok(response) => call.stop(response.status().into()),
            Err(error) => call.fail(match error.downcast_ref::<std::io::Error>() {
                Some(error) => Failure::from_io(error),
                None => Failure::from_text(&error.to_string()),
            }),
        }
        result
    }
}

impl fmt::Debug for Surf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surf").finish_non_exhaustive()
    }
}
