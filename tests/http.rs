//! The wire over HTTP: every client against the collector, and against servers that misbehave.
#![cfg(all(
    feature = "collector",
    feature = "http",
    feature = "reqwest",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

extern crate alloc;

use alloc::sync::Arc;
use bytes::Bytes;
use core::any::Any;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use http::{Request, Response};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::collector::{Collector, Reply, ReplyKind};
use tinkex_telemetry::http::{HttpClient, HttpError};
use tinkex_telemetry::{
    Config, Drain, Handle, HttpTransport, Options, Reporter, Reqwest, Thread, Tokio, Ureq,
};

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(20);
const KEY: &str = "sk-sentinel-0123456789";
const SESSION: &str = "s";

/// A running session, whatever it runs on.
struct Session {
    handle: Handle,
    reports: Arc<Mutex<Vec<String>>>,
    shown: String,
    /// The reporter first, then its runtime.
    _parts: (Box<dyn Any>, Option<tokio::runtime::Runtime>),
}

impl Session {
    fn log(&self, events: usize) {
        for n in 0..events {
            assert!(self.handle.log("x", tinkex_telemetry::fields! { n: n }));
        }
    }

    fn drain(&self) -> Drain {
        self.handle
            .wait_until_drained_blocking(BOUND)
            .expect("no executor here")
    }
}

type Start = fn(&str, Options) -> Session;

const CLIENTS: [(&str, Start); 3] = [
    ("ureq on a thread", ureq_on_thread),
    ("ureq on tokio", ureq_on_tokio),
    ("reqwest on tokio", reqwest_on_tokio),
];

fn config(url: &str) -> Config {
    Config::new(url, KEY)
        .and_then(|config| config.header("cf-access-client-id", "an-id"))
        .expect("a valid config")
}

macro_rules! session {
    ($url:expr, $options:expr, $client:expr, $runtime:expr, $tokio:expr) => {{
        let reports = Arc::new(Mutex::new(Vec::new()));
        let reports_sink = Arc::clone(&reports);
        let transport = HttpTransport::new(config($url), $client);
        let mut shown = format!("{transport:?}");
        let builder = Reporter::builder(SESSION)
            .options($options)
            .enabled(true)
            .transport(transport)
            .runtime($runtime)
            .on_diagnostic(move |diagnostic| {
                reports_sink
                    .lock()
                    .expect("no panic")
                    .push(format!("{diagnostic} {diagnostic:?}"));
            });
        shown += &format!("{builder:?}");
        let reporter = builder.start().expect("it starts");
        shown += &format!("{reporter:?}");
        Session {
            handle: reporter.handle(),
            reports,
            shown,
            _parts: (Box::new(reporter), $tokio),
        }
    }};
}

fn ureq_on_thread(url: &str, options: Options) -> Session {
    session!(url, options, Ureq::new(), Thread, None)
}

fn ureq_on_tokio(url: &str, options: Options) -> Session {
    let tokio = runtime();
    session!(
        url,
        options,
        Ureq::new(),
        Tokio::on(tokio.handle().clone()),
        Some(tokio)
    )
}

fn reqwest_on_tokio(url: &str, options: Options) -> Session {
    let tokio = runtime();
    let client = Reqwest::on(tokio.handle().clone()).expect("a client");
    session!(
        url,
        options,
        client,
        Tokio::on(tokio.handle().clone()),
        Some(tokio)
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// No flush interval, and next to no backoff.
fn options() -> Options {
    Options {
        flush_interval: Duration::ZERO,
        retry_base_delay: Duration::from_millis(1),
        ..Default::default()
    }
}

/// Runs a test with each client, each against its own collector.
fn with_each_client(options: &Options, test: impl Fn(&Collector, &Session)) {
    for (name, start) in CLIENTS {
        println!("{name}");
        let collector = Collector::start().expect("a collector");
        let session = start(&collector.url(), options.clone());
        test(&collector, &session);
        assert_eq!(collector.violations(), []);
    }
}

fn keys(collector: &Collector) -> Vec<String> {
    let requests = collector.requests();
    let keys = requests.iter().map(|request| request.idempotency_key());
    keys.map(|key| key.expect("it has one").to_owned())
        .collect()
}

#[test]
fn a_request_has_the_headers_of_the_wire_format() {
    with_each_client(&options(), |collector, session| {
        session.log(3);
        let drain = session.drain();
        assert!(drain.all_delivered());
        assert_eq!(drain.delivered, 4);
        assert_eq!(collector.session(SESSION).map(|kept| kept.len()), Some(4));
        let request = &collector.requests()[0];
        let header = |name| {
            let mut values = request.headers().get_all(name).iter();
            let value = values.next().and_then(|value| value.to_str().ok());
            assert!(values.next().is_none(), "{name} comes once");
            value
        };
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("accept"), Some("application/json"));
        assert_eq!(header("x-api-key"), Some(KEY));
        let agent = concat!("tinkex-telemetry/", env!("CARGO_PKG_VERSION"));
        assert_eq!(header("user-agent"), Some(agent));
        assert_eq!(header("cf-access-client-id"), Some("an-id"));
    });
}

#[test]
fn retries_keep_the_idempotency_key_and_the_next_batch_gets_a_new_one() {
    with_each_client(&options(), |collector, session| {
        collector.script([500, 429, 408].map(Reply::status));
        assert!(session.drain().all_delivered());
        session.log(1);
        assert!(session.drain().all_delivered());
        let keys = keys(collector);
        assert_eq!(keys.len(), 5);
        assert!(keys[..4].iter().all(|key| *key == keys[0]));
        assert_ne!(keys[4], keys[0]);
    });
}

#[test]
fn a_retry_after_is_honoured_up_to_the_cap_and_garbage_is_ignored() {
    // Real time, because of the socket; the cap keeps it short.
    let cap = Duration::from_millis(100);
    let mut options = options();
    options.retry_max_delay = cap;
    with_each_client(&options, |collector, session| {
        collector.script([
            Reply::status(503).retry_after("3600"),
            Reply::status(429).retry_after("Thu, 31 Dec 2099 23:59:59 GMT"),
            Reply::status(503).retry_after("soon"),
        ]);
        assert!(session.drain().all_delivered());
        let requests = collector.requests();
        let gap = |n: usize| requests[n + 1].arrived() - requests[n].arrived();
        assert_eq!(requests.len(), 4);
        assert!(gap(0) >= cap && gap(1) >= cap, "{:?} {:?}", gap(0), gap(1));
    });
}

#[test]
fn a_batch_that_is_too_large_is_split_down_to_single_events() {
    with_each_client(&options(), |collector, session| {
        assert!(session.drain().all_delivered());
        collector.script([413, 413].map(Reply::status));
        session.log(4);
        assert!(session.drain().all_delivered());
        assert_eq!(collector.session(SESSION).map(|kept| kept.len()), Some(5));
        let keys = keys(collector);
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());

        collector.script([Reply::status(413)]);
        session.log(1);
        assert_eq!(session.drain().dropped, 1);
        assert_eq!(session.handle.stats().dropped.too_large, 1);
    });
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Collector::start().expect("a collector");
    with_each_client(&options(), |collector, session| {
        let to = format!("{}/api/v1/telemetry", elsewhere.url());
        let redirects = [301, 302, 303, 307, 308];
        collector.script(redirects.map(|status| Reply::status(status).header("location", &to)));
        for _ in redirects {
            session.log(1);
            assert!(session.drain().dropped > 0);
        }
        assert_eq!(collector.requests().len(), redirects.len());
        assert_eq!(session.handle.stats().dropped.rejected, 6);
    });
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_connection_that_breaks_anywhere_costs_an_attempt() {
    with_each_client(&options(), |collector, session| {
        for broken in [
            Reply::close_before_body(),
            Reply::close_after_body(),
            Reply::garbage(),
            Reply::truncated(),
        ] {
            collector.script([broken]);
            session.log(2);
            assert!(session.drain().all_delivered());
        }
        let kept = collector.session(SESSION).expect("it was kept");
        assert_eq!((kept.len(), kept.duplicates()), (9, 0));
        let requests = collector.requests();
        let broken = requests.iter().filter(|request| !request.is_kept());
        // A truncated 200 is a 200.
        assert_eq!(broken.count(), 3);
    });
}

#[test]
fn a_lost_response_causes_duplicates_that_the_backend_can_recognize() {
    with_each_client(&options(), |collector, session| {
        collector.script([Reply::lost()]);
        session.log(3);
        assert!(session.drain().all_delivered());
        let kept = collector.session(SESSION).expect("it was kept");
        assert_eq!((kept.len(), kept.duplicates()), (4, 4));
        let keys = keys(collector);
        assert_eq!(keys[0], keys[1]);
    });
}

#[test]
fn a_stalled_server_costs_an_attempt_and_does_not_delay_the_next() {
    let mut options = options();
    options.http_timeout = Duration::from_millis(100);
    with_each_client(&options, |collector, session| {
        collector.script([Reply::stall(), Reply::stall()]);
        session.log(1);
        // ureq itself would give up after 30 s, beyond the bound of this wait.
        assert!(session.drain().all_delivered());
        let responses: Vec<_> = collector.requests().iter().map(|r| r.reply()).collect();
        let expected = [ReplyKind::Stall, ReplyKind::Stall, ReplyKind::Status(200)];
        assert_eq!(responses, expected);
    });
}

/// In real time, since it is about a response that comes late.
#[test]
fn a_late_response_is_not_taken_for_that_of_the_next_request() {
    // The application's own agent, whose calls are not ended when they are given up.
    let mut client = Ureq::with_agent(ureq::Agent::new_with_defaults());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for (millis, status) in [(200, "204 Late"), (600, "202 In time")] {
            let (stream, _) = listener.accept().expect("a connection");
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(millis));
                respond(&stream, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())
            });
        }
    });
    let request = || {
        let request = Request::post(url.as_str()).body(Bytes::from_static(b"{}"));
        request.expect("a request")
    };
    runtime().block_on(async {
        let given_up = Duration::from_millis(50);
        let first = tokio::time::timeout(given_up, client.send(request())).await;
        assert!(first.is_err(), "{first:?}");
        let second = client.send(request()).await.expect("a response");
        assert_eq!(second.status(), 202);
    });
}

#[test]
fn an_unreachable_server_is_retried_and_named_as_the_reason() {
    for (name, start) in CLIENTS {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let url = format!("http://{}", free.expect("a port"));
        let session = start(&url, options());
        assert_eq!(session.drain().dropped, 1);
        assert_eq!(session.handle.stats().dropped.retries_exhausted, 1);
        let reports = session.reports.lock().expect("no panic").concat();
        assert!(
            reports.to_lowercase().contains("refused"),
            "{name}: {reports}"
        );
    }
}

#[test]
fn the_key_is_never_shown_even_if_the_server_echoes_it() {
    with_each_client(&options(), |collector, session| {
        let echo = format!("you sent {KEY}, an-id");
        let refuse = |status| Reply::status(status).body(echo.clone());
        collector.script([401, 413].map(refuse));
        collector.always(refuse(500));
        for _ in 0..3 {
            session.log(1);
            assert!(session.drain().dropped > 0);
        }
        let reports = session.reports.lock().expect("no panic").join("\n");
        assert!(reports.contains("you sent [redacted], an-id"), "{reports}");
        let all = format!(
            "{reports}{}{:?}{:?}",
            session.shown,
            session.handle,
            session.handle.stats()
        );
        assert!(!all.contains("sk-sent"), "{all}");
    });
}

#[test]
fn a_missing_key_is_a_config_error() {
    let refused = Config::new("http://127.0.0.1:1", " ").expect_err("no key");
    assert_eq!(refused.setting(), "api_key");
    assert_eq!(refused.to_string(), "api_key is empty");
}

/// Accepts connections and sends `response` to each request; counts the connections.
fn serve(response: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let response = response.clone();
            thread::spawn(move || while respond(&stream, &response).is_some() {});
        }
    });
    (url, connections)
}

fn respond(mut stream: &TcpStream, response: &[u8]) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = head.split("content-length: ").nth(1)?;
    let length: usize = length.split("\r\n").next()?.parse().ok()?;
    stream.read_exact(&mut vec![0; length]).ok()?;
    stream.write_all(response).ok()
}

#[test]
fn a_connection_is_reused_for_the_next_request() {
    for response in [
        "HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"status\":\"accepted\"}\n",
        "HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        for (name, start) in CLIENTS {
            let (url, connections) = serve(response.into());
            let session = start(&url, options());
            let mut requests = 0;
            // hyper's pool takes a connection back shortly after the response is read, so the next request may miss it,
            // but not every request.
            while requests == 0 || connections.load(Ordering::SeqCst) == requests {
                assert!(requests < 50, "{name}: {response}");
                session.log(1);
                assert!(session.drain().all_delivered());
                requests += 1;
            }
            assert!(
                requests == 2 || name.starts_with("reqwest"),
                "{name}: {response}"
            );
        }
    }
}

#[test]
fn an_endless_response_is_not_read_to_the_end() {
    let mut response = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000000\r\n\r\n".to_vec();
    response.extend([b'x'; 200_000]);
    for (name, start) in CLIENTS {
        let (url, _) = serve(response.clone());
        let session = start(&url, options());
        for _ in 0..2 {
            session.log(1);
            assert!(session.drain().all_delivered(), "{name}");
        }
    }
}

#[test]
fn a_closure_is_a_client() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let client = move |request: Request<Bytes>| {
        let url = request.uri().to_string();
        // The body's address shows whether its buffer is reused.
        let address = request.body().as_ptr() as usize;
        sink.lock().expect("no panic").push((url, address));
        async { Ok::<_, HttpError>(Response::new(Bytes::new())) }
    };
    let session = session!("http://host/base/", options(), client, Thread, None);
    for _ in 0..3 {
        assert!(session.drain().is_drained());
        session.log(1);
    }
    assert!(session.drain().all_delivered());
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), 4);
    // The first batch was smaller.
    assert!(seen[2..].iter().all(|call| *call == seen[1]), "{seen:?}");
    assert_eq!(seen[0].0, "http://host/base/api/v1/telemetry");
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn post(collector: &Collector) -> Request<Bytes> {
    let request = Request::post(format!("{}/api/v1/telemetry", collector.url()));
    request.body(Bytes::from_static(b"{}")).expect("a request")
}

#[test]
fn calls_that_were_given_up_end_and_the_next_one_is_sent() {
    let collector = Collector::builder().lenient().start().expect("a collector");
    collector.always(Reply::stall());
    let mut client = Ureq::new();
    for n in 1..=20 {
        let mut sending = Box::pin(client.send(post(&collector)));
        runtime().block_on(poll_fn(|context| {
            assert!(sending.as_mut().poll(context).is_pending());
            context.waker().wake_by_ref();
            match collector.requests().len() {
                sent if sent == n => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        drop(sending);
    }
    collector.always(Reply::accept());
    let response = runtime().block_on(client.send(post(&collector)));
    // The body is not a batch: even a lenient collector refuses it.
    assert!(response.expect("one").status().is_client_error());
    let end = Instant::now() + BOUND;
    while !format!("{client:?}").contains("threads: 0") {
        assert!(Instant::now() < end, "{client:?}");
        thread::yield_now();
    }
}

#[test]
fn hanging_calls_of_an_agent_that_is_not_ours_are_bounded_in_number_and_time_out() {
    let collector = Collector::builder().lenient().start().expect("a collector");
    collector.always(Reply::stall());
    let config = ureq::Agent::config_builder().timeout_recv_response(Some(BOUND / 40));
    let mut client = Ureq::with_agent(config.build().new_agent());
    for n in 1..=8 {
        assert!(poll_once(client.send(post(&collector))).is_pending());
        assert!(
            format!("{client:?}").contains(&format!("threads: {n}")),
            "{client:?}"
        );
    }
    let refused = poll_once(client.send(post(&collector))).map(Result::unwrap_err);
    assert_eq!(
        refused,
        Poll::Ready(HttpError::new("too many stalled requests"))
    );
    collector.always(Reply::accept());
    // The threads end in real time, after the agent's timeout.
    let end = Instant::now() + BOUND;
    while format!("{client:?}").contains("threads: 8") {
        assert!(Instant::now() < end, "{client:?}");
        thread::yield_now();
    }
    let response = runtime().block_on(client.send(post(&collector)));
    assert!(response.expect("one").status().is_client_error());
}

#[test]
fn reqwest_outside_tokio_is_an_error_and_not_a_panic() {
    let collector = Collector::start().expect("a collector");
    let mut client = Reqwest::new().expect("a client");
    let response = poll_once(client.send(post(&collector)));
    let Poll::Ready(Err(error)) = response else {
        panic!("{response:?}");
    };
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
}

#[test]
fn https_works_without_a_process_wide_crypto_provider() {
    // The server does not speak TLS; the test only checks that nothing panics about the provider.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || listener.incoming().for_each(drop));
    for (name, start) in CLIENTS {
        let mut options = options();
        options.max_retries = 0;
        let session = start(&url, options);
        assert_eq!(session.drain().dropped, 1, "{name}");
        let reports = session.reports.lock().expect("no panic").concat();
        assert!(!reports.contains("panicked"), "{name}: {reports}");
    }
}

#[test]
fn a_future_dropped_midway_leaves_a_working_client() {
    runtime().block_on(async {
        survives_a_drop(Reqwest::new().expect("a client")).await;
        survives_a_drop(Ureq::new()).await;
    });
}

async fn survives_a_drop(mut client: impl HttpClient) {
    let collector = Collector::builder().lenient().start().expect("a collector");
    collector.script([Reply::stall()]);
    let mut sending = Box::pin(client.send(post(&collector)));
    poll_fn(|context| {
        assert!(sending.as_mut().poll(context).is_pending());
        if collector.requests().is_empty() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
    drop(sending);
    let response = client.send(post(&collector)).await.expect("a response");
    assert!(response.status().is_client_error());
}
