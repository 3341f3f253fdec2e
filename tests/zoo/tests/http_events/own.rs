//! The reporter's own requests: nothing is told of them, whatever they pass through.

use crate::clients::{HyperService, by_hyper, reqwest_with, surf_with, ureq_with};
use crate::told::Told;
use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tinkex_telemetry::bus::Bus;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, HttpError, HttpEvents, Surf};
use tinkex_telemetry::runtime::{Runtime, Smol};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Tokio, Ureq, fields};
use tower_layer::Layer as _;
use tower_service::Service as _;

const BOUND: Duration = Duration::from_secs(20);

/// Runs a session through this client, on a bus where everything is told.
fn session<H: HttpClient>(told: &Told, client: H, runtime: impl Runtime) {
    let collector = Collector::start().expect("a collector");
    let config = Config::new(&collector.url(), "the key").expect("a config");
    let reporter = Reporter::builder("told")
        .transport(HttpTransport::new(config, client))
        .runtime(runtime)
        .bus(told.bus.clone())
        .enabled(true)
        .start()
        .expect("it starts");
    for n in 0..3 {
        reporter.log("x", fields! { n: n });
        let drain = reporter.wait_until_drained_blocking(BOUND);
        assert!(drain.expect("another thread").all_delivered());
    }
    // What is told would be the session's own, and would go on for ever.
    let drain = reporter.stop_blocking(BOUND).expect("another thread");
    assert!(drain.all_delivered());
    assert_eq!(
        collector.session("told").map(|session| session.len()),
        Some(5)
    );
    assert!(told.take().is_empty());
}

#[test]
fn of_the_reporters_own_requests_nothing_is_told_through_any_client() {
    let told = Told::new();
    let events = told.events();
    session(&told, events.wrap(Ureq::new()), Thread);
    session(&told, events.wrap(events.wrap(by_hyper)), Smol);
    session(&told, Ureq::with_agent(ureq_with(&events, false)), Thread);
    let surf = events.clone();
    session(&told, Surf::new(move || surf_with(&surf)), Smol);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let on = || Tokio::on(runtime.handle().clone());
    let client = reqwest_with(&events);
    let by_reqwest = move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let request = request.try_into().map_err(HttpError::new)?;
            let answer = client.execute(request).await.map_err(HttpError::new)?;
            let mut result = Response::new(Bytes::new());
            *result.status_mut() = answer.status();
            Ok(result)
        }
    };
    session(&told, by_reqwest, on());

    let service = events.layer(HyperService);
    let by_tower = move |request: Request<Bytes>| {
        let mut service = service.clone();
        async move {
            let answer = service.call(request).await;
            let answer = answer.map_err(|error| HttpError::from_error(&*error))?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(HttpError::new)?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        }
    };
    session(&told, by_tower, Smol);
}

#[test]
fn only_the_path_and_the_mark_make_a_request_the_reporters_own() {
    let told = Told::new();
    let mut client = told
        .events()
        .wrap(async |_: Request<Bytes>| Ok::<_, HttpError>(Response::new(Bytes::new())));
    let mut send = |method: &str, uri: &str| {
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Bytes::new()).expect("a request");
        smol::block_on(client.send(request)).expect("an answer");
        told.take().len()
    };
    assert_eq!(send("POST", "http://host/base/api/v1/telemetry"), 0);
    assert_eq!(send("GET", "http://host/base/api/v1/telemetry"), 2);
    assert_eq!(send("POST", "http://host/base/api/v1/telemetry/x"), 2);
    assert_eq!(send("POST", "http://host/x?/api/v1/telemetry"), 2);
}

#[test]
fn of_a_session_that_is_switched_off_nothing_is_told() {
    let bus = Bus::new();
    let attached = bus.attach_logger(log::Level::Info);
    attached.expect("it is free");
    let reporter = Reporter::builder("off")
        .transport(HttpTransport::new(
            Config::new("http://127.0.0.1:1", "key").expect("a config"),
            Ureq::new(),
        ))
        .runtime(Thread)
        .bus(bus)
        .enabled(false)
        .start()
        .expect("it starts");
    let events = HttpEvents::new(&reporter);
    events.start("GET", "/").stop(200);
    assert_eq!(reporter.stats().refused.total(), 0);
}
