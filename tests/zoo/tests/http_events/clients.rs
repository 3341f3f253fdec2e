//! Every way to emit events for a client's requests, on each runtime where it works.

use crate::events::RecordedEvents;
use crate::server::{SECRET, Server, refused};
use bytes::Bytes;
use core::convert::Infallible;
use core::future::Future;
use core::pin::Pin;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;
use std::thread;
use tinkex_telemetry::http::{HttpClient, HttpError, HttpEvents, RetryCount, Surf};
use tinkex_telemetry::{Reqwest, Ureq};
use tower_layer::Layer as _;
use tower_service::Service;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Sends a `GET` of a URL with this retry count. Resolves to the response's status.
pub(crate) type Get = Box<dyn Fn(String, u32) -> BoxFuture<Option<u16>> + Send>;

fn request(url: &str, retries: u32) -> Request<Bytes> {
    let request = Request::get(url).header(AUTHORIZATION, format!("Bearer {SECRET}"));
    let request = request.extension(RetryCount(retries));
    request.body(Bytes::new()).expect("a request")
}

/// A wrapped client.
fn wrapped<H: HttpClient>(events: &HttpEvents, make: impl Fn() -> H + Send + 'static) -> Get {
    let events = events.clone();
    Box::new(move |url, retries| {
        let mut client = events.wrap(make());
        Box::pin(async move {
            let response = client.send(request(&url, retries)).await;
            response.ok().map(|response| response.status().as_u16())
        })
    })
}

pub(crate) fn surf_with(events: &HttpEvents) -> surf::Client {
    surf::Client::new().with(events.clone())
}

fn surf_middleware(events: &HttpEvents) -> Get {
    let client = surf_with(events);
    Box::new(move |url, retries| {
        let mut request = surf::get(url)
            .header("authorization", format!("Bearer {SECRET}"))
            .build();
        request.set_ext(RetryCount(retries));
        let client = client.clone();
        Box::pin(async move {
            let response = client.send(request).await;
            response.ok().map(|response| response.status().into())
        })
    })
}

pub(crate) fn reqwest_with(events: &HttpEvents) -> reqwest_middleware::ClientWithMiddleware {
    let client = reqwest_middleware::reqwest::Client::builder()
        .tls_backend_preconfigured(no_tls())
        .build();
    reqwest_middleware::ClientBuilder::new(client.expect("a client"))
        .with(events.clone())
        .build()
}

/// reqwest requires one, though nothing here is encrypted.
fn no_tls() -> rustls::ClientConfig {
    let ring = rustls::crypto::ring::default_provider();
    rustls::ClientConfig::builder_with_provider(ring.into())
        .with_safe_default_protocol_versions()
        .expect("the default protocol versions are valid")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn reqwest_middleware(events: &HttpEvents) -> Get {
    let client = reqwest_with(events);
    Box::new(move |url, retries| {
        let sending = client
            .get(url)
            .bearer_auth(SECRET)
            .with_extension(RetryCount(retries))
            .send();
        Box::pin(async move {
            sending
                .await
                .ok()
                .map(|response| response.status().as_u16())
        })
    })
}

pub(crate) fn ureq_with(events: &HttpEvents, status_is_error: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .middleware(events.clone())
        .http_status_as_error(status_is_error)
        .max_redirects(0)
        .max_redirects_will_error(false);
    config.build().new_agent()
}

/// Blocks the thread that polls it.
fn ureq_middleware(events: &HttpEvents, status_is_error: bool) -> Get {
    let agent = ureq_with(events, status_is_error);
    Box::new(move |url, retries| {
        let agent = agent.clone();
        Box::pin(async move {
            let request = request(&url, retries).map(|_| ());
            match agent.run(request) {
                Ok(response) => Some(response.status().as_u16()),
                Err(ureq::Error::StatusCode(status)) => Some(status),
                Err(_) => None,
            }
        })
    })
}

/// A client as a service: hyper over smol's sockets, one connection per request.
#[derive(Clone)]
pub(crate) struct HyperService;

impl Service<Request<Bytes>> for HyperService {
    type Response = Response<hyper::body::Incoming>;
    type Error = Box<dyn core::error::Error + Send + Sync>;
    type Future = BoxFuture<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Result<(), Self::Error>> {
        core::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let host = parts.uri.host().ok_or("no host")?.to_owned();
            let port = parts.uri.port_u16().ok_or("no port")?;
            parts.headers.insert(http::header::HOST, host.parse()?);
            let path = parts.uri.path_and_query().ok_or("no path")?;
            parts.uri = path.clone().into();
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(FuturesIo::new(stream)).await?;
            smol::spawn(connection).detach();
            let request = Request::from_parts(parts, Full::new(body));
            Ok(sender.send_request(request).await?)
        })
    }
}

fn tower_client(events: &HttpEvents) -> Get {
    let service = events.layer(HyperService);
    Box::new(move |url, retries| {
        let mut service = service.clone();
        Box::pin(async move {
            let response = service.call(request(&url, retries)).await.ok()?;
            let status = response.status().as_u16();
            response.into_body().collect().await.ok()?;
            Some(status)
        })
    })
}

/// hyper as a closure: a custom client.
pub(crate) async fn by_hyper(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let failed = |error: Box<dyn core::error::Error + Send + Sync>| HttpError::from_error(&*error);
    let response = HyperService.call(request).await.map_err(failed)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| failed(error.into()))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Tokio,
    TokioCurrentThread,
    Smol,
    /// A thread without an executor.
    Thread,
}

const RUNTIMES: [On; 4] = [On::Tokio, On::TokioCurrentThread, On::Smol, On::Thread];

impl On {
    pub(crate) fn run<T: Send + 'static>(
        self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self {
            Self::Tokio | Self::TokioCurrentThread => {
                let mut builder = match self {
                    Self::Tokio => tokio::runtime::Builder::new_multi_thread(),
                    _ => tokio::runtime::Builder::new_current_thread(),
                };
                let runtime = builder.enable_all().build().expect("a runtime");
                let done = runtime.block_on(runtime.spawn(future));
                done.expect("no panic")
            }
            Self::Smol => smol::block_on(smol::spawn(future)),
            Self::Thread => {
                let thread = thread::spawn(|| smol::block_on(future));
                thread.join().expect("no panic")
            }
        }
    }
}

/// Runs every way on each runtime where it works, with a name for both.
pub(crate) fn each_way(mut run: impl FnMut(&str, On, &RecordedEvents, Get)) {
    for on in RUNTIMES {
        let mut way = |name: &str, make: &dyn Fn(&HttpEvents) -> Get| {
            let recorded = RecordedEvents::new();
            let get = make(&recorded.events());
            run(&format!("{name} on {on:?}"), on, &recorded, get);
        };
        if matches!(on, On::Tokio | On::TokioCurrentThread) {
            way("Reqwest, wrapped", &|events| {
                wrapped(events, || Reqwest::new().expect("a client"))
            });
            way("reqwest-middleware", &reqwest_middleware);
        }
        way("Ureq, wrapped", &|events| wrapped(events, Ureq::new));
        way("Surf, wrapped", &|events| {
            wrapped(events, || Surf::new(surf::Client::new))
        });
        way("hyper, wrapped", &|events| wrapped(events, || by_hyper));
        way("surf's middleware", &surf_middleware);
        way("ureq's middleware", &|events| ureq_middleware(events, true));
        way("ureq's middleware, statuses", &|events| {
            ureq_middleware(events, false)
        });
        way("tower", &tower_client);
    }
}

#[test]
fn every_way_emits_a_start_and_one_end_for_each_request() {
    let server = Server::start();
    each_way(|name, on, recorded, get| {
        let gets = [
            ("/200", server.url("/200")),
            ("/404", server.url("/404")),
            ("/503", server.url("/503")),
            ("/close", server.url("/close")),
            ("/refused", refused("/refused")),
        ];
        for (path, url) in gets {
            let status = on.run(get(url, 3));
            let short = recorded.short();
            assert_eq!(short.len(), 2, "{name}: {short:?}");
            assert_eq!(short[0], format!("GET {path}"), "{name}");
            let end = match path {
                "/200" => "200 ok, retry 3",
                "/404" => "404 error, retry 3",
                "/503" => "503 error, retry 3",
                // Clients classify this error differently.
                "/close" => "error: ",
                _ if name.starts_with("tower") => "error: the service failed",
                _ => "error: connection refused",
            };
            let end = format!("GET {path}: {end}");
            assert!(short[1].starts_with(&end), "{name}: {}", short[1]);
            let expected = path.strip_prefix('/').and_then(|path| path.parse().ok());
            assert_eq!(status, expected, "{name}");
            assert_eq!(recorded.open(), 0, "{name}: a call without an end");
        }
    });
}

#[test]
fn requests_under_way_at_the_same_time_are_told_apart_by_their_numbers() {
    let recorded = RecordedEvents::new();
    // The same session, from two places in the program.
    let (events, others) = (recorded.events(), recorded.events());
    let calls: Vec<_> = (0..4)
        .map(|n| match n % 2 {
            0 => events.start("GET", "/same"),
            _ => others.start("GET", "/same"),
        })
        .collect();
    assert_eq!(recorded.take().len(), 4);
    for (left, call) in calls.into_iter().rev().enumerate() {
        call.stop(200);
        let end = recorded.take();
        assert_eq!(end[0][2]["call"], 3 - left);
        assert_eq!(recorded.open(), 3 - left);
    }
}

#[test]
fn a_request_dropped_half_way_is_cancelled() {
    let server = alloc::sync::Arc::new(Server::start());
    each_way(|name, on, recorded, get| {
        if name.starts_with("ureq's") {
            // ureq blocks: there is no future to drop.
            return;
        }
        let (url, server) = (server.url("/stall"), alloc::sync::Arc::clone(&server));
        on.run(async move {
            let arrived = smol::unblock(move || server.wait_for_stalled());
            let request = get(url, 0);
            let arrived = async {
                arrived.await;
                Some(())
            };
            let responded = async {
                request.await;
                None
            };
            assert_eq!(smol::future::or(responded, arrived).await, Some(()));
        });
        let cancelled = "GET /stall: cancelled: the request was dropped before its response";
        assert_eq!(recorded.short(), ["GET /stall", cancelled], "{name}");
        assert_eq!(recorded.open(), 0, "{name}: a call without an end");
    });
}

#[test]
fn an_unpolled_future_is_no_request_and_a_panic_is_an_exception() {
    let recorded = RecordedEvents::new();
    let panics = |_: Request<Bytes>| async { std::panic::resume_unwind(Box::new("a client")) };
    let mut client = recorded.events().wrap(panics);
    drop(client.send(request("http://host/x?y", 0)));
    assert!(recorded.take().is_empty());
    let call = core::panic::AssertUnwindSafe(|| {
        smol::block_on(client.send(request("http://host/x?y", 0)))
    });
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(
        recorded.short(),
        ["GET /x", "GET /x: panic: the request panicked"]
    );
}

#[test]
fn a_request_reported_by_hand_ends_as_specified() {
    let recorded = RecordedEvents::new();
    let events = recorded.events();
    events.start("PUT", "/a?b=c").retry_count(2).stop(302);
    events.start("GET", "/a").exception("error", "no luck");
    drop(events.start("GET", "/a"));
    assert_eq!(
        recorded.short(),
        [
            "PUT /a",
            "PUT /a: 302 ok, retry 2",
            "GET /a",
            "GET /a: error: no luck",
            "GET /a",
            "GET /a: cancelled: the request was dropped before its response"
        ]
    );
}

#[test]
fn a_handler_attached_half_way_gets_no_end_without_its_start() {
    let bus = tinkex_telemetry::bus::Bus::new();
    let events = HttpEvents::on(&bus, "s");
    let call = events.start("GET", "/a");
    let attached = bus.attach("late", tinkex_telemetry::bus::HTTP_REQUEST_STOP, |_| {
        panic!("its start was before the handler");
    });
    attached.expect("the id is free");
    call.stop(200);
    assert_eq!(bus.list().len(), 1);
}

#[test]
fn http_events_and_wrapped_clients_can_be_shared_between_threads() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    let events = RecordedEvents::new().events();
    check(&events);
    check(&events.wrap(Infallible::clone as fn(&Infallible) -> Infallible));
}
