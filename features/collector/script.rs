//! Scripted replies: the response to a request, or a fault in its place.

use alloc::string::{String, ToString};
use core::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// The scripted reply to one request to the telemetry endpoint, or to one call of a [`Backend`](super::Backend).
///
/// A reply also decides whether the request's events are kept. Only a 2xx keeps them by default;
/// [`keep`](Self::keep) makes any reply keep them, like a server that did the work and then failed to say so. Events
/// that fail the check are never kept: the check's own response then replaces a 2xx, and any other reply is unchanged.
///
/// # Examples
///
/// ```
/// use tinkex_telemetry::collector::{Collector, Reply};
///
/// let collector = Collector::start()?;
/// collector.script([
///     Reply::status(429).retry_after("2"),
///     Reply::lost(),
///     Reply::accept(),
/// ]);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    pub(super) kind: ReplyKind,
    pub(super) delay: Duration,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Why the collector itself refuses the request.
    pub(super) refusal: Option<String>,
    /// Another server's response, which stands whatever the check finds.
    pub(super) is_foreign: bool,
    keep: bool,
}

/// The kind of response that a request received, as recorded in a [`RequestRecord`](super::RequestRecord).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplyKind {
    /// A response with this status.
    Status(u16),
    /// The start of a 200; then the connection was closed.
    Truncated,
    /// No response; the connection stayed open.
    Stall,
    /// No response; the connection was closed after the request's headers were read.
    CloseBeforeBody,
    /// No response; the connection was closed after the whole request was read.
    CloseAfterBody,
    /// Bytes that are not HTTP; then the connection was closed.
    Garbage,
}

impl Reply {
    /// 200 with the body `{"status":"accepted"}`.
    pub fn accept() -> Self {
        Self::new(ReplyKind::Status(200), r#"{"status":"accepted"}"#)
    }

    /// This status, with a small JSON body.
    ///
    /// # Panics
    ///
    /// If `status` is not from 200 to 999.
    pub fn status(status: u16) -> Self {
        assert!(
            (200..=999).contains(&status),
            "{status} is not the status of a response"
        );
        let body = if is_success(status) {
            r#"{"status":"accepted"}"#
        } else {
            r#"{"error":"scripted"}"#
        };
        Self::new(ReplyKind::Status(status), body)
    }

    /// 200 with this body.
    pub fn json(body: &Value) -> Self {
        Self::status(200).body(body.to_string())
    }

    /// The response as a client sees it, without the delay; `None` if there is none.
    #[must_use]
    pub fn response(&self) -> Option<Response<Bytes>> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = StatusCode::from_u16(self.status_code()?).ok()?;
        response.headers_mut().clone_from(&self.headers);
        Some(response)
    }

    pub(super) fn status_code(&self) -> Option<u16> {
        match self.kind {
            ReplyKind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Reads the request and never responds; the connection stays open until the client closes it or the collector
    /// stops.
    pub fn stall() -> Self {
        Self::new(ReplyKind::Stall, "")
    }

    /// Closes the connection once the headers are read. The body stays unread, so nothing of it is kept or recorded.
    pub fn close_before_body() -> Self {
        Self::new(ReplyKind::CloseBeforeBody, "")
    }

    /// Reads the request and closes the connection without a response.
    pub fn close_after_body() -> Self {
        Self::new(ReplyKind::CloseAfterBody, "")
    }

    /// Keeps the events and closes the connection without a response: the client must send them again, and the
    /// collector must recognize them.
    pub fn lost() -> Self {
        Self::close_after_body().keep()
    }

    /// Reads the request, sends bytes that are not HTTP and closes the connection. [`body`](Self::body) sets other
    /// bytes.
    pub fn garbage() -> Self {
        Self::new(ReplyKind::Garbage, "\x16\x03\x01 this is not HTTP\r\n\r\n")
    }

    /// Sends a 200 with half of the [`body`](Self::body) that its `content-length` promises, and closes the connection.
    ///
    /// The events are kept: the status has said so.
    pub fn truncated() -> Self {
        Self::new(ReplyKind::Truncated, r#"{"status":"accepted"}"#).keep()
    }

    /// Keeps the events with any response, provided that they pass the check.
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Delays the response. The events are kept (or not) before the delay, as by a server that does its work at once
    /// and responds late.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets a header of the response, replacing one with the same name. No effect without a response.
    ///
    /// # Panics
    ///
    /// If `name` or `value` is not valid in an HTTP header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_str(value).expect("a header value");
        self.headers.insert(name, value);
        self
    }

    /// Sets the `retry-after` header: seconds, a date, or anything else that a client must survive.
    ///
    /// # Panics
    ///
    /// If `value` is not valid in an HTTP header.
    pub fn retry_after(self, value: &str) -> Self {
        self.header(header::RETRY_AFTER.as_str(), value)
    }

    /// Sets the body. No effect without a response.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A refusal by the collector itself, for this reason.
    pub(super) fn refuse(status: u16, reason: String) -> Self {
        let mut reply = Self::status(status);
        reply.refusal = Some(reason);
        reply
    }

    /// Another server's response, which is passed on as it is.
    #[cfg(feature = "cli")]
    pub(crate) fn foreign(response: Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        let mut reply = Self::status(head.status.as_u16().max(200)).body(body);
        (reply.headers, reply.is_foreign) = (head.headers, true);
        reply
    }

    /// Whether events that pass the check are kept.
    pub(super) fn keeps(&self) -> bool {
        self.keep || self.is_success()
    }

    pub(super) fn is_success(&self) -> bool {
        matches!(self.kind, ReplyKind::Status(status) if is_success(status))
    }

    fn new(kind: ReplyKind, body: &'static str) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            kind,
            delay: Duration::ZERO,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body: Bytes::from_static(body.as_bytes()),
            refusal: None,
            is_foreign: false,
            keep: false,
        }
    }
}

/// Returns [`Reply::accept`].
impl Default for Reply {
    fn default() -> Self {
        Self::accept()
    }
}

fn is_success(status: u16) -> bool {
    StatusCode::from_u16(status).is_ok_and(|status| status.is_success())
}
