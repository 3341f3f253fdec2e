//! Transports: carry batches to a backend and report what became of them.

mod batch;
#[cfg(feature = "alloc")]
mod boxed;
mod either;
pub(crate) mod member;
#[cfg(has_arc)]
mod sample;

pub use crate::engine::retry::RetryAfter;
pub use batch::Batch;
pub(crate) use batch::{BatchMeta, Body, Objects};
#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub use boxed::BoxTransport;
pub use either::Either;
#[cfg(has_arc)]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub use sample::SampleBatch;

use crate::event::exception::{Blame, Classify};
use crate::text::{ASKS_FOR_TYPE, Reason};
use core::fmt;
use core::future::Future;

/// Sends batches to a backend. This is the trait to implement for a backend of your own:
///
/// ```
/// # use tinkex_telemetry::{Batch, Receipt, SendError, Transport};
/// struct Stdout;
///
/// impl Transport for Stdout {
///     async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
///         println!("{}", String::from_utf8_lossy(batch.body()));
///         Ok(Receipt::delivered())
///     }
/// }
/// ```
///
/// What an implementer owes:
///
/// * **One attempt, no policy.** The session handles retries, backoff, timeouts and splitting. Map the outcome to a
///   [`Receipt`] or to the [`SendError`] that says what the session should do next.
/// * **Cancel safety.** The future is dropped at its deadline (`http_timeout`, or a stop's) and with the driver. The
///   batch then stays queued and is sent again with the same idempotency key. `send` must be callable again afterwards.
/// * **No blocking.** `send` runs on the driver's executor; move blocking work to a thread.
/// * **Panics** are caught with `std` and count as one failed attempt.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no transport",
    label = "not a `Transport`",
    note = "an HTTP client becomes one by `HttpTransport::new(config, client)`; for anything else implement `Transport`, whose one required method is `async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError>`",
    note = "one that is chosen when the program runs is a `BoxTransport::new(transport)`, or one of two in `Either`",
    note = "a `Transport` and its future are `Send`; implement `LocalTransport` for one that is not, and run it with `Builder::build`"
)]
pub trait Transport: Send + 'static {
    /// Sends one batch, in one attempt. The session may drop the future before it completes, and keeps the batch then.
    ///
    /// # Errors
    /// When the attempt failed; the [`SendError`] says what the session should do next.
    fn send(&mut self, batch: Batch<'_>)
    -> impl Future<Output = Result<Receipt, SendError>> + Send;

    /// Validates the transport's own configuration. Called when an enabled session is built. Default: no checks.
    ///
    /// # Errors
    /// When a setting is missing or invalid; returned as a [`BuildError`](crate::session::BuildError).
    fn check(&self) -> Result<(), SetupError> {
        Ok(())
    }

    /// Where the events go, if a second session with the same id would collide there: building one fails, as long as
    /// the first is live in this process and has not begun to stop. Default: `None`, which allows it.
    fn destination(&self) -> Option<&str> {
        None
    }

    /// What is questionable about the configuration, to be [reported](crate::diagnostic::DiagnosticKind::Setting) when
    /// a session starts. Default: `None`.
    fn warning(&self) -> Option<SetupError> {
        None
    }

    /// Classifies errors of the transport's client as user errors or not. The session calls it for every error on the
    /// `source()` chain of a logged one, since the application probably uses the same client. Default: `None`.
    fn blame<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Blame<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }

    /// The function that classifies errors for this value: for a transport that is one of any type (`BoxTransport`), and
    /// so knows its client only when it is there. Default: [`blame`](Self::blame).
    fn classifier(&self) -> Classify
    where
        Self: Sized,
    {
        Self::blame
    }
}

/// [`Transport`] without `Send`: for bare metal, wasm and transports that hold an `Rc`.
///
/// Implemented by every `Transport`.
pub trait LocalTransport {
    /// See [`Transport::send`].
    ///
    /// # Errors
    /// See [`Transport::send`].
    fn send(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Receipt, SendError>>;

    /// See [`Transport::check`].
    ///
    /// # Errors
    /// See [`Transport::check`].
    fn check(&self) -> Result<(), SetupError> {
        Ok(())
    }

    /// See [`Transport::destination`].
    fn destination(&self) -> Option<&str> {
        None
    }

    /// See [`Transport::warning`].
    fn warning(&self) -> Option<SetupError> {
        None
    }

    /// See [`Transport::blame`].
    fn blame<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Blame<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }

    /// See [`Transport::classifier`].
    fn classifier(&self) -> Classify
    where
        Self: Sized,
    {
        Self::blame
    }
}

impl<T: Transport> LocalTransport for T {
    fn send(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Receipt, SendError>> {
        Transport::send(self, batch)
    }

    fn check(&self) -> Result<(), SetupError> {
        Transport::check(self)
    }

    fn destination(&self) -> Option<&str> {
        Transport::destination(self)
    }

    fn warning(&self) -> Option<SetupError> {
        Transport::warning(self)
    }

    fn blame<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Blame<'a>> {
        <T as Transport>::blame(error)
    }

    fn classifier(&self) -> Classify {
        Transport::classifier(self)
    }
}

/// A successful send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(crate) handed_over: bool,
    #[cfg(has_arc)]
    pub(crate) rejected: usize,
}

impl Receipt {
    /// The backend has the events.
    #[must_use]
    pub const fn delivered() -> Self {
        Self {
            handed_over: false,
            #[cfg(has_arc)]
            rejected: 0,
        }
    }

    /// Another system (a spool, a message broker) has taken over the events, and the backend does not have them yet.
    /// The ledger counts them separately.
    #[must_use]
    pub const fn handed_over() -> Self {
        Self {
            handed_over: true,
            #[cfg(has_arc)]
            rejected: 0,
        }
    }

    /// Some of the batch's events were not taken, for good, and it is not known which: this many count as dropped, with
    /// reason `rejected`. At most all of them.
    #[cfg(has_arc)]
    #[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
    #[must_use]
    pub const fn rejected(mut self, events: usize) -> Self {
        self.rejected = events;
        self
    }
}

/// A failed send, and what the session should do next.
///
/// The message goes into diagnostics: say what a person needs to fix the problem, and leave credentials out. It is cut
/// at 160 bytes (64 without `alloc`).
#[derive(Clone, PartialEq, Eq)]
pub struct SendError {
    pub(crate) kind: SendErrorKind,
    pub(crate) reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendErrorKind {
    Retryable(Option<RetryAfter>),
    /// Retryable; the server has failed on this request.
    Failed(Option<RetryAfter>),
    /// Retryable; the connection broke before the whole request had been sent.
    BrokeWhileSending,
    InvalidEvents,
    Rejected,
    /// Rejected, for a reason that a person can remove: nothing is wrong with the events.
    Unauthorized,
    TooLarge,
}

impl SendError {
    /// A timeout, a broken connection, an overloaded server: the batch is retried.
    pub fn retryable(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::Retryable(None), reason)
    }

    /// The server answered that it has failed on this request (over HTTP a 5xx other than 503): the batch is retried.
    /// An event on which the server fails each time is found, and dropped in the end, with
    /// [`GiveUp::WhenFull`](crate::GiveUp::WhenFull).
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::Failed(None), reason)
    }

    /// The connection broke before the whole request had been sent: the batch is retried. A server may have answered
    /// early (with 413, say) and closed, and the answer was lost with the connection. So a batch whose attempts all
    /// break in this way is halved, and [`Batch::broke_while_sending`] tells the transport of the earlier break.
    pub fn broke_while_sending(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::BrokeWhileSending, reason)
    }

    /// The server finds an event in the batch invalid (400 or 422 over HTTP): the batch is halved until the events at
    /// fault stand alone. Those are dropped, with reason `rejected`, and the others are delivered.
    pub fn invalid_events(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::InvalidEvents, reason)
    }

    /// The server rejects the request permanently, whatever its events (a wrong key, say): the batch is dropped, with
    /// reason `rejected`.
    pub fn rejected(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::Rejected, reason)
    }

    /// The server would take these events from a sender that is set up correctly: a wrong key, a wrong address (over
    /// HTTP 401, 403, 404 and redirects). To a session this is the same as [`rejected`](Self::rejected). What a spool
    /// holds is kept.
    pub fn unauthorized(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::Unauthorized, reason)
    }

    /// The request is too large: the batch is halved; a single event is dropped, with reason `too_large`.
    pub fn too_large(reason: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::TooLarge, reason)
    }

    fn new(kind: SendErrorKind, reason: impl fmt::Display) -> Self {
        Self {
            kind,
            reason: Reason::new(reason),
        }
    }

    /// Sets the server's requested time of the next attempt. Ignored unless the error is retryable.
    #[must_use]
    pub fn retry_after(mut self, after: RetryAfter) -> Self {
        if let SendErrorKind::Retryable(retry_after) | SendErrorKind::Failed(retry_after) =
            &mut self.kind
        {
            *retry_after = Some(after);
        }
        self
    }

    /// Whether the batch will be retried unchanged.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            SendErrorKind::Retryable(_)
                | SendErrorKind::Failed(_)
                | SendErrorKind::BrokeWhileSending
        )
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.precision() == Some(ASKS_FOR_TYPE) {
            return f.write_str("SendError");
        }
        write!(f, "{self} ({:?})", self.kind)
    }
}

impl core::error::Error for SendError {}

/// An invalid transport configuration. The message should name the setting and must not contain secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SetupError(Reason);

impl SetupError {
    /// Creates an error whose message is `reason`, cut at 160 bytes (64 without `alloc`).
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(Reason::new(reason))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

crate::text::debug_with_causes!(SetupError);

impl core::error::Error for SetupError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_applies_to_retryable_errors_only() {
        let after = RetryAfter::Delay(core::time::Duration::from_secs(1));
        let busy = SendError::retryable("busy").retry_after(after);
        assert_eq!(busy.kind, SendErrorKind::Retryable(Some(after)));
        let no = SendError::rejected("no").retry_after(after);
        assert_eq!(no.kind, SendErrorKind::Rejected);
    }
}
