//! The HTTP clients under test, without timeouts of their own.

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

/// `Ureq`.
pub fn ureq() -> Ureq {
    Ureq::with_timeout(NEVER)
}

/// `Reqwest`, on the runtime of tokio that the caller is on.
pub fn reqwest() -> Reqwest {
    Reqwest::new().expect("a client")
}

/// `Reqwest`, on a runtime of tokio that the session does not run on.
pub fn reqwest_elsewhere() -> Reqwest {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    Reqwest::on(RUNTIME.handle().clone()).expect("a client")
}

/// `Surf`.
pub fn surf() -> Surf {
    Surf::new(|| {
        let config = ::surf::Config::new().set_timeout(Some(NEVER));
        config.try_into().expect("a client")
    })
}

/// A client that is chosen when the program runs.
pub fn boxed() -> BoxHttpClient {
    BoxHttpClient::new(Either::<Surf, Ureq>::Right(ureq()))
}

/// A custom client: hyper over smol's sockets, one connection per request.
pub fn hyper() -> impl HttpClient + Clone {
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
