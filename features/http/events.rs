//! HTTP events: what an application's requests come to, told on the session's bus.

use super::config::PATH;
use super::reason::Failure;
use super::{HttpClient, HttpError};
use crate::bus::Bus;
use crate::bus::{HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP, Pair, Value};
use crate::session::Handle;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use bytes::Bytes;
use core::fmt;
use core::time::Duration;
use http::{Extensions, Request, Response};
use std::time::{Instant as SystemInstant, SystemTime, UNIX_EPOCH};

/// Tells of an application's requests: [`start`](crate::bus::HTTP_REQUEST_START), and then always one of
/// [`stop`](crate::bus::HTTP_REQUEST_STOP) and [`exception`](crate::bus::HTTP_REQUEST_EXCEPTION). Cheap to clone.
///
/// Put it where the requests are made:
///
/// * around any [`HttpClient`], with [`wrap`](Self::wrap);
/// * as a middleware of surf, ureq (features of those names) or `reqwest-middleware`;
/// * as a `tower::Layer`, for clients and servers (feature `tower`);
/// * by hand, with [`start`](Self::start).
///
/// An answer of any status is a `stop`, with `result` `ok` below 400 and `error` from there on. No answer is an
/// `exception`, whose `kind` is `error`, `timeout`, `cancelled` (the request's future was dropped half way) or `panic`,
/// and whose `reason` is a fixed word or two. Durations are those of the session's clock. Events have no query string,
/// no header, no userinfo and no host, and the text of no error: any of them may have secrets in it. While no handler is
/// attached to the bus a request costs the load of one word.
///
/// Of the requests that carry telemetry itself nothing is told, so a client may be shared with a
/// [`HttpTransport`](crate::HttpTransport): they are known by a mark, and where a client loses it as a `POST` to a path
/// that ends in `/api/v1/telemetry`.
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
    time: Time,
}

enum Time {
    /// That of this session's clock.
    Session(Handle),
    System,
}

#[derive(Clone, Copy)]
enum Moment {
    Session(crate::time::Instant),
    System(SystemInstant),
}

/// How often a request was made before, as an extension of the request: its `stop` says so. Without one it says 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryCount(
    /// Attempts before this one.
    pub u32,
);

/// A request of the reporter's own, as an extension of the request: nothing is told of it.
#[derive(Clone, Copy)]
pub(crate) struct OwnRequest;

impl HttpEvents {
    /// Of a session, on its bus and with its clock. With a handle on a session that is switched off nothing is told.
    #[must_use]
    pub fn new(session: &Handle) -> Self {
        let (Some(bus), Some(session_id)) = (session.bus(), session.session_id()) else {
            return Self(None);
        };
        Self(Some(Arc::new(Inner {
            bus: bus.clone(),
            session_id: session_id.into(),
            time: Time::Session(session.clone()),
        })))
    }

    /// On this bus, with this `session_id` in the metadata and the system's clock.
    #[must_use]
    pub fn on(bus: &Bus, session_id: &str) -> Self {
        Self(Some(Arc::new(Inner {
            bus: bus.clone(),
            session_id: session_id.into(),
            time: Time::System,
        })))
    }

    /// A client whose requests are told of.
    #[must_use]
    pub fn wrap<H>(&self, client: H) -> Observed<H> {
        Observed {
            inner: client,
            events: self.clone(),
        }
    }

    /// Tells that a request begins, and makes sure that its end is told.
    ///
    /// A query string or fragment is taken off the path; of an absolute URL only the path is told.
    #[must_use = "when it is dropped the request counts as cancelled"]
    pub fn start(&self, method: &str, path: &str) -> HttpCall {
        match self.0.as_ref().filter(|inner| !inner.bus.is_idle()) {
            Some(inner) => HttpCall(Some(Call::start(inner, method, path))),
            None => HttpCall(None),
        }
    }

    /// Tells that this request begins, unless it is the reporter's own.
    pub(crate) fn start_request<B>(&self, request: &Request<B>) -> HttpCall {
        let uri = request.uri();
        let extensions = Marks::of(request.extensions());
        self.start_marked(request.method().as_str(), uri.path(), extensions)
    }

    pub(crate) fn start_marked(&self, method: &str, path: &str, marks: Marks) -> HttpCall {
        if marks.is_own || (method == "POST" && path.ends_with(PATH)) {
            return HttpCall(None);
        }
        self.start(method, path).retry_count(marks.retries)
    }
}

/// What a request's extensions say.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marks {
    pub(crate) is_own: bool,
    pub(crate) retries: u32,
}

impl Marks {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self {
            is_own: extensions.get::<OwnRequest>().is_some(),
            retries: extensions.get().map_or(0, |RetryCount(count)| *count),
        }
    }
}

/// A request under way. Its end is told once: by [`stop`](Self::stop), by [`exception`](Self::exception), or when it is
/// dropped, as an exception of kind `cancelled`, or `panic` while the thread unwinds.
#[must_use = "when it is dropped the request counts as cancelled"]
pub struct HttpCall(Option<Call>);

/// A request that is told of.
struct Call {
    inner: Arc<Inner>,
    /// Method and path, one behind the other.
    text: String,
    method_len: usize,
    begun: Moment,
    retries: u32,
}

impl HttpCall {
    /// How often the request was made before.
    pub fn retry_count(mut self, count: u32) -> Self {
        if let Some(call) = &mut self.0 {
            call.retries = count;
        }
        self
    }

    /// The answer has come.
    pub fn stop(mut self, status: u16) {
        if let Some(call) = self.0.take() {
            call.stop(status);
        }
    }

    /// No answer has come. Both texts are told as they are: put no secrets into them.
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
            call.exception("cancelled", "the request was dropped before its answer");
        }
    }
}

impl Call {
    fn start(inner: &Arc<Inner>, method: &str, path: &str) -> Self {
        let (method, path) = (token(method), path_of(path));
        let mut text = String::with_capacity(method.len() + path.len());
        text.push_str(method);
        text.push_str(path);
        let (begun, since_epoch) = inner.begin();
        let call = Self {
            inner: Arc::clone(inner),
            text,
            method_len: method.len(),
            begun,
            retries: 0,
        };
        let measurements = [("system_time", nanos(since_epoch))];
        let [method, path, session] = call.metadata();
        let metadata = [method, path, session];
        call.inner
            .bus
            .execute(HTTP_REQUEST_START, &measurements, &metadata);
        call
    }

    fn stop(self, status: u16) {
        let result = if status < 400 { "ok" } else { "error" };
        let measurements = [("duration", nanos(self.inner.since(self.begun)))];
        let [method, path, session] = self.metadata();
        let metadata = [
            method,
            path,
            ("status", status.into()),
            ("result", result.into()),
            ("retry_count", self.retries.into()),
            session,
        ];
        let bus = &self.inner.bus;
        bus.execute(HTTP_REQUEST_STOP, &measurements, &metadata);
    }

    fn exception(self, kind: &str, reason: &str) {
        let measurements = [("duration", nanos(self.inner.since(self.begun)))];
        let [method, path, session] = self.metadata();
        let metadata = [
            method,
            path,
            ("kind", kind.into()),
            ("reason", reason.into()),
            session,
        ];
        let bus = &self.inner.bus;
        bus.execute(HTTP_REQUEST_EXCEPTION, &measurements, &metadata);
    }

    fn metadata(&self) -> [Pair<'_>; 3] {
        let (method, path) = self.text.split_at(self.method_len);
        [
            ("method", method.into()),
            ("path", path.into()),
            ("session_id", Value::Str(&self.inner.session_id)),
        ]
    }
}

impl Inner {
    /// Now, and how long after the Unix epoch that is.
    fn begin(&self) -> (Moment, Duration) {
        if let Time::Session(handle) = &self.time
            && let Some(session) = handle.session()
        {
            let since_epoch = Duration::from_micros(session.utc().as_unix_micros());
            return (Moment::Session(session.now()), since_epoch);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let begun = Moment::System(SystemInstant::now());
        (begun, since_epoch.unwrap_or_default())
    }

    fn since(&self, begun: Moment) -> Duration {
        match (begun, &self.time) {
            (Moment::System(begun), _) => begun.elapsed(),
            (Moment::Session(begun), Time::Session(handle)) => {
                let now = handle.session().map(|session| session.now());
                now.map_or(Duration::ZERO, |now| now.saturating_duration_since(begun))
            }
            (Moment::Session(_), Time::System) => Duration::ZERO,
        }
    }
}

fn nanos(duration: Duration) -> Value<'static> {
    Value::U64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// A method, as far as it is one.
fn token(method: &str) -> &str {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.bytes().all(is_token) && (1..=32).contains(&method.len()) {
        method
    } else {
        "OTHER"
    }
}

/// The path of what may be a path with a query behind it, or a whole URL. At most a kilobyte of it.
fn path_of(path: &str) -> &str {
    const MOST: usize = 1_024;
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let path = &path[..end];
    let path = match path.split_once("://") {
        // What stands between them is where userinfo would be.
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ if path.starts_with('/') || path == "*" => path,
        // Host and port of a `CONNECT`, or nothing that is known.
        _ => "",
    };
    let mut ends = (0..=MOST.min(path.len())).rev();
    let end = ends.find(|&end| path.is_char_boundary(end));
    &path[..end.unwrap_or_default()]
}

/// Something whose requests are told of by [`HttpEvents`]: a [`HttpClient`] or, with the feature `tower`, a
/// `tower::Service`.
///
/// As a client it tells of a `stop` when the answer is there, body included.
#[derive(Clone, Debug)]
pub struct Observed<T> {
    pub(crate) inner: T,
    pub(crate) events: HttpEvents,
}

impl<T> Observed<T> {
    /// What is wrapped.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<H: HttpClient> HttpClient for Observed<H> {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let call = self.events.start_request(&request);
        let result = self.inner.send(request).await;
        match &result {
            Ok(answer) => call.stop(answer.status().as_u16()),
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
            .field("is_told", &self.0.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_path_is_a_path_whatever_it_is_taken_from() {
        for (given, told) in [
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
            assert_eq!(path_of(given), told, "{given}");
        }
        let long = format!("/{}", "é".repeat(1_000));
        assert_eq!(path_of(&long).len(), 1_023);
    }

    #[test]
    fn a_request_with_the_reporters_mark_is_not_told_of_wherever_it_goes() {
        let bus = Bus::new();
        bus.attach("one", HTTP_REQUEST_START, |_| {}).unwrap();
        let events = HttpEvents::on(&bus, "s");
        let mut request = Request::get("http://host/x").body(()).unwrap();
        assert!(events.start_request(&request).0.is_some());
        request.extensions_mut().insert(OwnRequest);
        assert!(events.start_request(&request).0.is_none());
    }

    #[test]
    fn a_method_is_a_word() {
        for (given, told) in [
            ("GET", "GET"),
            ("x-y", "x-y"),
            ("", "OTHER"),
            ("a b", "OTHER"),
        ] {
            assert_eq!(token(given), told);
        }
    }
}
