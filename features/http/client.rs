//! The seam to an HTTP client.

use super::failure::Failure;
use crate::event::Blame;
use crate::event::exception::OneLine;
use crate::text::Reason;
use bytes::Bytes;
use core::error::Error;
use core::fmt;
use core::future::Future;
use core::time::Duration;
use http::{Request, Response};

/// How much of a response's body is read, in bytes, unless [`ResponseBounds`] say otherwise.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// How large a response may be and how long it may take: a request extension. Without it, [`MAX_RESPONSE_BYTES`] and
/// the client's own timeouts apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseBounds {
    /// How much of the body is read, in bytes.
    pub max_bytes: usize,
    /// How long the caller waits before it abandons the request. A timeout of the client's own should be no shorter.
    pub timeout: Option<Duration>,
}

impl ResponseBounds {
    /// The bounds in a request's extensions, or the defaults.
    pub fn of<B>(request: &Request<B>) -> Self {
        let bounds = request.extensions().get().copied();
        bounds.unwrap_or(Self {
            max_bytes: MAX_RESPONSE_BYTES,
            timeout: None,
        })
    }
}

/// An HTTP client for [`HttpTransport`](crate::HttpTransport): one request at a time, with an absolute `http://` or
/// `https://` URI and a complete body.
///
/// Any closure that returns such a future implements it, so a custom client takes a few lines (clone what the closure
/// captures into the future: `|request| send(client.clone(), request)`):
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use tinkex_telemetry::{Config, HttpTransport};
/// use tinkex_telemetry::http::HttpError;
///
/// # fn example() -> Result<(), tinkex_telemetry::http::ConfigError> {
/// let transport = HttpTransport::new(Config::from_env()?, async |request: Request<Bytes>| {
///     println!("POST {} ({} bytes)", request.uri(), request.body().len());
///     Ok::<_, HttpError>(Response::new(Bytes::new()))
/// });
/// # drop(transport);
/// # Ok(())
/// # }
/// ```
///
/// What an implementer owes:
///
/// * **The response unchanged**, whatever its status: follow no redirects (they could carry the credentials to another
///   host), do not retry, return no error for a status. Nothing needs to be decompressed.
/// * **The body**, at least its first [`MAX_RESPONSE_BYTES`] (or what [`ResponseBounds`] in the request's extensions
///   say) and not much more; the rest may be left unread. A truncated response is an [`HttpError`].
/// * **The request unchanged**: its headers are complete except for `host` and `content-length`. Drop the body once the
///   response is there, so that its buffer can be reused.
/// * **Cancel safety.** The session drops the future after its `http_timeout`; the next request must not have to wait
///   for that one. Use a timeout of your own only as a backstop.
/// * **No blocking**, and no panic where an error will do.
pub trait HttpClient: Send + 'static {
    /// Sends a request and reads the response.
    ///
    /// # Errors
    /// When there is no complete response, for any reason. The session retries.
    fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Bytes>, HttpError>> + Send;

    /// Who is to blame for one of the client's own errors, for applications that use the same client; see
    /// [`Transport::blame`](crate::Transport::blame). Default: unknown.
    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }
}

impl<F, Fut> HttpClient for F
where
    F: FnMut(Request<Bytes>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Response<Bytes>, HttpError>> + Send,
{
    fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Bytes>, HttpError>> + Send {
        self(request)
    }
}

/// A request that got no complete response.
///
/// The message appears in diagnostics. It is truncated to 160 bytes and must not contain headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    reason: Reason,
    /// For HTTP events, where more is known than the message.
    failure: Option<Failure>,
}

impl HttpError {
    /// An error with the message `reason`.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self {
            reason: Reason::new(reason),
            failure: None,
        }
    }

    /// An error with the messages of `error` and its sources, outermost first.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self {
            reason: Reason::new(OneLine(error)),
            failure: Some(Failure::from_error(error)),
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        self.failure
            .unwrap_or_else(|| Failure::from_text(self.message()))
    }

    pub(crate) fn message(&self) -> &str {
        self.reason.as_str()
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl Error for HttpError {}
