//! Services: a request ends where its answer's body does.

use crate::told::Told;
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

/// What a body's polls come to, one after the other; then its end. A piece that is not there yet is `None`.
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

/// A service that answers with a body of these pieces, which says or does not say when it is at its end.
#[derive(Clone)]
struct Answers(Vec<Option<Result<&'static str, &'static str>>>, bool);

impl Service<Request<()>> for Answers {
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

fn call(events: &HttpEvents, answers: Answers) -> ObservedBody<Pieces> {
    let mut service = events.layer(answers);
    let request = Request::get("http://user:pw@host/a?b").body(());
    let answer = smol::block_on(service.call(request.expect("a request")));
    answer.expect("an answer").into_body()
}

fn poll(body: &mut ObservedBody<Pieces>) -> bool {
    let body = Pin::new(body);
    let mut context = Context::from_waker(Waker::noop());
    body.poll_frame(&mut context).is_ready()
}

#[test]
fn the_stop_is_told_at_the_end_of_the_body_and_not_before() {
    for says_end in [false, true] {
        let told = Told::new();
        let pieces = vec![Some(Ok("a")), None, Some(Ok("b"))];
        let mut body = call(&told.events(), Answers(pieces, says_end));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(told.short(), ["GET /a"]);
        assert!(poll(&mut body) && !poll(&mut body));
        assert!(told.take().is_empty(), "there is more to come");
        assert!(poll(&mut body));
        if !says_end {
            assert!(told.take().is_empty());
            assert!(poll(&mut body));
        }
        assert_eq!(told.short(), ["GET /a: 200 ok"]);
        drop(body);
        assert!(told.take().is_empty(), "once is enough");
    }
}

#[test]
fn a_body_that_is_empty_or_dropped_is_a_stop_and_one_that_fails_an_exception() {
    let told = Told::new();
    let body = call(&told.events(), Answers(Vec::new(), true));
    assert_eq!(told.short(), ["GET /a", "GET /a: 200 ok"]);
    drop(body);
    assert!(told.take().is_empty());

    let mut body = call(&told.events(), Answers(vec![Some(Ok("a")), None], false));
    poll(&mut body);
    told.take();
    drop(body);
    assert_eq!(told.short(), ["GET /a: 200 ok"]);

    let mut body = call(&told.events(), Answers(vec![Some(Err("secret"))], false));
    poll(&mut body);
    drop(body);
    assert_eq!(
        told.short(),
        ["GET /a", "GET /a: error: the response broke off"]
    );
}

/// A service whose future is what this makes.
struct Does<F>(F);

impl<F: Fn() -> A, A: Future<Output = Result<Response<Pieces>, &'static str>>> Service<Request<()>>
    for Does<F>
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
fn a_service_that_fails_panics_or_is_given_up_is_an_exception() {
    let told = Told::new();
    let request = || Request::post("/a").body(()).expect("a request");
    let mut fails = told.events().layer(Does(|| ready(Err("secret"))));
    assert!(smol::block_on(fails.call(request())).is_err());
    assert_eq!(
        told.short(),
        ["POST /a", "POST /a: error: the service failed"]
    );

    let unwind = || -> Ready<Result<_, _>> { std::panic::resume_unwind(Box::new("it")) };
    let mut in_call = told.events().layer(Does(unwind));
    let mut in_future = told
        .events()
        .layer(Does(move || async move { unwind().await }));
    let panics: [&mut dyn FnMut(); 2] = [
        &mut || drop(smol::block_on(in_call.call(request()))),
        &mut || drop(smol::block_on(in_future.call(request()))),
    ];
    for panics in panics {
        assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(
            told.short(),
            ["POST /a", "POST /a: panic: the request panicked"]
        );
    }

    let mut never = told.events().layer(Does(pending));
    drop(never.call(request()));
    assert_eq!(
        told.short()[1],
        "POST /a: cancelled: the request was dropped before its response"
    );
}

#[test]
fn a_server_tells_of_the_requests_that_it_answers() {
    let told = Told::new();
    let router = Router::new()
        .route("/a", get(|| async { "an answer" }))
        .layer(told.events());
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
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
    }
    server.abort();
    drop(runtime);
    assert_eq!(
        told.short(),
        [
            "GET /a",
            "GET /a: 200 ok",
            "GET /nothing",
            "GET /nothing: 404 error"
        ]
    );
}
