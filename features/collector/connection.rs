//! One connection: axum's routes on hyper's HTTP/1, driven by hand so that it can close without a response.

use alloc::{boxed::Box, format, string::ToString, sync::Arc, vec::Vec};
use core::{
    error, fmt,
    future::{self, poll_fn},
};
use std::time::Instant;

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, FromRequest, Request, State as Shared},
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
use super::script::{Reply, ReplyKind};
use super::state::State;

const ENDPOINT: &str = "/api/v1/telemetry";
const CALLS: &str = "/api/v1/{*call}";
const MAX_BODY_BYTES: usize = 64 << 20;

/// The routes of every connection to a collector.
pub(super) fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route(ENDPOINT, post(receive))
        .route(CALLS, any(call))
        .fallback(|| future::ready(error_response(StatusCode::NOT_FOUND, "no such path")))
        .method_not_allowed_fallback(|| {
            future::ready(error_response(
                StatusCode::METHOD_NOT_ALLOWED,
                "only POST is allowed here",
            ))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// Serves `stream` until either side closes it.
pub(super) async fn serve(stream: TcpStream, routes: TowerToHyperService<Router>) {
    let service = service_fn(move |request| {
        let response = routes.call(request);
        Box::pin(async move { Hangup::intercept(response.await) })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let result = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let Some(final_bytes) = result.err().as_ref().and_then(Hangup::of) else {
        return;
    };
    let mut stream = connection.into_parts().io.into_inner();
    // An error means that the client is gone, which is the intended effect anyway.
    let _ = stream.write_all(&final_bytes).await;
    let _ = stream.shutdown().await;
}

/// The telemetry endpoint.
async fn receive(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let arrived = Instant::now();
    let headers = request.headers().clone();
    let scripted = state.ledger().next_reply();
    let reply = if scripted.kind == ReplyKind::CloseBeforeBody {
        state.record_unread(arrived, headers, scripted.kind);
        scripted
    } else {
        let Some(body) = read(request).await else {
            state.ledger().record_refused(None);
            return Hangup::after(Bytes::new());
        };
        let body = body.as_deref().map_err(Clone::clone);
        state.record(arrived, headers, body, scripted)
    };
    send_reply(reply).await
}

/// All other calls.
async fn call(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts.clone(), ());
    match read(Request::from_parts(parts, body)).await {
        Some(Ok(body)) => send_reply(state.call(&head.map(|()| body))).await,
        Some(Err(_)) => error_response(StatusCode::PAYLOAD_TOO_LARGE, "too long"),
        None => Hangup::after(Bytes::new()),
    }
}

/// The body, or the violation that refuses it; `None` if the client did not send all of it.
async fn read(request: Request) -> Option<Result<Bytes, Violation>> {
    let too_long = || {
        let problem = format!("must be at most {MAX_BODY_BYTES} bytes");
        Some(Err(Violation::new(413, "body", problem)))
    };
    if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
        return too_long();
    }
    match Bytes::from_request(request, &()).await {
        Ok(body) => Some(Ok(body)),
        // A body of unknown length is read up to the limit.
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => too_long(),
        Err(_) => None,
    }
}

async fn send_reply(reply: Reply) -> Response {
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

fn error_response(status: StatusCode, error: &str) -> Response {
    let body = serde_json::json!({ "error": error }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

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

    fn intercept<E>(response: Result<Response, E>) -> Result<Response, Self> {
        let Ok(mut response) = response else {
            return Err(Self(Bytes::new()));
        };
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
