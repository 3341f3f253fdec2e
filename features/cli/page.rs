//! The page at `/ui`: who may see it, its files, and what they ask for.

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

/// The files of the page: name, type, contents.
const FILES: [(&str, &str, &str); 8] = [
    (
        "",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("store.js", SCRIPT, include_str!("page/store.js")),
    ("rows.js", SCRIPT, include_str!("page/rows.js")),
    ("lanes.js", SCRIPT, include_str!("page/lanes.js")),
    ("detail.js", SCRIPT, include_str!("page/detail.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Responds to a request for `/ui` or below.
pub(super) async fn respond(hub: &Arc<Hub>, request: Request<Bytes>) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let rest = path.strip_prefix("/ui").unwrap_or_default();
    let mut response = own(hub, &head, rest.trim_start_matches('/'), body).await;
    secure(response.headers_mut());
    response
}

async fn own(hub: &Arc<Hub>, head: &Parts, path: &str, body: Bytes) -> Response {
    if let Some(response) = sign_in(hub, head, path) {
        return response;
    }
    if !is_signed_in(hub, &head.headers) {
        return plain(
            StatusCode::UNAUTHORIZED,
            "Open the URL that the program printed: it has the token that this page needs.",
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
    let file = FILES.iter().find(|(name, ..)| *name == path);
    match file {
        Some((_, kind, text)) if head.method == Method::GET => {
            typed(StatusCode::OK, kind, Body::from(*text))
        }
        Some(_) => plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET is allowed here."),
        None => plain(StatusCode::NOT_FOUND, "There is no such page."),
    }
}

/// The token in the URL becomes a cookie, and leaves the address bar.
fn sign_in(hub: &Hub, head: &Parts, path: &str) -> Option<Response> {
    let token = head.uri.query()?.strip_prefix("t=")?;
    if !path.is_empty() || head.method != Method::GET || !hub.token.is(token) {
        return None;
    }
    let cookie = format!(
        "{}={token}; Path=/ui; HttpOnly; SameSite=Strict",
        cookie_name(&head.headers)
    );
    let mut response = plain(StatusCode::SEE_OTHER, "");
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/ui"));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    Some(response)
}

/// Cookies do not tell ports apart, so the name does.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let port = host.and_then(|host| host.rsplit_once(':'));
    let port = port.map_or("80", |(_, port)| port);
    let port: String = port.chars().filter(char::is_ascii_digit).collect();
    format!("tinkex-{port}")
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
    let name = cookie_name(headers);
    headers
        .get_all(header::COOKIE)
        .iter()
        .map(text)
        .any(|cookies| {
            let mut cookies = cookies
                .split(';')
                .filter_map(|cookie| cookie.trim().split_once('='));
            cookies.any(|(found, token)| found == name && hub.token.is(token))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_takes_nothing_from_elsewhere() {
        let size: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(size <= 80 << 10, "{size} bytes");
        for (name, _, text) in FILES {
            let foreign = [
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ];
            for word in foreign {
                assert!(!text.contains(word), "{name}: {word}");
            }
        }
    }
}
