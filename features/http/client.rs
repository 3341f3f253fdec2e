//! The seam to an HTTP client.

use super::reason::{Failure, of_error, of_text};
use crate::event::Blame;
use crate::text::Reason;
use bytes::Bytes;
use core::error::Error;
use core::fmt;
use core::future::Future;
use core::time::Duration;
use http::{Request, Response};

/// The most that is wanted of an answer's body, in bytes, where [`ResponseBounds`] do not say otherwise.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// How much of an answer is wanted and how long it may take, as an extension of the request. Without one it is
/// [`MAX_RESPONSE_BYTES`], and the client's own timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseBounds {
    /// The most that is wanted of the body, in bytes.
    pub max_bytes: usize,
    /// How long the caller waits before it gives the request up: a backstop of the client's own should be no shorter.
    pub timeout: Option<Duration>,
}

impl ResponseBounds {
    /// What a request asks for.
    pub fn of<B>(request: &Request<B>) -> Self {
        let own = request.extensions().get().copied();
        own.unwrap_or(Self {
            max_bytes: MAX_RESPONSE_BYTES,
            timeout: None,
        })
    }
}

/// An HTTP client, as [`HttpTransport`](crate::HttpTransport) uses it: one request at a time, with an absolute
/// `http://` or `https://` URI and a body that is already there.
///
/// Any closure that returns such a future is one, so a client of the application's own is a few lines (what it captures
/// is cloned into the future, as with `|request| send(client.clone(), request)`):
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
/// * **The answer as it is**, whatever its status: no redirects followed (credentials must not travel), no retries, no
///   error for a status. Nothing needs to be decompressed.
/// * **The body**, at least its first [`MAX_RESPONSE_BYTES`] (or what [`ResponseBounds`] among the request's extensions
///   say) and not much more; the rest may be left unread. An answer that breaks off is an [`HttpError`].
/// * **The request as it is**: its headers are complete but for `host` and `content-length`. Let go of the body when
///   the answer is there: its buffer is then used again.
/// * **Cancel safety.** The future is dropped when the session's `http_timeout` is over; the next request must not have
///   to wait for the one before. A timeout of the client's own is welcome only as a backstop.
/// * **No blocking**, and no panic where an error will do.
pub trait HttpClient: Send + 'static {
    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When there is no complete answer, whatever the reason. The session tries again.
    fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Bytes>, HttpError>> + Send;

    /// What the client's own errors say of whose fault they were, where the application uses the same client; see
    /// [`Transport::blame`](crate::Transport::blame). Default: nothing.
    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }
}

impl<F, A> HttpClient for F
where
    F: FnMut(Request<Bytes>) -> A + Send + 'static,
    A: Future<Output = Result<Response<Bytes>, HttpError>> + Send,
{
    fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Bytes>, HttpError>> + Send {
        self(request)
    }
}

/// A request to which there was no complete answer.
///
/// The message goes into diagnostics. It is cut at 160 bytes and must not contain headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    reason: Reason,
    /// What an event may tell of it, where more is known than the message.
    failure: Option<Failure>,
}

impl HttpError {
    /// An error whose message is `reason`.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self {
            reason: Reason::new(reason),
            failure: None,
        }
    }

    /// An error whose message is that of `error` and of its sources, from the outside in.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self {
            reason: Reason::new(Chain(error)),
            failure: Some(of_error(error)),
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        self.failure.unwrap_or_else(|| of_text(self.message()))
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

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.source() {
            Some(source) => write!(f, ": {}", Chain(source)),
            None => Ok(()),
        }
    }
}
