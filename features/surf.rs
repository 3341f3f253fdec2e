//! surf: an asynchronous HTTP client with exchangeable backends.

use super::http::{
    AnswerBounds, HttpClient, HttpError, HttpEvents, Marks, OwnRequest, RetryCount, of_error,
    of_text,
};
use crate::capture::Found;
use crate::event::exception::Dynamic;
use crate::{Fault, Outcome};
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

/// A [`HttpClient`] over a `surf::Client` of the application's own, on any executor that the client's backend works on.
/// surf is unmaintained: this is for programs that have it.
///
/// ```
/// # use tinkex_telemetry::Surf;
/// let client = Surf::new(surf::Client::new);
/// # drop(client);
/// ```
///
/// This crate enables none of surf's backends: the application chooses one with surf's own features, TLS with it. The
/// client should have no middleware that follows redirects. Its own timeout (60 s) is only a backstop: the session
/// gives an attempt up after `http_timeout`.
///
/// What surf's own backend (`h1-client`, `h1-client-rustls`, and `h1-client-no-tls`, which takes only `http://`) does
/// and this cannot change: it looks names up on the executor's thread, which stands still meanwhile, `http_timeout`
/// with it; it refuses the answers of HTTP/1.0 servers; and it writes requests, the API key among them, to the `log`
/// facade at level TRACE, target `async_h1`.
///
/// A clone makes clients of its own.
pub struct Surf {
    make: Arc<dyn Fn() -> Client + Send + Sync>,
    /// None while a call is under way, and after one that did not end well.
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
    /// `make` makes a client, with connections of its own: not a clone of one that has others.
    ///
    /// It is called for the first request and for the one after a request that was given up or failed. surf's own
    /// backend puts the connection of such a request back into its pool, where the next request would take it, and the
    /// late answer for its own.
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
        let most = AnswerBounds::of(&request).max_bytes;
        let request = convert(request)?;
        let client = self.client.take().unwrap_or_else(|| (self.make)());
        let (answer, is_read) = exchange(&client, request, most).await?;
        self.client = is_read.then_some(client);
        Ok(answer)
    }
}

/// The answer, and whether its connection has nothing more to say.
async fn exchange(
    client: &Client,
    request: surf::Request,
    most: usize,
) -> Result<(Response<Bytes>, bool), HttpError> {
    let mut answer = client.send(request).await.map_err(HttpError::new)?;
    // surf takes the first head for the answer, though another one is to come.
    if answer.status().is_informational() {
        return Err(HttpError::new(
            "an interim answer, after which surf does not wait for the answer",
        ));
    }
    let mut result = Response::new(Bytes::new());
    *result.status_mut() = StatusCode::from_u16(answer.status().into()).map_err(HttpError::new)?;
    for (name, values) in answer.iter() {
        // What surf takes for a header and http does not is none that matters here.
        if let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes()) {
            for value in values {
                if let Ok(value) = HeaderValue::from_str(value.as_str()) {
                    result.headers_mut().append(&name, value);
                }
            }
        }
    }
    let len = answer.len();
    let is_chunked = answer.header(TRANSFER_ENCODING.as_str()).is_some();
    let mut body = Vec::new();
    // Read to its end, the connection can be used again.
    answer
        .take_body()
        .take(most as u64)
        .read_to_end(&mut body)
        .await
        .map_err(|error| HttpError::from_error(&error))?;
    // surf takes the end of the connection for the end of the body.
    if body.len() < len.unwrap_or(0).min(most) {
        return Err(HttpError::new("the answer broke off"));
    }
    let has_end = len.is_some() || is_chunked;
    let is_read = has_end && body.len() < most;
    *result.body_mut() = body.into();
    Ok((result, is_read))
}

fn convert(request: Request<Bytes>) -> Result<surf::Request, HttpError> {
    let (parts, body) = request.into_parts();
    let method: Method = parts.method.as_str().parse().map_err(HttpError::new)?;
    let url = Url::parse(&alloc::format!("{}", parts.uri)).map_err(HttpError::new)?;
    let mut request = surf::Request::new(method, url);
    // So that a middleware of the client's can tell.
    if let Some(own) = parts.extensions.get::<OwnRequest>() {
        request.set_ext(*own);
    }
    let len = body.len();
    request.set_body(Body::from_reader(Cursor::new(body), Some(len)));
    // The body brings a type of its own.
    request.remove_header(CONTENT_TYPE.as_str());
    for (name, value) in &parts.headers {
        let text = value.to_str();
        let text = text.map_err(|_| {
            HttpError::new(format_args!(
                "surf takes only ASCII headers, and {name} is not"
            ))
        })?;
        request.append_header(name.as_str(), text);
    }
    Ok(request)
}

/// The errors of surf.
#[derive(Debug)]
pub enum BySurf {}

impl<T> Outcome<BySurf> for Result<T, surf::Error> {
    fn error(&self, found: Found<'_>) {
        if let Err(error) = self {
            // surf's errors are none in the sense of the standard library.
            found(&Dynamic {
                fault: Some(Fault::status(error.status().into())),
                ..Dynamic::new(error.as_ref())
            });
        }
    }
}

/// A middleware of surf's: tells of a `stop` when the head of an answer is there.
///
/// What middleware comes before it is not told of, and what comes behind it is told of as one request. A
/// [`RetryCount`](crate::RetryCount) is an extension of the request (`set_ext`).
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
            retries: request.ext().map_or(0, |RetryCount(count)| *count),
        };
        let path = request.url().path();
        let call = self.start_marked(request.method().as_ref(), path, marks);
        let result = next.run(request, client).await;
        match &result {
            Ok(answer) => call.stop(answer.status().into()),
            Err(error) => call.fail(match error.downcast_ref::<std::io::Error>() {
                Some(error) => of_error(error),
                None => of_text(&error.to_string()),
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
