//! The reporter's own requests emit no events, whatever client they use.

use crate::clients::{HyperService, by_hyper, reqwest_with, surf_with, ureq_with};
use crate::events::RecordedEvents;
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

/// Runs a session through this client, on a bus that records all events.
fn session<H: HttpClient>(recorded: &RecordedEvents, client: H, runtime: impl Runtime) {
    let collector = Collector::start().expect("a collector");
    let config = Config::new(&collector.url(), "the key").expect("a config");
    let reporter = Reporter::builder("recorded")
        .transport(HttpTransport::new(config, client))
        .runtime(runtime)
        .bus(recorded.bus.clone())
        .enabled(true)
        .start()
        .expect("the session starts");
    for n in 0..3 {
        reporter.log("x", fields! { n: n });
        let drain = reporter.wait_until_drained_blocking(BOUND);
        assert!(drain.expect("no deadlock").all_delivered());
    }
    // An event about one of these requests would cause another request, and so on forever.
    let drain = reporter.stop_blocking(BOUND).expect("no deadlock");
    assert!(drain.all_delivered());
    assert_eq!(
        collector.session("recorded").map(|session| session.len()),
        Some(5)
    );
    assert!(recorded.take().is_empty());
}

#[test]
fn the_reporters_own_requests_emit_no_events_through_any_client() {
    let recorded = RecordedEvents::new();
    let events = recorded.events();
    session(&recorded, events.wrap(Ureq::new()), Thread);
    session(&recorded, events.wrap(events.wrap(by_hyper)), Smol);
    session(
        &recorded,
        Ureq::with_agent(ureq_with(&events, false)),
        Thread,
    );
    let surf = events.clone();
    session(&recorded, Surf::new(move || surf_with(&surf)), Smol);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let on = || Tokio::on(runtime.handle().clone());
    let client = reqwest_with(&events);
    let by_reqwest = move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let request = request.try_into().map_err(HttpError::new)?;
            let response = client.execute(request).await.map_err(HttpError::new)?;
            let mut result = Response::new(Bytes::new());
            *result.status_mut() = response.status();
            Ok(result)
        }
    };
    session(&recorded, by_reqwest, on());

    let service = events.layer(HyperService);
    let by_tower = move |request: Request<Bytes>| {
        let mut service = service.clone();
        async move {
            let response = service.call(request).await;
            let response = response.map_err(|error| HttpError::from_error(&*error))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(HttpError::new)?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        }
    };
    session(&recorded, by_tower, Smol);
}

#[test]
fn only_a_post_to_the_telemetry_path_is_the_reporters_own_request() {
    let recorded = RecordedEvents::new();
    let mut client = recorded
        .events()
        .wrap(async |_: Request<Bytes>| Ok::<_, HttpError>(Response::new(Bytes::new())));
    let mut send = |method: &str, uri: &str| {
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Bytes::new()).expect("a request");
        smol::block_on(client.send(request)).expect("a response");
        recorded.take().len()
    };
    assert_eq!(send("POST", "http://host/base/api/v1/telemetry"), 0);
    assert_eq!(send("GET", "http://host/base/api/v1/telemetry"), 2);
    assert_eq!(send("POST", "http://host/base/api/v1/telemetry/x"), 2);
    assert_eq!(send("POST", "http://host/x?/api/v1/telemetry"), 2);
}

#[test]
fn a_disabled_session_gets_no_http_events() {
    let bus = Bus::new();
    let attached = bus.attach_logger(log::Level::Info);
    attached.expect("the id is free");
    let reporter = Reporter::builder("off")
        .transport(HttpTransport::new(
            Config::new("http://127.0.0.1:1", "key").expect("a config"),
            Ureq::new(),
        ))
        .runtime(Thread)
        .bus(bus)
        .enabled(false)
        .start()
        .expect("the session starts");
    let events = HttpEvents::new(&reporter);
    events.start("GET", "/").stop(200);
    assert_eq!(reporter.stats().refused.total(), 0);
}
