//! HTTP events: the application's requests and their results, on the session's bus.

use super::failure::Failure;
use super::url::PATH;
use super::{HttpClient, HttpError};
use crate::bus::{
    Bus, Calls, HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP, Pair, Value,
};
use crate::session::Handle;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use bytes::Bytes;
use core::fmt;
use core::time::Duration;
use http::{Extensions, Request, Response};
use std::time::{Instant as SystemInstant, SystemTime, UNIX_EPOCH};

/// Emits HTTP request events for the application's requests.
///
/// Each request emits [`start`](crate::bus::HTTP_REQUEST_START), then either
/// [`stop`](crate::bus::HTTP_REQUEST_STOP) or [`exception`](crate::bus::HTTP_REQUEST_EXCEPTION). Cheap to clone.
///
/// Install it where the requests are made:
///
/// * around any [`HttpClient`], with [`wrap`](Self::wrap);
/// * as a middleware of surf, ureq (features of those names) or `reqwest-middleware`;
/// * as a `tower::Layer`, for clients and servers (feature `tower`);
/// * by hand, with [`start`](Self::start).
///
/// A response of any status is a `stop`, with `result` `ok` below 400 and `error` from 400. A request without a
/// response is an `exception`, with a `kind` of `error`, `timeout`, `cancelled` (the request's future was dropped) or
/// `panic`, and a short fixed `reason`. Start and end of a request have the same number in `call`; the calls of a
/// session are numbered from 0, whatever makes them. Durations are measured by the session's clock. Events never contain a query
/// string, header, userinfo, host or error text: any of them may hold secrets. While no handler is attached to the bus,
/// a request costs one atomic load.
///
/// Requests that carry telemetry emit no events, so a client may be shared with an
/// [`HttpTransport`](crate::HttpTransport). They carry a mark; where a client drops it, they are recognized as a `POST`
/// to a path that ends in `/api/v1/telemetry`.
///
/// ```
/// # use tinkex_telemetry::Handle;
/// # use tinkex_telemetry::http::HttpEvents;
/// fn fetch(telemetry: &Handle) {
///     let call = HttpEvents::new(telemetry).start("GET", "/weights");
///     // …
///     call.stop(200);
/// }
/// # fetch(&Handle::off());
/// ```
#[derive(Clone)]
pub struct HttpEvents(Option<Arc<Inner>>);

struct Inner {
    bus: Bus,
    session_id: Box<str>,
    calls: Calls,
    time: TimeSource,
}

enum TimeSource {
    /// From this session's clock.
    Session(Handle),
    System,
}

#[derive(Clone, Copy)]
enum Moment {
    Session(crate::time::Instant),
    System(SystemInstant),
}

/// How many times a request was tried before: a request extension that its `stop` event reports. Default: 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryCount(
    /// Previous attempts.
    pub u32,
);

/// Request extension that marks the reporter's own requests: they emit no events.
#[derive(Clone, Copy)]
pub(crate) struct OwnRequest;

impl HttpEvents {
    /// Events of a session, on its bus and with its clock. If the session is switched off, nothing is emitted.
    #[must_use]
    pub fn new(session: &Handle) -> Self {
        let (Some(bus), Some(session_id)) = (session.bus(), session.session_id()) else {
            return Self(None);
        };
        Self(Some(Arc::new(Inner {
            bus: bus.clone(),
            session_id: session_id.into(),
            calls: bus.calls(session_id),
            time: TimeSource::Session(session.clone()),
        })))
    }

    /// Events on `bus`, with `session_id` in the metadata and the system's clock.
    #[must_use]
    pub fn on(bus: &Bus, session_id: &str) -> Self {
        Self(Some(Arc::new(Inner {
            bus: bus.clone(),
            session_id: session_id.into(),
            calls: bus.calls(session_id),
            time: TimeSource::System,
        })))
    }

    /// Wraps a client or service so that its requests emit events.
    #[must_use]
    pub fn wrap<H>(&self, client: H) -> Observed<H> {
        Observed {
            inner: client,
            events: self.clone(),
        }
    }

    /// Emits a request's `start`. The returned [`HttpCall`] emits its end.
    ///
    /// Query string and fragment are removed, and an absolute URL is reduced to its path.
    #[must_use = "a request whose call is dropped counts as cancelled"]
    pub fn start(&self, method: &str, path: &str) -> HttpCall {
        match self.0.as_ref().filter(|inner| !inner.bus.is_idle()) {
            Some(inner) => HttpCall(Some(Call::start(inner, method, path))),
            None => HttpCall(None),
        }
    }

    /// Emits this request's `start`, unless it is the reporter's own.
    pub(crate) fn start_request<B>(&self, request: &Request<B>) -> HttpCall {
        let uri = request.uri();
        let marks = Marks::of(request.extensions());
        self.start_marked(request.method().as_str(), uri.path(), marks)
    }

    pub(crate) fn start_marked(&self, method: &str, path: &str, marks: Marks) -> HttpCall {
        if marks.is_own || (method == "POST" && path.ends_with(PATH)) {
            return HttpCall(None);
        }
        self.start(method, path).retry_count(marks.retry_count)
    }
}

/// What a request's extensions say about its events.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marks {
    pub(crate) is_own: bool,
    pub(crate) retry_count: u32,
}

impl Marks {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self {
            is_own: extensions.get::<OwnRequest>().is_some(),
            retry_count: extensions.get().map_or(0, |RetryCount(count)| *count),
        }
    }
}

/// A request in flight. It emits one end: by [`stop`](Self::stop), by [`exception`](Self::exception), or on drop, as an
/// exception of kind `cancelled`, or `panic` while the thread unwinds.
#[must_use = "a request whose call is dropped counts as cancelled"]
pub struct HttpCall(Option<Call>);

/// A request that emits events.
struct Call {
    inner: Arc<Inner>,
    method_and_path: String,
    method_len: usize,
    number: u64,
    started: Moment,
    retry_count: u32,
    /// How many polls are reported as this one request.
    polls: u32,
}

impl HttpCall {
    /// Counts one more poll that is reported as this request: its end has the number, from two on.
    #[cfg(feature = "client")]
    pub(crate) fn add_poll(&mut self) {
        if let Some(call) = &mut self.0 {
            call.polls = call.polls.saturating_add(1);
        }
    }

    /// Sets how many times the request was tried before.
    pub fn retry_count(mut self, count: u32) -> Self {
        if let Some(call) = &mut self.0 {
            call.retry_count = count;
        }
        self
    }

    /// Emits `stop`: the response has arrived.
    pub fn stop(mut self, status: u16) {
        if let Some(call) = self.0.take() {
            call.stop(status);
        }
    }

    /// Emits `exception`: there is no response. Both texts are emitted unchanged, so they must not contain secrets.
    pub fn exception(mut self, kind: &str, reason: &str) {
        if let Some(call) = self.0.take() {
            call.exception(kind, reason);
        }
    }

    pub(crate) fn fail(self, failure: Failure) {
        self.exception(failure.kind, failure.reason);
    }
}

impl Drop for HttpCall {
    fn drop(&mut self) {
        let Some(call) = self.0.take() else {
            return;
        };
        if std::thread::panicking() {
            call.exception("panic", "the request panicked");
        } else {
            call.exception("cancelled", "the request was dropped before its response");
        }
    }
}

impl Call {
    fn start(inner: &Arc<Inner>, method: &str, path: &str) -> Self {
        let (method, path) = (method_token(method), path_of(path));
        let mut method_and_path = String::with_capacity(method.len() + path.len());
        method_and_path.push_str(method);
        method_and_path.push_str(path);
        let (started, since_epoch) = inner.now();
        let call = Self {
            inner: Arc::clone(inner),
            method_and_path,
            method_len: method.len(),
            number: inner.calls.next(),
            started,
            retry_count: 0,
            polls: 1,
        };
        let measurements = [("system_time", nanos(since_epoch))];
        let metadata = call.metadata();
        call.inner
            .bus
            .execute(HTTP_REQUEST_START, &measurements, &metadata);
        call
    }

    fn stop(self, status: u16) {
        let result = if status < 400 { "ok" } else { "error" };
        let measurements = [("duration", nanos(self.inner.elapsed(self.started)))];
        let [method, path, call, session] = self.metadata();
        let metadata = [
            method,
            path,
            ("status", status.into()),
            ("result", result.into()),
            ("retry_count", self.retry_count.into()),
            call,
            session,
            ("polls", self.polls.into()),
        ];
        let metadata = self.without_single_poll(&metadata);
        let bus = &self.inner.bus;
        bus.execute(HTTP_REQUEST_STOP, &measurements, metadata);
    }

    fn exception(self, kind: &str, reason: &str) {
        let measurements = [("duration", nanos(self.inner.elapsed(self.started)))];
        let [method, path, call, session] = self.metadata();
        let metadata = [
            method,
            path,
            ("kind", kind.into()),
            ("reason", reason.into()),
            call,
            session,
            ("polls", self.polls.into()),
        ];
        let metadata = self.without_single_poll(&metadata);
        let bus = &self.inner.bus;
        bus.execute(HTTP_REQUEST_EXCEPTION, &measurements, metadata);
    }

    /// Leaves out the number of polls, which is last, where it is one.
    fn without_single_poll<'a>(&self, metadata: &'a [Pair<'a>]) -> &'a [Pair<'a>] {
        match self.polls {
            ..=1 => &metadata[..metadata.len() - 1],
            _ => metadata,
        }
    }

    fn metadata(&self) -> [Pair<'_>; 4] {
        let (method, path) = self.method_and_path.split_at(self.method_len);
        [
            ("method", method.into()),
            ("path", path.into()),
            ("call", self.number.into()),
            ("session_id", Value::Str(&self.inner.session_id)),
        ]
    }
}

impl Inner {
    /// The current moment, and the time since the Unix epoch.
    fn now(&self) -> (Moment, Duration) {
        if let TimeSource::Session(handle) = &self.time
            && let Some(session) = handle.session()
        {
            let since_epoch = Duration::from_micros(session.utc().as_unix_micros());
            return (Moment::Session(session.now()), since_epoch);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = Moment::System(SystemInstant::now());
        (now, since_epoch.unwrap_or_default())
    }

    fn elapsed(&self, started: Moment) -> Duration {
        match (started, &self.time) {
            (Moment::System(started), _) => started.elapsed(),
            (Moment::Session(started), TimeSource::Session(handle)) => {
                let now = handle.session().map(|session| session.now());
                now.map_or(Duration::ZERO, |now| now.saturating_duration_since(started))
            }
            (Moment::Session(_), TimeSource::System) => Duration::ZERO,
        }
    }
}

fn nanos(duration: Duration) -> Value<'static> {
    Value::U64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// The method if it is a token of at most 32 bytes, else `OTHER`.
fn method_token(method: &str) -> &str {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.bytes().all(is_token) && (1..=32).contains(&method.len()) {
        method
    } else {
        "OTHER"
    }
}

/// The path of `path`, which may have a query string or be an absolute URL: at most 1 KiB.
fn path_of(path: &str) -> &str {
    const MAX_BYTES: usize = 1_024;
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let path = &path[..end];
    let path = match path.split_once("://") {
        // Between `://` and the next slash are userinfo and host.
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ if path.starts_with('/') || path == "*" => path,
        // The host and port of a `CONNECT`, or something unknown.
        _ => "",
    };
    let mut ends = (0..=MAX_BYTES.min(path.len())).rev();
    let end = ends.find(|&end| path.is_char_boundary(end));
    &path[..end.unwrap_or_default()]
}

/// An [`HttpClient`] or, with the feature `tower`, a `tower::Service`, whose requests emit [`HttpEvents`].
///
/// As a client, it emits `stop` once the response has arrived, body included.
#[derive(Clone, Debug)]
pub struct Observed<T> {
    pub(crate) inner: T,
    pub(crate) events: HttpEvents,
}

impl<T> Observed<T> {
    /// Unwraps the client or service.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<H: HttpClient> HttpClient for Observed<H> {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let call = self.events.start_request(&request);
        let result = self.inner.send(request).await;
        match &result {
            Ok(response) => call.stop(response.status().as_u16()),
            Err(error) => call.fail(error.failure()),
        }
        result
    }
}

impl fmt::Debug for HttpEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session_id = self.0.as_ref().map(|inner| &inner.session_id);
        f.debug_struct("HttpEvents")
            .field("session_id", &session_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCall")
            .field("is_reported", &self.0.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_path_is_reported_without_query_userinfo_and_host() {
        for (given, reported) in [
            ("/a/b", "/a/b"),
            ("/a?key=secret", "/a"),
            ("/a#secret", "/a"),
            ("https://user:secret@host:1/a/b?c", "/a/b"),
            ("https://user:secret@host", "/"),
            ("https://user:secret@host?x=/y", "/"),
            ("/redirect/https://host/x", "/redirect/https://host/x"),
            ("user:secret@host:443", ""),
            ("secret.host/x", ""),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(path_of(given), reported, "{given}");
        }
        let long = format!("/{}", "é".repeat(1_000));
        assert_eq!(path_of(&long).len(), 1_023);
    }

    #[test]
    fn a_request_with_the_reporters_mark_emits_no_events_whatever_its_url() {
        let bus = Bus::new();
        bus.attach("one", HTTP_REQUEST_START, |_| {}).unwrap();
        let events = HttpEvents::on(&bus, "s");
        let mut request = Request::get("http://host/x").body(()).unwrap();
        assert!(events.start_request(&request).0.is_some());
        request.extensions_mut().insert(OwnRequest);
        assert!(events.start_request(&request).0.is_none());
    }

    #[test]
    fn a_method_is_a_token() {
        for (given, reported) in [
            ("GET", "GET"),
            ("x-y", "x-y"),
            ("", "OTHER"),
            ("a b", "OTHER"),
        ] {
            assert_eq!(method_token(given), reported);
        }
    }
}
