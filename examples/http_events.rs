//! How do I track the outcome of my HTTP requests? Wrap the client, and each request becomes events of the session.
//!
//! `cargo run --example http_events --features thread,ureq,collector`

use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response, StatusCode};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, HttpError, HttpEvents};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq};

/// The application's own client; here one without a network.
async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut response = Response::new(Bytes::new());
    match request.uri().path() {
        "/weights" => {}
        "/nothing" => *response.status_mut() = StatusCode::NOT_FOUND,
        _ => return Err(HttpError::new("connection refused")),
    }
    Ok(response)
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;
    let telemetry = Reporter::builder("http-events")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;

    // `HttpEvents` is also a middleware for surf, ureq and reqwest-middleware, and a tower layer.
    let mut client = HttpEvents::new(&telemetry).wrap(exchange);
    let executor = tokio::runtime::Builder::new_current_thread().build()?; // or any other
    for path in ["/weights?token=secret", "/nothing", "/down"] {
        let request = Request::get(format!("http://user:secret@example.com{path}"));
        let _ = executor.block_on(client.send(request.body(Bytes::new())?));
    }

    assert!(
        telemetry
            .stop_blocking(Duration::from_secs(5))?
            .all_delivered()
    );
    let session = collector
        .session("http-events")
        .ok_or("no events arrived")?;
    for event in session.events() {
        if let Some(name) = event.value()["event_name"].as_str() {
            println!("{name}: {}", event.value()["event_data"]);
        }
    }
    Ok(())
}
