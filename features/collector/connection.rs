//! One connection: axum's routes on hyper's HTTP/1, driven by hand so that it can close without a response.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{
    error, fmt,
    future::{self, Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
};
use std::time::Instant;

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{Request, State as Shared},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use bytes::Bytes;
use http::{StatusCode, header};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::super::wire::violation::Violation;
use super::bodies::Share;
use super::guard;
use super::notice::Notice;
use super::script::{Reply, ReplyKind};
use super::seats::{Activity, Seat, Watched};
use super::state::State;
use super::tapped::{self, Tapped};

const ENDPOINT: &str = "/api/v1/telemetry";
const CALLS: &str = "/api/v1/{*call}";
const MAX_BODY_BYTES: usize = 64 << 20;
/// Of a refused request's body this much is still read, so that its client can read the response.
const MAX_IGNORED_BYTES: usize = 1 << 20;
/// Longer bodies are checked on another thread.
const LONG_BODY_BYTES: usize = 64 << 10;
/// The call that asks for a result.
const RESULT: &str = "/retrieve_future";

/// The routes of every connection to a collector.
pub(super) fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route(ENDPOINT, post(receive))
        .route(CALLS, any(call))
        .fallback(|| future::ready(error_response(StatusCode::NOT_FOUND, "no such path")))
        .method_not_allowed_fallback(other_method)
        .with_state(state)
}

/// What all connections share.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) own: SocketAddr,
    pub(super) state: Arc<State>,
    pub(super) routes: TowerToHyperService<Router>,
}

/// Serves `stream` until either side closes it, or it is overdue.
pub(super) async fn serve(stream: TcpStream, seat: Seat, server: Server) {
    let state = Arc::clone(&server.state);
    let activity = Arc::clone(&seat.activity);
    let stream = Watched {
        stream,
        activity: Arc::clone(&activity),
    };
    let service = service_fn(move |request| {
        let (server, activity) = (server.clone(), Arc::clone(&activity));
        Box::pin(async move {
            activity.reads_body();
            let response = respond_to(request, &server, &activity).await;
            activity.responds();
            Hangup::intercept(response)
        })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut overdue = pin!(seat.overdue());
    let result = poll_fn(|cx| {
        if let Poll::Ready(reason) = overdue.as_mut().poll(cx) {
            return Poll::Ready(Err(reason));
        }
        connection.poll_without_shutdown(cx).map(Ok)
    })
    .await;
    let error = match result {
        Ok(result) => result.err(),
        Err(reason) => {
            if let Some(reason) = reason {
                state.notify(&Notice::Closed { reason });
            }
            return;
        }
    };
    let Some(final_bytes) = error.as_ref().and_then(Hangup::of) else {
        if error.is_some_and(|error| error.is_parse()) {
            let reason = "its request was not HTTP/1".into();
            state.notify(&Notice::Closed { reason });
        }
        return;
    };
    let mut stream = connection.into_parts().io.into_inner().stream;
    // An error means that the client is gone, which is the intended effect anyway.
    let _ = stream.write_all(&final_bytes).await;
    let _ = stream.shutdown().await;
}

/// The response to a request, unless it is none of this collector's business.
async fn respond_to(
    request: hyper::Request<hyper::body::Incoming>,
    server: &Server,
    activity: &Arc<Activity>,
) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let (mut head, body) = request.into_parts();
    let response = match guard::stranger(&head, server.own) {
        None => {
            head.extensions.insert(Arc::clone(activity));
            let request = hyper::Request::from_parts(head, Body::new(body));
            match tapped::serve(request, server, activity).await {
                Ok(response) => response,
                Err(request) => match server.routes.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            }
        }
        Some(reason) => {
            let _ = read(Body::new(body), MAX_IGNORED_BYTES, &server.state).await;
            let mut response = error_response(StatusCode::FORBIDDEN, &reason);
            let close = http::HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            response
        }
    };
    if let Some(Reason(reason)) = response.extensions().get() {
        server.state.notify(&Notice::Refused {
            status: response.status().as_u16(),
            request: line,
            reason: reason.clone(),
        });
    }
    response
}

/// The telemetry endpoint.
async fn receive(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let arrived = Instant::now();
    let (mut head, body) = request.into_parts();
    let scripted = state.ledger().next_reply();
    if let Some(reply) = &scripted
        && reply.kind == ReplyKind::CloseBeforeBody
    {
        Tapped::new(&state, arrived, &head, None).exchanged(&state, reply, None);
        state.record_unread(arrived, head.headers, reply.kind);
        return send_reply(reply.clone()).await;
    }
    let Some(body) = read_all(&head, body, &state).await else {
        state.ledger().record_refused(None);
        return Hangup::after(Bytes::new());
    };
    let bytes = body.as_ref().map(|body| body.bytes.clone());
    let tapped = Tapped::new(&state, arrived, &head, bytes.as_ref().ok());
    let answer = match scripted {
        Some(reply) => reply,
        None => tapped.answer(&state).await.unwrap_or_default(),
    };
    let (checker, headers) = (Arc::clone(&state), core::mem::take(&mut head.headers));
    let length = bytes.as_ref().map_or(0, Bytes::len);
    let checked = on_another_thread(length, move || {
        let bytes = body.as_ref().map(|body| &*body.bytes);
        let checked = checker.check(&headers, bytes.map_err(Clone::clone));
        (headers, checked)
    });
    let Some((headers, checked)) = checked.await else {
        return Hangup::after(Bytes::new());
    };
    let (reply, recorded) = state.record(arrived, headers, checked, answer);
    tapped.exchanged(&state, &reply, Some(recorded));
    send_reply(reply).await
}

/// A request to the telemetry endpoint that is none.
async fn other_method(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    const ONLY_POST: &str = "only POST is allowed here";
    let (arrived, (head, _)) = (Instant::now(), request.into_parts());
    let body = serde_json::json!({ "error": ONLY_POST }).to_string();
    let reply = Reply::refuse(405, ONLY_POST.into()).body(body);
    Tapped::new(&state, arrived, &head, None).exchanged(&state, &reply, None);
    send_reply(reply).await
}

/// All other calls.
async fn call(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    match read_all(&head, body, &state).await {
        Some(Ok(body)) => {
            let length = match head.uri.path().ends_with(RESULT) {
                // A short one may ask for a long result.
                true => LONG_BODY_BYTES,
                false => body.bytes.len(),
            };
            let tapped = Tapped::new(&state, arrived, &head, Some(&body.bytes));
            let answer = tapped.answer(&state).await;
            let request = http::Request::from_parts(head, body.bytes);
            let _share = body.share;
            let backend = Arc::clone(&state);
            let reply = on_another_thread(length, move || backend.call(&request, answer));
            match reply.await {
                Some(reply) => {
                    tapped.exchanged(&state, &reply, None);
                    send_reply(reply).await
                }
                None => Hangup::after(Bytes::new()),
            }
        }
        Some(Err(violation)) => {
            let reply = super::state::refusal(&violation, None);
            Tapped::new(&state, arrived, &head, None).exchanged(&state, &reply, None);
            send_reply(reply).await
        }
        None => Hangup::after(Bytes::new()),
    }
}

/// Runs `work` on a thread that holds up no other request, if the `length` of its input makes it long. `None` if it
/// panics.
async fn on_another_thread<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if length < LONG_BODY_BYTES {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
}

/// A complete body.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    /// Held as long as the bytes.
    share: Share,
}

/// The body, or the violation that refuses it; `None` if the client did not send all of it.
async fn read_all(
    head: &http::request::Parts,
    body: Body,
    state: &State,
) -> Option<Result<Received, Violation>> {
    let result = read(body, MAX_BODY_BYTES, state).await;
    if let Some(activity) = head.extensions.get::<Arc<Activity>>() {
        activity.is_busy();
    }
    result
}

/// A body that another than the collector handles.
#[cfg(feature = "cli")]
pub(super) async fn read_body(body: Body, state: &State) -> Option<Result<Received, Violation>> {
    read(body, MAX_BODY_BYTES, state).await
}

/// Closes the connection without a response.
#[cfg(feature = "cli")]
pub(super) fn hang_up() -> Response {
    Hangup::after(Bytes::new())
}

/// Reads a body of at most `max` bytes.
async fn read(mut body: Body, max: usize, state: &State) -> Option<Result<Received, Violation>> {
    let too_long = || {
        let problem = format!("must be at most {max} bytes");
        Some(Err(Violation::new(413, "body", problem)))
    };
    let hint = body.size_hint().lower();
    if hint > max as u64 {
        return too_long();
    }
    let mut bytes = Vec::new();
    // Others' unfinished bodies count as well.
    let mut share = state.bodies().share();
    loop {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else {
            let bytes = bytes.into();
            return Some(Ok(Received { bytes, share }));
        };
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        if data.len() > max - bytes.len() {
            return too_long();
        }
        if !share.grow(data.len()) {
            let problem = "is one of too many that are being received; try again later";
            return Some(Err(Violation::new(503, "body", problem)));
        }
        bytes.extend_from_slice(&data);
    }
}

pub(super) async fn send_reply(reply: Reply) -> Response {
    if !reply.delay.is_zero() {
        // Even a zero sleep would take a millisecond.
        tokio::time::sleep(reply.delay).await;
    }
    match reply.kind {
        ReplyKind::Status(status) => respond(status, reply),
        ReplyKind::Stall => future::pending().await,
        ReplyKind::CloseBeforeBody | ReplyKind::CloseAfterBody => Hangup::after(Bytes::new()),
        ReplyKind::Garbage => Hangup::after(reply.body),
        ReplyKind::Truncated => Hangup::after(truncated(&reply)),
    }
}

fn respond(status: u16, reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    // `Reply` accepts only valid statuses.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    *response.headers_mut() = reply.headers;
    if let Some(reason) = reply.refusal {
        response.extensions_mut().insert(Reason(reason));
    }
    response
}

/// A 200 cut short, written by hand since hyper does not send a false length.
fn truncated(reply: &Reply) -> Bytes {
    let length = reply.body.len().max(1);
    let mut bytes = Vec::from(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n"));
    for (name, value) in &reply.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&reply.body[..reply.body.len() / 2]);
    bytes.into()
}

pub(super) fn error_response(status: StatusCode, error: &str) -> Response {
    let body = serde_json::json!({ "error": error }).to_string();
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    response.extensions_mut().insert(Reason(error.into()));
    response
}

/// Why a response refuses its request: an extension of the response.
#[derive(Clone, Debug)]
struct Reason(String);

/// Closes a connection after these bytes.
///
/// A handler returns it inside a response, since axum handlers cannot fail. hyper gets it as the service's error, and
/// gives up the connection without writing a response of its own.
#[derive(Clone, Debug)]
struct Hangup(Bytes);

impl Hangup {
    fn after(final_bytes: Bytes) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Self(final_bytes));
        response
    }

    fn intercept(mut response: Response) -> Result<Response, Self> {
        match response.extensions_mut().remove::<Self>() {
            Some(hangup) => Err(hangup),
            None => Ok(response),
        }
    }

    fn of(error: &hyper::Error) -> Option<Bytes> {
        let Self(final_bytes) = error::Error::source(error)?.downcast_ref()?;
        Some(final_bytes.clone())
    }
}

impl fmt::Display for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script closes the connection")
    }
}

impl error::Error for Hangup {}
