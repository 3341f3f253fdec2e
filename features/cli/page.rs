//! What is served below `/ui`, and to whom.

mod api;
mod stream;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts};

use super::hub::Hub;
use super::prelude::*;

/// Nothing but what comes from here, and no text that becomes markup or a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Of a request to the page, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Responds to what the collector itself does not serve; `None` if it is not the page's either.
pub(super) async fn respond(hub: &Arc<Hub>, request: Request<Body>) -> Option<Response> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = axum::body::to_bytes(body, usize::MAX).await.ok()?;
    let Some(rest) = path
        .strip_prefix("/ui")
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    else {
        // What is passed on is passed on whole.
        let upstream = hub.parts.upstream.as_ref()?;
        let request = Request::from_parts(head, body);
        return upstream
            .pass(&request)
            .await
            .response()
            .map(|response| response.map(Body::from));
    };
    let mut response = own(hub, &head, rest.trim_start_matches('/'), body).await;
    secure(response.headers_mut());
    Some(response)
}

async fn own(hub: &Arc<Hub>, head: &Parts, path: &str, body: Bytes) -> Response {
    if !is_signed_in(hub, &head.headers) {
        return plain(
            StatusCode::UNAUTHORIZED,
            "The request needs the token: Authorization: Bearer TOKEN.",
        );
    }
    if let Some(call) = path.strip_prefix("api/") {
        let is_json = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                let essence = value.split(';').next().unwrap_or_default();
                essence.trim().eq_ignore_ascii_case("application/json")
            });
        return match head.method {
            Method::GET => api::get(hub, head, call),
            Method::POST if !is_json => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON, and its content-type application/json.",
            ),
            Method::POST if body.len() > MAX_BODY => {
                plain(StatusCode::PAYLOAD_TOO_LARGE, "The body is too long.")
            }
            Method::POST => api::post(hub, call, &body).await,
            _ => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "Only GET and POST are allowed here.",
            ),
        };
    }
    plain(StatusCode::NOT_FOUND, "There is no such call.")
}

fn is_signed_in(hub: &Hub, headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let bearer = headers.get(header::AUTHORIZATION).map(text);
    if let Some(token) = bearer
        .as_deref()
        .and_then(|value| value.strip_prefix("Bearer "))
    {
        return hub.token.is(token.trim());
    }
    false
}

fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn typed(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    typed(status, "text/plain; charset=utf-8", Body::from(text))
}
