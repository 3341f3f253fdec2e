//! One connection: axum's routes on hyper's HTTP/1, driven by hand so that an answer can be none.

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
use super::script::{Reply, ResponseKind};
use super::state::State;

const ENDPOINT: &str = "/api/v1/telemetry";
const CALLS: &str = "/api/v1/{*call}";
const MAX_BODY_BYTES: usize = 64 << 20;

/// The routes that every connection of a collector serves.
pub(super) fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route(ENDPOINT, post(receive))
        .route(CALLS, any(call))
        .fallback(|| future::ready(problem(StatusCode::NOT_FOUND, "no such path")))
        .method_not_allowed_fallback(|| {
            future::ready(problem(
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
        Box::pin(async move { Hangup::unless_answered(response.await) })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let result = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let Some(last_words) = result.err().as_ref().and_then(Hangup::of) else {
        return;
    };
    let mut stream = connection.into_parts().io.into_inner();
    // The client may be gone by now, which is as good as having hung up on it.
    let _ = stream.write_all(&last_words).await;
    let _ = stream.shutdown().await;
}

/// The one endpoint.
async fn receive(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let arrived = Instant::now();
    let headers = request.headers().clone();
    let scripted = state.ledger().next_answer();
    let answer = if scripted.kind == ResponseKind::CloseBeforeBody {
        state.note_unread(arrived, headers, scripted.kind);
        scripted
    } else {
        let Some(body) = read(request).await else {
            state.ledger().note_refused(None);
            return Hangup::after(Bytes::new());
        };
        let body = body.as_deref().map_err(Clone::clone);
        state.take(arrived, headers, body, scripted)
    };
    give(answer).await
}

/// All the others.
async fn call(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts.clone(), ());
    match read(Request::from_parts(parts, body)).await {
        Some(Ok(body)) => give(state.call(&head.map(|()| body))).await,
        Some(Err(_)) => problem(StatusCode::PAYLOAD_TOO_LARGE, "too long"),
        None => Hangup::after(Bytes::new()),
    }
}

/// The body, or why it is not taken; `None` when the client did not send all of it.
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
        // A body of unknown length is cut off where it passes the limit.
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => too_long(),
        Err(_) => None,
    }
}

async fn give(answer: Reply) -> Response {
    if !answer.delay.is_zero() {
        // Which takes a millisecond even for nothing.
        tokio::time::sleep(answer.delay).await;
    }
    match answer.kind {
        ResponseKind::Status(status) => respond(status, answer),
        ResponseKind::Stall => future::pending().await,
        ResponseKind::CloseBeforeBody | ResponseKind::CloseAfterBody => Hangup::after(Bytes::new()),
        ResponseKind::Garbage => Hangup::after(answer.body),
        ResponseKind::Truncated => Hangup::after(half(&answer)),
    }
}

fn respond(status: u16, answer: Reply) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    // `Reply` lets in nothing else.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    *response.headers_mut() = answer.headers;
    response
}

/// A 200 cut short, written by hand since hyper does not let a length lie.
fn half(answer: &Reply) -> Bytes {
    let length = answer.body.len().max(1);
    let mut bytes = Vec::from(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n"));
    for (name, value) in &answer.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&answer.body[..answer.body.len() / 2]);
    bytes.into()
}

fn problem(status: StatusCode, error: &str) -> Response {
    let body = serde_json::json!({ "error": error }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The end of a connection: these bytes, and then nothing.
///
/// A handler returns it inside a response, as an axum handler cannot fail. hyper is then given it as
/// the service's error, at which it lets go of the connection without a word of its own.
#[derive(Clone, Debug)]
struct Hangup(Bytes);

impl Hangup {
    fn after(last_words: Bytes) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Self(last_words));
        response
    }

    fn unless_answered<E>(response: Result<Response, E>) -> Result<Response, Self> {
        let Ok(mut response) = response else {
            return Err(Self(Bytes::new()));
        };
        match response.extensions_mut().remove::<Self>() {
            Some(hangup) => Err(hangup),
            None => Ok(response),
        }
    }

    fn of(error: &hyper::Error) -> Option<Bytes> {
        let Self(last_words) = error::Error::source(error)?.downcast_ref()?;
        Some(last_words.clone())
    }
}

impl fmt::Display for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script closes the connection")
    }
}

impl error::Error for Hangup {}
