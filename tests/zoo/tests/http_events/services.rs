//! Services: a request ends with the body of its response.

use crate::events::RecordedEvents;
use alloc::collections::VecDeque;
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use core::future::{Ready, pending, ready};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::io::{Read, Write};
use tinkex_telemetry::http::{HttpEvents, ObservedBody};
use tower_layer::Layer as _;
use tower_service::Service;

/// A body whose polls return these pieces, then its end; `None` is a pending poll. The flag enables `is_end_stream`.
struct Pieces(VecDeque<Option<Result<&'static str, &'static str>>>, bool);

impl Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.0.pop_front() {
            None => Poll::Ready(None),
            Some(None) => Poll::Pending,
            Some(Some(piece)) => Poll::Ready(Some(
                piece.map(|text| Frame::data(Bytes::from_static(text.as_bytes()))),
            )),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.1 && self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// A service that responds with a body of these pieces; the flag is that of [`Pieces`].
#[derive(Clone)]
struct Responses(Vec<Option<Result<&'static str, &'static str>>>, bool);

impl Service<Request<()>> for Responses {
    type Response = Response<Pieces>;
    type Error = &'static str;
    type Future = Ready<Result<Response<Pieces>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let pieces = self.0.iter().copied().collect();
        ready(Ok(Response::new(Pieces(pieces, self.1))))
    }
}

fn call(events: &HttpEvents, responses: Responses) -> ObservedBody<Pieces> {
    let mut service = events.layer(responses);
    let request = Request::get("http://user:pw@host/a?b").body(());
    let response = smol::block_on(service.call(request.expect("a request")));
    response.expect("a response").into_body()
}

fn poll(body: &mut ObservedBody<Pieces>) -> bool {
    let body = Pin::new(body);
    let mut context = Context::from_waker(Waker::noop());
    body.poll_frame(&mut context).is_ready()
}

#[test]
fn the_stop_is_emitted_at_the_end_of_the_body_and_not_before() {
    for reports_end in [false, true] {
        let recorded = RecordedEvents::new();
        let pieces = vec![Some(Ok("a")), None, Some(Ok("b"))];
        let mut body = call(&recorded.events(), Responses(pieces, reports_end));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(recorded.short(), ["GET /a"]);
        assert!(poll(&mut body) && !poll(&mut body));
        assert!(recorded.take().is_empty(), "there is more to come");
        assert!(poll(&mut body));
        if !reports_end {
            assert!(recorded.take().is_empty());
            assert!(poll(&mut body));
        }
        assert_eq!(recorded.short(), ["GET /a: 200 ok"]);
        drop(body);
        assert!(recorded.take().is_empty(), "only one end");
    }
}

#[test]
fn an_empty_or_dropped_body_is_a_stop_and_a_failed_one_an_exception() {
    let recorded = RecordedEvents::new();
    let body = call(&recorded.events(), Responses(Vec::new(), true));
    assert_eq!(recorded.short(), ["GET /a", "GET /a: 200 ok"]);
    drop(body);
    assert!(recorded.take().is_empty());

    let mut body = call(
        &recorded.events(),
        Responses(vec![Some(Ok("a")), None], false),
    );
    poll(&mut body);
    recorded.take();
    drop(body);
    assert_eq!(recorded.short(), ["GET /a: 200 ok"]);

    let mut body = call(
        &recorded.events(),
        Responses(vec![Some(Err("secret"))], false),
    );
    poll(&mut body);
    drop(body);
    assert_eq!(
        recorded.short(),
        ["GET /a", "GET /a: error: the response broke off"]
    );
}

/// A service whose future comes from this function.
struct ServiceFn<F>(F);

impl<F: Fn() -> A, A: Future<Output = Result<Response<Pieces>, &'static str>>> Service<Request<()>>
    for ServiceFn<F>
{
    type Response = Response<Pieces>;
    type Error = &'static str;
    type Future = A;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> A {
        self.0()
    }
}

#[test]
fn a_service_that_fails_panics_or_is_dropped_is_an_exception() {
    let recorded = RecordedEvents::new();
    let request = || Request::post("/a").body(()).expect("a request");
    let mut fails = recorded.events().layer(ServiceFn(|| ready(Err("secret"))));
    assert!(smol::block_on(fails.call(request())).is_err());
    assert_eq!(
        recorded.short(),
        ["POST /a", "POST /a: error: the service failed"]
    );

    let unwind = || -> Ready<Result<_, _>> { std::panic::resume_unwind(Box::new("it")) };
    let mut in_call = recorded.events().layer(ServiceFn(unwind));
    let mut in_future = recorded
        .events()
        .layer(ServiceFn(move || async move { unwind().await }));
    let panics: [&mut dyn FnMut(); 2] = [
        &mut || drop(smol::block_on(in_call.call(request()))),
        &mut || drop(smol::block_on(in_future.call(request()))),
    ];
    for panics in panics {
        assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(
            recorded.short(),
            ["POST /a", "POST /a: panic: the request panicked"]
        );
    }

    let mut never = recorded.events().layer(ServiceFn(pending));
    drop(never.call(request()));
    assert_eq!(
        recorded.short()[1],
        "POST /a: cancelled: the request was dropped before its response"
    );
}

#[test]
fn a_server_emits_events_for_the_requests_it_handles() {
    let recorded = RecordedEvents::new();
    let router = Router::new()
        .route("/a", get(|| async { "a response" }))
        .layer(recorded.events());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            let connection = Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    for path in ["/a?key=secret", "/nothing"] {
        let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        let mut response = String::new();
        stream
            .read_to_string(&mut response)
            .expect("the server responds");
    }
    server.abort();
    drop(runtime);
    assert_eq!(
        recorded.short(),
        [
            "GET /a",
            "GET /a: 200 ok",
            "GET /nothing",
            "GET /nothing: 404 error"
        ]
    );
}
