//! Transports: carry batches to a backend and report what became of them.

#[cfg(feature = "alloc")]
mod boxed;
mod either;
pub(crate) mod member;
#[cfg(has_arc)]
mod sample;

pub use crate::engine::retry::RetryAfter;
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
use core::time::Duration;
use uuid::Uuid;

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

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

/// One attempt to send one batch, as passed to a [`Transport`].
pub struct Batch<'a> {
    pub(crate) body: &'a mut Body,
    /// Behind a reference: a transport's future often holds its argument twice.
    pub(crate) head: &'a BatchMeta<'a>,
}

/// A batch's metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchMeta<'a> {
    pub(crate) session: &'a str,
    pub(crate) first_index: u64,
    pub(crate) events: usize,
    pub(crate) attempt: u32,
    pub(crate) broke_while_sending: bool,
    pub(crate) is_last: bool,
    /// Until the attempt's deadline.
    pub(crate) time_left: Duration,
    pub(crate) key: Uuid,
    /// The range of the event list in the body, without its brackets.
    pub(crate) list: (usize, usize),
}

impl Batch<'_> {
    /// Lends the batch, for a transport that passes it to more than one other: a tee, or a fallback after an error. A
    /// transport that [takes the body](Self::take_body) leaves the next an empty one; send it from a copy there.
    pub fn reborrow(&mut self) -> Batch<'_> {
        Batch {
            body: self.body,
            head: self.head,
        }
    }

    /// The request body: compact JSON in UTF-8.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.bytes()
    }

    /// Iterates over the events in order; each is its JSON, a slice of the body.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        let (start, end) = self.head.list;
        Objects(self.body().get(start..end).unwrap_or_default())
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> &str {
        self.head.session
    }

    /// `event_session_index` of the first event; [`indices`](Self::indices) has those of all.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.head.first_index
    }

    /// The number of events, at least 1.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.head.events
    }

    /// The number of this attempt, starting at 0.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.head.attempt
    }

    /// Whether an earlier attempt at this batch broke while it was being sent (see
    /// [`SendError::broke_while_sending`]). A transport that can should then ask before it sends the body; over HTTP,
    /// with `Expect: 100-continue`.
    #[must_use]
    pub fn broke_while_sending(&self) -> bool {
        self.head.broke_while_sending
    }

    /// Whether a stop has begun and nothing is queued behind this batch. A transport that buffers should make sure of
    /// what it holds.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.head.is_last
    }

    /// How long the session waits for this attempt before it drops the future: `http_timeout`, or less while it is
    /// being stopped. A stop that begins during the attempt may shorten this further.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.head.time_left
    }

    /// The batch's idempotency key: the same for every attempt, and a new one for each half of a split batch.
    #[must_use]
    pub fn idempotency_key(&self) -> Uuid {
        self.head.key
    }

    /// Takes the body, for clients that need to own it. [`body`](Self::body) is empty afterwards.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn take_body(&mut self) -> Vec<u8> {
        self.body.take()
    }

    /// Returns a buffer for the next batch to use.
    ///
    /// Its contents do not matter. Not returning one (the future was dropped, the client keeps it) only costs an
    /// allocation.
    #[cfg(feature = "alloc")]
    pub fn return_body(&mut self, buffer: Vec<u8>) {
        self.body.return_body(buffer);
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("session_id", &self.head.session)
            .field("first_index", &self.head.first_index)
            .field("event_count", &self.head.events)
            .field("attempt", &self.head.attempt)
            .field("idempotency_key", &self.head.key)
            .finish_non_exhaustive()
    }
}

/// The driver's buffer for request bodies, reused from batch to batch.
pub(crate) struct Body {
    buffer: Buffer,
    len: usize,
}

enum Buffer {
    #[cfg(has_arc)]
    Owned(Vec<u8>),
    Fixed(&'static mut [u8]),
}

impl Body {
    #[cfg(has_arc)]
    pub(crate) const fn owned() -> Self {
        Self {
            buffer: Buffer::Owned(Vec::new()),
            len: 0,
        }
    }

    pub(crate) fn fixed(bytes: &'static mut [u8]) -> Self {
        Self {
            buffer: Buffer::Fixed(bytes),
            len: 0,
        }
    }

    /// Makes room for a body of `len` bytes, with unspecified contents. Returns `None` if there is not enough memory.
    pub(crate) fn prepare(&mut self, len: usize) -> Option<&mut [u8]> {
        self.len = 0;
        let space = match &mut self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) => {
                bytes.try_reserve(len.saturating_sub(bytes.len())).ok()?;
                if bytes.len() < len {
                    bytes.resize(len, 0);
                }
                bytes.get_mut(..len)?
            }
            Buffer::Fixed(bytes) => bytes.get_mut(..len)?,
        };
        self.len = len;
        Some(space)
    }

    fn bytes(&self) -> &[u8] {
        let bytes = match &self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) => bytes,
            Buffer::Fixed(bytes) => &**bytes,
        };
        bytes.get(..self.len).unwrap_or_default()
    }

    /// Frees a buffer larger than `keep` bytes.
    pub(crate) fn trim(&mut self, keep: usize) {
        let _ = keep;
        #[cfg(has_arc)]
        if let Buffer::Owned(bytes) = &mut self.buffer
            && bytes.capacity() > keep
        {
            *bytes = Vec::new();
            self.len = 0;
        }
    }

    #[cfg(feature = "alloc")]
    fn take(&mut self) -> Vec<u8> {
        let len = core::mem::take(&mut self.len);
        match &mut self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) => {
                bytes.truncate(len);
                core::mem::take(bytes)
            }
            Buffer::Fixed(bytes) => bytes[..len].to_vec(),
        }
    }

    #[cfg(feature = "alloc")]
    fn return_body(&mut self, buffer: Vec<u8>) {
        match &mut self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) if buffer.capacity() > bytes.capacity() => *bytes = buffer,
            _ => drop(buffer),
        }
    }
}

/// Iterates over the objects of a JSON array, given without its brackets. The array is our own, so tracking nesting and
/// strings is enough.
pub(crate) struct Objects<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Objects<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|&byte| byte == b'{')?;
        let rest = &self.0[start..];
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for (at, &byte) in rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' if !in_string => depth += 1,
                b'}' if !in_string => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let (object, rest) = rest.split_at(at + 1);
                self.0 = rest;
                return Some(object);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_batch_are_found_whatever_they_contain() {
        let events: [&[u8]; 3] = [
            br#"{"a":{}}"#,
            br#"{"b":"},{\"\\"}"#,
            br#"{"c":[{"d":"]"}]}"#,
        ];
        let list = [events[0], b",", events[1], b",", events[2]].concat();
        assert!(Objects(&list).eq(events));
    }

    #[test]
    fn retry_after_applies_to_retryable_errors_only() {
        let after = RetryAfter::Delay(core::time::Duration::from_secs(1));
        let busy = SendError::retryable("busy").retry_after(after);
        assert_eq!(busy.kind, SendErrorKind::Retryable(Some(after)));
        let no = SendError::rejected("no").retry_after(after);
        assert_eq!(no.kind, SendErrorKind::Rejected);
    }
}
