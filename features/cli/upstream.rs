//! Requests that are passed on to another server, and its responses that are given back.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};

use crate::features::collector::Reply;
use crate::features::http::{HttpClient, ResponseBounds};
use crate::features::ureq::Ureq;

use super::prelude::*;

/// Another server.
pub(super) struct Upstream {
    base: String,
    /// Takes the place of the key that a request came with.
    key: Option<HeaderValue>,
    /// Whether telemetry goes there as well.
    pub(super) takes_telemetry: bool,
    idle: Mutex<Vec<Ureq>>,
}

/// Of a response, in bytes.
const MAX_RESPONSE: usize = 256 << 20;
/// A call may train for a while.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Clients that are kept for the next request.
const MAX_IDLE: usize = 16;

/// What concerns one connection alone.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

impl Upstream {
    /// The server at this URL, which must be one that every client reads in the same way.
    pub(super) fn new(
        base: &str,
        key: Option<HeaderValue>,
        takes_telemetry: bool,
    ) -> Result<Self, String> {
        let base = base.trim().trim_end_matches('/');
        let uri: Uri = base
            .parse()
            .map_err(|error| format!("{base:?} is not a URL: {error}"))?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        let is_port = port.is_none_or(|port| {
            port.ends_with(']') || port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !is_http
            || !is_port
            || authority.is_empty()
            || authority.contains('@')
            || uri.query().is_some()
        {
            return Err(format!(
                "{base:?} must be http:// or https:// with a host and a port that exists, without user, query and fragment"
            ));
        }
        let client = Ureq::with_timeout(TIMEOUT);
        client
            .check(&uri)
            .map_err(|error| format!("{base:?} cannot be used: {error}"))?;
        Ok(Self {
            base: base.to_owned(),
            key,
            takes_telemetry,
            idle: Mutex::new(Vec::from([client])),
        })
    }

    /// Passes a request on, without following redirects. A server that does not respond is a 502.
    pub(super) async fn pass(&self, request: &Request<Bytes>) -> Reply {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let Ok(uri) = format!("{}{path}", self.base).parse::<Uri>() else {
            return Reply::status(400);
        };
        let mut passed = Request::new(request.body().clone());
        *passed.method_mut() = request.method().clone();
        *passed.uri_mut() = uri;
        *passed.headers_mut() = end_to_end(request.headers());
        // An encoded response could be passed on, but neither recorded nor read.
        passed.headers_mut().remove(header::ACCEPT_ENCODING);
        if let Some(key) = &self.key {
            passed.headers_mut().insert("x-api-key", key.clone());
        }
        let mut bounds = ResponseBounds::of(&passed);
        bounds.max_bytes = MAX_RESPONSE;
        bounds.timeout = Some(TIMEOUT);
        passed.extensions_mut().insert(bounds);
        let idle = self.idle().pop();
        let mut client = idle.unwrap_or_else(|| Ureq::with_timeout(TIMEOUT));
        let response = match client.send(passed).await {
            Ok(response) => response,
            Err(error) => match error.response() {
                Some(response) => response,
                None => {
                    let problem = format!("no response from {}: {error}", self.base);
                    let body = serde_json::json!({ "error": problem }).to_string();
                    return Reply::status(502).body(body);
                }
            },
        };
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(client);
        }
        drop(idle);
        let (mut head, body) = response.into_parts();
        head.headers = end_to_end(&head.headers);
        Reply::foreign(Response::from_parts(head, body))
    }

    /// Whether a request for this path may go there. With the key of this process only the API's calls may: what a
    /// server makes of another path is not known here.
    pub(super) fn takes(&self, path: &str) -> bool {
        self.key.is_none() || is_call(path)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Ureq>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a path is below `/api/v1/` for every server, also for one that decodes it and then looks for `..`.
fn is_call(path: &str) -> bool {
    let Some(call) = path.strip_prefix("/api/v1/") else {
        return false;
    };
    let call = call.to_ascii_lowercase();
    let is_encoded_twice = ["%252e", "%252f", "%255c", "%2525"]
        .iter()
        .any(|code| call.contains(code));
    let call = call
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/");
    let mut segments = call.split(['/', '\\']).map(|segment| {
        // Some servers cut parameters off.
        let end = segment.find(';').or(segment.find("%3b"));
        segment
            .get(..end.unwrap_or(segment.len()))
            .unwrap_or(segment)
    });
    !is_encoded_twice && segments.all(|segment| !matches!(segment, "" | "." | ".."))
}

/// The headers that are not about one connection, also by what `connection` says.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let is_local = HOP_BY_HOP.contains(name)
            || name.as_str().starts_with("proxy-")
            || named.iter().any(|named| named == name.as_str());
        if !is_local {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-api-key", "k"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("host", "a"),
            ("proxy-authorization", "b"),
            ("user-agent", "c"),
        ] {
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static(value),
            );
        }
        let passed = end_to_end(&headers);
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["user-agent", "x-api-key"]);
    }

    #[test]
    fn only_plain_calls_go_where_the_key_goes() {
        let key = Some(HeaderValue::from_static("k"));
        let own = Upstream::new("http://a/b", key, false).unwrap();
        let open = Upstream::new("http://a/b", None, true).unwrap();
        for path in [
            "/api/v1/asample",
            "/api/v1/sessions/a.b/finish",
            "/api/v1/training_runs/r%3A1/checkpoints/weights%2f1",
        ] {
            assert!(own.takes(path) && open.takes(path), "{path}");
        }
        for path in [
            "/",
            "/foo",
            "/api/v1",
            "/api/v1/",
            "/api/v1/asample/",
            "//api/v1/asample",
            "/x/../api/v1/asample",
            "/api/v1//asample",
            "/api/v1/../../admin",
            "/api/v1/./asample",
            "/api/v1/%2e%2E/admin",
            "/api/v1/x%2f..%2Fadmin",
            "/api/v1/x%5c..%5cadmin",
            "/api/v1/..\\admin",
            "/api/v1/%252e%252e/admin",
            "/api/v1/..;a/admin",
            "/API/v1/asample",
        ] {
            assert!(!own.takes(path), "{path}");
            assert!(
                open.takes(path),
                "{path}: with the credentials that it came with"
            );
        }
    }

    #[test]
    fn a_url_that_clients_read_differently_is_refused() {
        for wrong in [
            "",
            "localhost:80",
            "ftp://a",
            "http://u:p@a",
            "http://a/?q",
            "http://a:99999",
        ] {
            assert!(Upstream::new(wrong, None, true).is_err(), "{wrong}");
        }
        let upstream = Upstream::new("http://a/b/", None, true).map(|up| up.base);
        assert_eq!(upstream, Ok("http://a/b".to_owned()));
    }
}
