//! surf: an asynchronous HTTP client with pluggable backends.

use super::http::events::{Marks, OwnRequest};
use super::http::failure::Failure;
use super::http::{HttpClient, HttpError, HttpEvents, ResponseBounds, RetryCount};
use crate::capture::{OnError, Outcome};
use crate::event::Blame;
use crate::event::exception::DynamicError;
use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use futures::io::{AsyncReadExt as _, Cursor};
use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use surf::http::{Body, Method};
use surf::middleware::{Middleware, Next};
use surf::{Client, Url};

/// An [`HttpClient`] over the application's own `surf::Client`, on any executor that the client's backend supports.
/// surf is unmaintained: this is for programs that already use it.
///
#[cfg_attr(not(doctest), doc = include_str!("surf.md"))]
///
/// This crate enables none of surf's backends: the application chooses one, and with it TLS, through surf's own
/// features. The client should have no middleware that follows redirects. Its own timeout (60 s) is only a backstop:
/// the session abandons an attempt after `http_timeout`.
///
/// surf's own backend (`h1-client`, `h1-client-rustls`, and `h1-client-no-tls`, which supports only `http://`) has
/// limits that this adapter cannot lift: name lookups block the executor's thread, and with it `http_timeout`;
/// responses of HTTP/1.0 servers are refused; and requests, the API key included, are logged to the `log` facade at
/// level TRACE, target `async_h1`.
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
        let max_bytes = ResponseBounds::of(&request).max_bytes;
        let request = convert(request)?;
        let client = self.client.take().unwrap_or_else(|| (self.make)());
        let (response, is_drained) = exchange(&client, request, max_bytes).await?;
        self.client = is_drained.then_some(client);
        Ok(response)
    }
}

/// The response, and whether its connection was read to the end and can be reused.
async fn exchange(
    client: &Client,
    request: surf::Request,
    max_bytes: usize,
) -> Result<(Response<Bytes>, bool), HttpError> {
    let mut response = client.send(request).await.map_err(HttpError::new)?;
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
    let mut body = Vec::new();
    // A body read to its end lets the connection be reused.
    response
        .take_body()
        .take(max_bytes as u64)
        .read_to_end(&mut body)
        .await
        .map_err(|error| HttpError::from_error(&error))?;
    // surf takes a closed connection for the end of the body.
    if body.len() < len.unwrap_or(0).min(max_bytes) {
        return Err(HttpError::new("the response broke off"));
    }
    let has_end = len.is_some() || is_chunked;
    let is_drained = has_end && body.len() < max_bytes;
    *result.body_mut() = body.into();
    Ok((result, is_drained))
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
    for (name, value) in &parts.headers {
        let text = value.to_str();
        let text = text.map_err(|_| {
            HttpError::new(format_args!(
                "surf accepts only ASCII header values, and that of {name} is not"
            ))
        })?;
        request.append_header(name.as_str(), text);
    }
    Ok(request)
}

/// Selects the implementation of [`Outcome`] for surf's errors.
#[derive(Debug)]
pub enum BySurf {}

impl<T> Outcome<BySurf> for Result<T, surf::Error> {
    fn error(&self, on_error: OnError<'_>) {
        if let Err(error) = self {
            // `surf::Error` does not implement `std::error::Error`.
            on_error(&DynamicError {
                blame: Some(Blame::status(error.status().into())),
                ..DynamicError::new(error.as_ref())
            });
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
