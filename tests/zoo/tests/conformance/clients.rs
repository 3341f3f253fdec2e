//! The HTTP clients.

use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;
use std::sync::LazyLock;
use tinkex_telemetry::http::{BoxHttpClient, HttpClient, HttpError, MAX_RESPONSE_BYTES, Surf};
use tinkex_telemetry::transport::Either;
use tinkex_telemetry::{Reqwest, Ureq};
use tokio::runtime::Runtime;

/// Longer than any test takes: only the session's own timeout bounds an attempt.
const NEVER: Duration = Duration::from_secs(600);

pub(crate) fn ureq() -> Ureq {
    Ureq::with_timeout(NEVER)
}

pub(crate) fn reqwest() -> Reqwest {
    Reqwest::new().expect("a client")
}

/// On a runtime of tokio that the session does not run on.
pub(crate) fn reqwest_elsewhere() -> Reqwest {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    Reqwest::on(RUNTIME.handle().clone()).expect("a client")
}

pub(crate) fn surf() -> Surf {
    Surf::new(|| {
        let config = ::surf::Config::new().set_timeout(Some(NEVER));
        config.try_into().expect("a client")
    })
}

/// Chosen when the program runs.
pub(crate) fn boxed() -> BoxHttpClient {
    BoxHttpClient::new(Either::<Surf, Ureq>::Right(ureq()))
}

/// A custom client: hyper over smol's sockets, one connection per request.
pub(crate) fn hyper() -> impl HttpClient {
    async |request: Request<Bytes>| exchange(request).await
}

async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().cloned();
    let authority = authority.ok_or_else(|| HttpError::new("the URI has no host"))?;
    let host = authority.as_str().parse().map_err(HttpError::new)?;
    parts.headers.insert(http::header::HOST, host);
    let stream = TcpStream::connect(authority.as_str())
        .await
        .map_err(|error| HttpError::from_error(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(FuturesIo::new(stream))
        .await
        .map_err(|error| HttpError::from_error(&error))?;
    // Cancelled when this future is dropped.
    let _connection = smol::spawn(connection);
    let response = sender
        .send_request(Request::from_parts(parts, Full::new(body)))
        .await
        .map_err(|error| HttpError::from_error(&error))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
    match body {
        Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
        Err(error) => {
            let response = Response::from_parts(parts, Bytes::new());
            Err(HttpError::from_error(&*error).with_response(response))
        }
    }
}
