//! The seam to an HTTP client.

use super::failure::Failure;
use crate::event::exception::chain;
use crate::event::{Blame, Classify};
use crate::text::Reason;
use alloc::boxed::Box;
use bytes::Bytes;
use core::error::Error;
use core::fmt;
use core::future::Future;
use core::time::Duration;
use http::{HeaderMap, Request, Response, StatusCode, Uri};

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
    /// When the caller abandons the request, counted from its start: no phase of it needs to last longer, and
    /// connecting should take a part of it only, so that a name's second address gets its turn. [`HttpTransport`] sets
    /// it to what is left of the attempt.
    ///
    /// [`HttpTransport`]: crate::HttpTransport
    pub give_up_after: Option<Duration>,
    /// How long the body may take once the head is there. After that, the response counts as cut off:
    /// see [`HttpError::with_response`].
    pub body_timeout: Option<Duration>,
}

impl ResponseBounds {
    /// The bounds in a request's extensions, or the defaults.
    pub fn of<B>(request: &Request<B>) -> Self {
        let bounds = request.extensions().get().copied();
        bounds.unwrap_or(Self {
            max_bytes: MAX_RESPONSE_BYTES,
            timeout: None,
            give_up_after: None,
            body_timeout: None,
        })
    }

    /// How long the body may take if the head arrived `elapsed` after the request's start: at most half of what is left,
    /// so that the head is reported in time.
    #[cfg(any(feature = "reqwest", feature = "surf"))]
    pub(crate) fn body_time(&self, elapsed: Duration) -> Option<Duration> {
        let left = self
            .give_up_after
            .map(|after| after.saturating_sub(elapsed) / 2);
        [self.body_timeout, left].into_iter().flatten().min()
    }
}

/// An HTTP client for [`HttpTransport`](crate::HttpTransport): one request at a time, with an absolute `http://` or
/// `https://` URI and a complete body.
///
/// Any closure that returns such a future implements it, so a custom client takes a few lines (clone what the closure
/// captures into the future: `|request| send(client.clone(), request)`):
///
/// ```
/// // Or from the crates `bytes` and `http`, in the same versions.
/// use tinkex_telemetry::http::{HttpError, bytes::Bytes, http::{Request, Response}};
/// use tinkex_telemetry::{Config, HttpTransport};
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
///   say) and not much more; the rest may be left unread. A response that is cut off after its head is an [`HttpError`]
///   [with that response](HttpError::with_response): its status counts.
/// * **The request unchanged**: its headers are complete except for `host` and `content-length`. Drop the body once the
///   response is there, so that its buffer can be reused.
/// * **`expect: 100-continue`**, which a request has if an earlier attempt broke while it was being sent: wait for the
///   server's answer for a moment before the body is sent. A client that cannot wait may send it at once; one that
///   takes a `100 Continue` for the final response must remove the header.
/// * **A connection that breaks** while the request is being sent, or is reset before the response, should be marked
///   [as such](HttpError::broke_while_sending).
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

    /// Whether this client can send requests to `url`, as far as its settings tell: called when an enabled session is
    /// built, on the thread that builds it. Default: no checks.
    ///
    /// # Errors
    /// When it cannot. The message names the setting, and what to change; it must not contain credentials.
    fn check(&self, url: &Uri) -> Result<(), HttpError> {
        let _ = url;
        Ok(())
    }

    /// Who is to blame for one of the client's own errors, for applications that use the same client; see
    /// [`Transport::blame`](crate::Transport::blame). Default: unknown.
    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }

    /// The function that says so for this value; see [`Transport::classifier`](crate::Transport::classifier). Default:
    /// [`blame`](Self::blame).
    fn classifier(&self) -> Classify
    where
        Self: Sized,
    {
        Self::blame
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
#[derive(Clone, PartialEq, Eq)]
pub struct HttpError {
    reason: Reason,
    kind: HttpErrorKind,
    /// For HTTP events, where more is known than the message.
    failure: Option<Failure>,
    response: Option<Box<Cut>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpErrorKind {
    Failed,
    BrokeWhileSending,
    Final,
}

/// A response that was cut off after its head.
#[derive(Clone, PartialEq, Eq)]
struct Cut {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl HttpError {
    /// An error with the message `reason`.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self {
            reason: Reason::new(reason),
            kind: HttpErrorKind::Failed,
            failure: None,
            response: None,
        }
    }

    /// An error with the messages of `error` and its sources (at most 16), outermost first.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self {
            failure: Some(Failure::from_error(error)),
            ..Self::new(OneLine(error))
        }
    }

    /// Marks that the connection broke while the request was being sent, or was reset before any response: a server
    /// may have answered early, and the answer was lost. The next attempt then asks first, with `expect: 100-continue`.
    #[must_use]
    pub fn broke_while_sending(mut self) -> Self {
        self.kind = HttpErrorKind::BrokeWhileSending;
        self
    }

    /// Whether the connection [broke while sending](Self::broke_while_sending).
    #[must_use]
    pub const fn has_broken_while_sending(&self) -> bool {
        matches!(self.kind, HttpErrorKind::BrokeWhileSending)
    }

    /// Marks that the request must not be repeated: its events are dropped as rejected.
    #[must_use]
    pub fn not_retryable(mut self) -> Self {
        self.kind = HttpErrorKind::Final;
        self
    }

    /// Whether the request may be repeated.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self.kind, HttpErrorKind::Final)
    }

    /// Adds the response that was cut off, stalled or broke its framing after its head: its body is what had arrived.
    /// For [`HttpTransport`](crate::HttpTransport) the status then decides, as if the response had been complete.
    #[must_use]
    pub fn with_response(mut self, response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        self.response = Some(Box::new(Cut {
            status: parts.status,
            headers: parts.headers,
            body,
        }));
        self
    }

    /// The response that was cut off, if its head was complete.
    #[must_use]
    pub fn response(&self) -> Option<Response<Bytes>> {
        let cut = self.response.as_deref()?;
        let mut response = Response::new(cut.body.clone());
        *response.status_mut() = cut.status;
        response.headers_mut().clone_from(&cut.headers);
        Some(response)
    }

    pub(crate) fn failure(&self) -> Failure {
        self.failure
            .unwrap_or_else(|| Failure::from_text(self.message()))
    }

    pub(crate) fn message(&self) -> &str {
        self.reason.as_str()
    }
}

/// Without headers and body.
impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_u16())
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

crate::text::debug_with_causes!(HttpError);

impl Error for HttpError {}

/// An error's text and those of its sources, on one line.
struct OneLine<'a>(&'a (dyn Error + 'static));

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for error in chain(self.0) {
            write!(f, "{separator}{error}")?;
            separator = ": ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[derive(Debug)]
    struct Circular;

    impl fmt::Display for Circular {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }

    impl Error for Circular {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn an_error_that_is_its_own_source_is_cut() {
        let error = HttpError::from_error(&Circular);
        assert!(error.to_string().starts_with("again: again: "), "{error}");
        assert_eq!(error.failure(), Failure::UNKNOWN);
    }

    #[test]
    fn the_response_that_was_cut_off_is_kept_and_its_headers_are_not_shown() {
        let mut response = Response::new(Bytes::from_static(b"half"));
        *response.status_mut() = StatusCode::ACCEPTED;
        let value = http::HeaderValue::from_static("a-secret");
        response.headers_mut().insert("set-cookie", value);
        let error = HttpError::new("cut").with_response(response);
        assert!(!alloc::format!("{error:?}").contains("a-secret"));
        let response = error.response().expect("it has one");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()["set-cookie"], "a-secret");
        assert_eq!(response.body(), "half");
    }
}
