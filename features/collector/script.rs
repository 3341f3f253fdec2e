//! The script: what a request is answered, faults included.

use alloc::string::ToString;
use core::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// What one request to the telemetry endpoint, or one call of a [`Backend`](super::Backend), is answered.
///
/// An answer also says whether the request's events are kept. By itself only a 2xx keeps them;
/// [`keep`](Self::keep) makes any answer do so, which is what a client sees of a server that did the
/// work and then failed to say so. Events that fail the check are never kept: a 2xx becomes the
/// check's own answer then, and every other answer stays what it is.
///
/// # Examples
///
/// ```
/// use tinkex_telemetry::collector::{Answer, Collector};
///
/// let collector = Collector::start()?;
/// collector.script([
///     Answer::status(429).retry_after("2"),
///     Answer::lost(),
///     Answer::accept(),
/// ]);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    pub(super) kind: ResponseKind,
    pub(super) delay: Duration,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    keep: bool,
}

/// How a request was answered, as a [`RequestRecord`](super::RequestRecord) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseKind {
    /// An answer with this status.
    Status(u16),
    /// The beginning of a 200, then the end of the connection.
    Truncated,
    /// None; the connection stays open.
    Stall,
    /// None; the connection was closed as soon as the request's headers were read.
    CloseBeforeBody,
    /// None; the connection was closed when the request had been read.
    CloseAfterBody,
    /// Something that is not HTTP, then the end of the connection.
    Garbage,
}

impl Reply {
    /// 200 with the body `{"status":"accepted"}`.
    pub fn accept() -> Self {
        Self::new(ResponseKind::Status(200), r#"{"status":"accepted"}"#)
    }

    /// This status, with a small JSON body.
    ///
    /// # Panics
    ///
    /// When `status` is not one of 200 to 999.
    pub fn status(status: u16) -> Self {
        assert!(
            (200..=999).contains(&status),
            "{status} is not the status of an answer"
        );
        let body = if is_success(status) {
            r#"{"status":"accepted"}"#
        } else {
            r#"{"error":"scripted"}"#
        };
        Self::new(ResponseKind::Status(status), body)
    }

    /// 200 with this body.
    pub fn json(body: &Value) -> Self {
        Self::status(200).body(body.to_string())
    }

    /// The answer as a client would see it, without its delay; `None` where it is none.
    #[must_use]
    pub fn response(&self) -> Option<Response<Bytes>> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = StatusCode::from_u16(self.status_code()?).ok()?;
        response.headers_mut().clone_from(&self.headers);
        Some(response)
    }

    pub(super) fn status_code(&self) -> Option<u16> {
        match self.kind {
            ResponseKind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Reads the request and never answers; the connection stays open until the client closes it or
    /// the collector stops.
    pub fn stall() -> Self {
        Self::new(ResponseKind::Stall, "")
    }

    /// Closes the connection as soon as the headers are read. The body is not looked at, so nothing
    /// of it can be kept or recorded.
    pub fn close_before_body() -> Self {
        Self::new(ResponseKind::CloseBeforeBody, "")
    }

    /// Reads the request and closes the connection without an answer.
    pub fn close_after_body() -> Self {
        Self::new(ResponseKind::CloseAfterBody, "")
    }

    /// Keeps the events and closes the connection without an answer: the client must send them
    /// again, and the backend must see that they are the same.
    pub fn lost() -> Self {
        Self::close_after_body().keep()
    }

    /// Reads the request, answers with bytes that are not HTTP and closes the connection.
    /// [`body`](Self::body) sets other bytes.
    pub fn garbage() -> Self {
        Self::new(
            ResponseKind::Garbage,
            "\x16\x03\x01 this is not HTTP\r\n\r\n",
        )
    }

    /// A 200 whose `content-length` is more than what follows: half of the [`body`](Self::body),
    /// then the end of the connection.
    ///
    /// The events are not kept, though a client that looks at the status alone takes it for success.
    pub fn truncated() -> Self {
        Self::new(ResponseKind::Truncated, r#"{"status":"accepted"}"#)
    }

    /// Keeps the events whatever is answered, provided that they pass the check.
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Waits this long before the answer. The events are kept (or not) before the wait, as by a
    /// server that is slow to say what it has done.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets a header of the answer, in place of one with the same name. Without effect where
    /// nothing is answered.
    ///
    /// # Panics
    ///
    /// When `name` or `value` cannot be part of an HTTP header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_str(value).expect("a header value");
        self.headers.insert(name, value);
        self
    }

    /// Sets the header `retry-after`: seconds, a date, or anything else that a client must survive.
    ///
    /// # Panics
    ///
    /// When `value` cannot be the value of an HTTP header.
    pub fn retry_after(self, value: &str) -> Self {
        self.header(header::RETRY_AFTER.as_str(), value)
    }

    /// Sets the bytes of the body. Without effect where nothing is answered.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Whether events that pass the check are kept.
    pub(super) fn keeps(&self) -> bool {
        self.keep || self.is_success()
    }

    pub(super) fn is_success(&self) -> bool {
        matches!(self.kind, ResponseKind::Status(status) if is_success(status))
    }

    fn new(kind: ResponseKind, body: &'static str) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            kind,
            delay: Duration::ZERO,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body: Bytes::from_static(body.as_bytes()),
            keep: false,
        }
    }
}

/// [`Reply::accept`].
impl Default for Reply {
    fn default() -> Self {
        Self::accept()
    }
}

fn is_success(status: u16) -> bool {
    StatusCode::from_u16(status).is_ok_and(|status| status.is_success())
}
