//! The seam to the network: what a transport is given, and what it answers.

use crate::engine::retry::RetryAfter;
use crate::event::exception::Fault;
use crate::text::Why;
use core::fmt;
use core::future::Future;
use uuid::Uuid;

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// Carries batches to a backend. This is what most people implement:
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
/// * **One attempt, no policy.** Retries, backoff, timeouts and splitting are the session's. Map what happened to a
///   [`Receipt`] or to the [`SendError`] that tells the session what to do next.
/// * **Cancel safety.** The future is dropped at its deadline (`http_timeout`, or a stop's) and when the driver is. The
///   batch then stays queued and is sent again with the same idempotency key. `send` must be callable again afterwards.
/// * **No blocking.** `send` runs on the driver's executor; blocking work goes to a thread of the transport's own.
/// * **Panics** are caught with `std` and cost one attempt.
pub trait Transport: Send + 'static {
    /// Sends one batch.
    ///
    /// # Errors
    /// What went wrong, as the session needs to know it; see [`SendError`].
    fn send(&mut self, batch: Batch<'_>)
    -> impl Future<Output = Result<Receipt, SendError>> + Send;

    /// Looks at the transport's own configuration, when a session that is not switched off is built with it.
    ///
    /// # Errors
    /// What is missing or wrong; it becomes a [`BuildError`](crate::BuildError).
    fn check(&self) -> Result<(), SetupError> {
        Ok(())
    }

    /// What the errors of the transport's client say of whose fault they were. The session asks it for every error on
    /// the chain of one that is logged, since the application is likely to use the same client. Default: nothing.
    fn fault<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Fault<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }
}

/// [`Transport`] without `Send`: for bare metal, wasm and anything that holds an `Rc`.
///
/// Every `Transport` is one, too.
pub trait LocalTransport {
    /// See [`Transport::send`].
    ///
    /// # Errors
    /// As there.
    fn send(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Receipt, SendError>>;

    /// See [`Transport::check`].
    ///
    /// # Errors
    /// As there.
    fn check(&self) -> Result<(), SetupError> {
        Ok(())
    }

    /// See [`Transport::fault`].
    fn fault<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Fault<'a>>
    where
        Self: Sized,
    {
        let _ = error;
        None
    }
}

impl<T: Transport> LocalTransport for T {
    fn send(&mut self, batch: Batch<'_>) -> impl Future<Output = Result<Receipt, SendError>> {
        Transport::send(self, batch)
    }

    fn check(&self) -> Result<(), SetupError> {
        Transport::check(self)
    }

    fn fault<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Fault<'a>> {
        <T as Transport>::fault(error)
    }
}

/// The end of a batch that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(crate) handed_over: bool,
}

impl Receipt {
    /// The backend has the events.
    #[must_use]
    pub const fn delivered() -> Self {
        Self { handed_over: false }
    }

    /// Something else has taken charge of the events (a spool, a message broker), the backend does not have them yet.
    /// The ledger counts them apart.
    #[must_use]
    pub const fn handed_over() -> Self {
        Self { handed_over: true }
    }
}

/// The end of an attempt that did not go well, as far as the session has to know.
///
/// The message goes into diagnostics: say what a person would need to mend it, and leave credentials out. It is cut
/// at 160 bytes (64 without `alloc`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    pub(crate) kind: SendErrorKind,
    pub(crate) why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendErrorKind {
    Retryable(Option<RetryAfter>),
    Rejected,
    TooLarge,
}

impl SendError {
    /// No answer, a broken connection, an overloaded server: worth another attempt.
    pub fn retryable(why: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::Retryable(None), why)
    }

    /// The server refuses these events for good: they are dropped, with reason `rejected`.
    pub fn rejected(why: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::Rejected, why)
    }

    /// The request is too large: the batch is halved; a single event is dropped, with reason `too_large`.
    pub fn too_large(why: impl fmt::Display) -> Self {
        Self::new(SendErrorKind::TooLarge, why)
    }

    fn new(kind: SendErrorKind, why: impl fmt::Display) -> Self {
        Self {
            kind,
            why: Why::new(why),
        }
    }

    /// When the server wants the next attempt of a retryable error; changes nothing about the others.
    #[must_use]
    pub fn retry_after(mut self, after: RetryAfter) -> Self {
        if let SendErrorKind::Retryable(wish) = &mut self.kind {
            *wish = Some(after);
        }
        self
    }

    /// Whether the batch will be sent again as it is.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, SendErrorKind::Retryable(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why.as_str())
    }
}

impl core::error::Error for SendError {}

/// What is wrong with the configuration of a transport. It names the setting; it must not contain a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError(Why);

impl SetupError {
    /// An error whose message is `why`, cut at 160 bytes (64 without `alloc`).
    pub fn new(why: impl fmt::Display) -> Self {
        Self(Why::new(why))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl core::error::Error for SetupError {}

/// One attempt at one batch, as a [`Transport`] sees it.
pub struct Batch<'a> {
    pub(crate) body: &'a mut Body,
    /// Elsewhere: a transport's future is often as large as what it is given, twice.
    pub(crate) head: &'a BatchHead<'a>,
}

/// What is known of a batch besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchHead<'a> {
    pub(crate) session: &'a str,
    pub(crate) first_index: u64,
    pub(crate) events: usize,
    pub(crate) attempt: u32,
    pub(crate) key: Uuid,
    /// Where in the body the list of events begins and ends, between its brackets.
    pub(crate) list: (usize, usize),
}

impl Batch<'_> {
    /// The request's body: compact JSON, UTF-8.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.bytes()
    }

    /// Each event's own JSON, in order: slices of the body.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        let (start, end) = self.head.list;
        Objects(self.body().get(start..end).unwrap_or_default())
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> &str {
        self.head.session
    }

    /// `event_session_index` of the first event.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.head.first_index
    }

    /// The number of events, at least 1.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.head.events
    }

    /// Which attempt this is, from 0.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.head.attempt
    }

    /// The batch's idempotency key: the same at every attempt, and another for each half of a split batch.
    #[must_use]
    pub fn idempotency_key(&self) -> Uuid {
        self.head.key
    }

    /// Takes the body out, for clients that want to own it. [`body`](Self::body) is empty afterwards.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn take_body(&mut self) -> Vec<u8> {
        self.body.take()
    }

    /// Gives a buffer back when the client is done with it, so that the next batch needs no new one.
    ///
    /// Its contents do not matter. Not giving it back (the future was dropped, the client keeps it) costs an
    /// allocation, nothing else.
    #[cfg(feature = "alloc")]
    pub fn give_back(&mut self, buffer: Vec<u8>) {
        self.body.give_back(buffer);
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

/// The driver's buffer for the body of a request, kept from batch to batch.
pub(crate) struct Body {
    buffer: Buffer,
    len: usize,
}

enum Buffer {
    #[cfg(feature = "alloc")]
    Owned(Vec<u8>),
    Fixed(&'static mut [u8]),
}

impl Body {
    #[cfg(feature = "alloc")]
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

    /// A body of `len` bytes to write to; what it holds now does not matter. `None` where there is not so much memory.
    pub(crate) fn prepare(&mut self, len: usize) -> Option<&mut [u8]> {
        self.len = 0;
        let space = match &mut self.buffer {
            #[cfg(feature = "alloc")]
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
            #[cfg(feature = "alloc")]
            Buffer::Owned(bytes) => bytes,
            Buffer::Fixed(bytes) => &**bytes,
        };
        bytes.get(..self.len).unwrap_or_default()
    }

    /// Lets go of a buffer larger than `keep` bytes.
    pub(crate) fn trim(&mut self, keep: usize) {
        let _ = keep;
        #[cfg(feature = "alloc")]
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
            Buffer::Owned(bytes) => {
                bytes.truncate(len);
                core::mem::take(bytes)
            }
            Buffer::Fixed(bytes) => bytes[..len].to_vec(),
        }
    }

    #[cfg(feature = "alloc")]
    fn give_back(&mut self, buffer: Vec<u8>) {
        if let Buffer::Owned(bytes) = &mut self.buffer
            && buffer.capacity() > bytes.capacity()
        {
            *bytes = buffer;
        }
    }
}

/// The objects of a JSON array, without its brackets. The array is our own, so nothing but nesting and strings needs to
/// be looked at.
struct Objects<'a>(&'a [u8]);

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
    fn a_retry_after_belongs_to_retryable_errors_alone() {
        let wish = RetryAfter::Delay(core::time::Duration::from_secs(1));
        let busy = SendError::retryable("busy").retry_after(wish);
        assert_eq!(busy.kind, SendErrorKind::Retryable(Some(wish)));
        let no = SendError::rejected("no").retry_after(wish);
        assert_eq!(no.kind, SendErrorKind::Rejected);
    }
}
