//! How do I use an HTTP client that has no adapter? With a closure: here hyper over smol's sockets, one connection per
//! request.
//!
//! `cargo run -p example-custom-http`

use bytes::Bytes;
use core::time::Duration;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpError, MAX_RESPONSE_BYTES};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Smol, fields};

type Error = Box<dyn core::error::Error + Send + Sync>;

fn failed(error: impl Into<Error>) -> HttpError {
    HttpError::from_error(&*error.into())
}

/// One attempt: no timeout (the session has one), no retries, and a status is not an error.
async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().ok_or("the URI has no host");
    let host = host.map_err(failed)?.clone();
    let stream = TcpStream::connect(host.as_str()).await.map_err(failed)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(FuturesIo::new(stream))
        .await
        .map_err(failed)?;
    // Dropped with this future when the session abandons the attempt.
    let _connection = smol::spawn(connection);
    let host = HeaderValue::from_str(host.as_str()).map_err(failed)?;
    parts.headers.insert(HOST, host);
    let request = Request::from_parts(parts, Full::new(body));
    let response = sender.send_request(request).await.map_err(failed)?;
    let (parts, body) = response.into_parts();
    match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
        Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
        // Even without its body, the response has a status.
        Err(error) => {
            let response = Response::from_parts(parts, Bytes::new());
            Err(failed(error).with_response(response))
        }
    }
}

fn main() -> Result<(), Error> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;

    let client = async |request| exchange(request).await;
    let telemetry = Reporter::builder("custom-http")
        .transport(HttpTransport::new(config, client))
        .runtime(Smol)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;
    telemetry.log("train.step", fields! { step: 1, loss: 0.5 });
    let drain = smol::block_on(telemetry.stop(Duration::from_secs(5)));
    println!("{} events delivered", drain.delivered);
    assert!(drain.all_delivered());
    Ok(())
}
