//! No wait outlasts its deadline: whatever the server does, however much is queued, wherever the caller runs.
//!
//! These tests use real time, because the promise is about real deadlines. `--nocapture` prints how long each took.

use crate::support::{BOUND, Failure, KEY, SESSION, child, is_child};
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::runtime::Runtime;
use tinkex_telemetry::{
    Batch, Config, Drain, Handle, HttpTransport, Receipt, Reporter, Reqwest, SendError, Severity,
    Thread, Tokio, Transport, Ureq,
};

/// The promised bound of every call here.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Allowance for a busy machine.
const SLACK: Duration = Duration::from_secs(2);
const FULL: usize = 1000;

/// How a server misbehaves.
#[derive(Clone, Copy, Debug)]
enum Server {
    Silent,
    Refusing,
    Failing,
}

const SERVERS: [Server; 3] = [Server::Silent, Server::Refusing, Server::Failing];

/// How much is queued.
#[derive(Clone, Copy, Debug)]
enum Queue {
    Empty,
    Few,
    Full,
}

const QUEUES: [Queue; 3] = [Queue::Empty, Queue::Few, Queue::Full];

/// The call under test.
#[derive(Clone, Copy, Debug)]
enum Call {
    Stop,
    Drain,
    Drop,
}

const CALLS: [Call; 3] = [Call::Stop, Call::Drain, Call::Drop];

/// A misbehaving server, which runs until this is dropped.
struct Endpoint {
    url: String,
    _collector: Option<Collector>,
    _refusing: Option<Refusing>,
}

/// A port that refuses connections and that no other process can be given: the client end of an open connection.
struct Refusing {
    address: SocketAddr,
    _ends: (TcpListener, TcpStream),
}

impl Refusing {
    fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self {
            address: stream.local_addr()?,
            _ends: (listener, stream),
        })
    }
}

impl Server {
    fn open(self) -> Endpoint {
        let collector = |reply| {
            let collector = Collector::start().expect("a collector");
            collector.always(reply);
            Endpoint {
                url: collector.url(),
                _collector: Some(collector),
                _refusing: None,
            }
        };
        match self {
            Self::Silent => collector(Reply::stall()),
            Self::Failing => collector(Reply::status(500)),
            Self::Refusing => {
                let refusing = Refusing::new().expect("a port");
                Endpoint {
                    url: format!("http://{}", refusing.address),
                    _collector: None,
                    _refusing: Some(refusing),
                }
            }
        }
    }
}

/// Sends the first batch to a working server, so that the queue is empty, and all others to the misbehaving one.
struct Detour<H> {
    first: Option<HttpTransport<H>>,
    then: HttpTransport<H>,
}

impl<H: HttpClient> Transport for Detour<H> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        match self.first.take() {
            Some(mut transport) => Transport::send(&mut transport, batch).await,
            None => Transport::send(&mut self.then, batch).await,
        }
    }
}

fn start<H: HttpClient, R: Runtime>(
    (working, endpoint): (&Collector, &Endpoint),
    client: impl Fn() -> H,
    runtime: R,
) -> Reporter<Detour<H>, R, R> {
    let transport = |url: &str| {
        let config = Config::new(url, KEY).expect("a config");
        HttpTransport::new(config, client())
    };
    Reporter::builder(SESSION)
        .transport(Detour {
            first: Some(transport(&working.url())),
            then: transport(&endpoint.url),
        })
        .runtime(runtime)
        .enabled(true)
        .max_queue_size(FULL)
        .drop_timeout(TIMEOUT)
        .flush_timeout(TIMEOUT)
        .start()
        .expect("it starts")
}

fn fill(handle: &Handle, queue: Queue) {
    let events = match queue {
        Queue::Empty => 0,
        Queue::Few => 5,
        Queue::Full => 2 * FULL,
    };
    let accepted = (0..events).filter(|_| handle.log("x", ())).count();
    assert_eq!(accepted, events.min(FULL));
}

/// How long a call took, and its result.
struct Measured {
    took: Duration,
    drain: Option<Drain>,
    handle: Handle,
}

impl Measured {
    /// Checks the time and the ledger after the call.
    fn check(&self, queue: Queue, call: Call) {
        assert!(self.took < TIMEOUT + SLACK, "{:?}", self.took);
        let stats = self.handle.stats();
        assert!(stats.is_balanced());
        match (call, queue) {
            (Call::Drain, Queue::Empty) => {
                assert!(self.drain.is_some_and(|drain| drain.all_delivered()));
            }
            (Call::Drain, _) => {
                assert_eq!(stats.delivered, 1);
                assert!(
                    self.drain
                        .is_some_and(|drain| drain.remaining == stats.queued)
                );
            }
            (Call::Stop | Call::Drop, _) => {
                assert_eq!((stats.delivered, stats.queued), (1, 0));
                assert_eq!(stats.dropped.shutdown, stats.accepted - 1);
                // What the deadline dropped is what remains, and is not counted as dropped as well.
                assert!(self.drain.is_none_or(
                    |drain| (drain.dropped, drain.remaining) == (0, stats.dropped.shutdown)
                ));
            }
        }
    }
}

/// Measures every combination, the servers in parallel: that can only make the calls slower.
fn table(title: &str, measure: impl Fn(Server, Queue, Call) -> Measured + Sync) {
    let mut lines = vec![format!("\n{title:<56}    stop   drain    drop  (ms)")];
    let rows = thread::scope(|scope| {
        let rows = SERVERS.map(|server| {
            let measure = &measure;
            scope.spawn(move || {
                QUEUES.map(|queue| {
                    let took = CALLS.map(|call| measure(server, queue, call).took.as_millis());
                    let case = format!("  {} server, {} queue", Name(server), Name(queue));
                    format!("{case:<56}{:>8}{:>8}{:>8}", took[0], took[1], took[2])
                })
            })
        });
        rows.map(|row| row.join().expect("no panic"))
    });
    lines.extend(rows.into_iter().flatten());
    println!("{}", lines.join("\n"));
}

struct Name<T>(T);

impl<T: fmt::Debug> fmt::Display for Name<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{:?}", self.0).to_lowercase())
    }
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn blocking_calls_return_by_their_deadline() {
    table("thread + ureq, blocking", |server, queue, call| {
        let (working, endpoint) = (Collector::start().expect("a collector"), server.open());
        let session = start((&working, &endpoint), Ureq::new, Thread);
        let drain = session.wait_until_drained_blocking(BOUND);
        assert!(drain.is_ok_and(|drain| drain.all_delivered()));
        fill(&session, queue);
        let handle = session.handle();
        let begin = Instant::now();
        let drain = match call {
            Call::Stop => session.stop_blocking(TIMEOUT).ok(),
            Call::Drain => session.wait_until_drained_blocking(TIMEOUT).ok(),
            Call::Drop => {
                drop(session);
                None
            }
        };
        let measured = Measured {
            took: begin.elapsed(),
            drain,
            handle,
        };
        measured.check(queue, call);
        measured
    });
}

/// The same, awaited. `after_drop` runs between a drop and the checks.
async fn in_executor<H: HttpClient, R: Runtime>(
    session: Reporter<Detour<H>, R, R>,
    (queue, call): (Queue, Call),
    after_drop: impl AsyncFn(&Handle),
) -> Measured {
    assert!(session.wait_until_drained(BOUND).await.all_delivered());
    fill(&session, queue);
    let handle = session.handle();
    let mut session = Some(session);
    let begin = Instant::now();
    let drain = match call {
        Call::Stop => Some(handle.stop(TIMEOUT).await),
        Call::Drain => Some(handle.wait_until_drained(TIMEOUT).await),
        Call::Drop => {
            session = None;
            None
        }
    };
    let measured = Measured {
        took: begin.elapsed(),
        drain,
        handle,
    };
    if session.is_none() {
        after_drop(&measured.handle).await;
    }
    measured.check(queue, call);
    measured
}

#[test]
fn async_calls_resolve_in_time_inside_an_executor_with_a_driver_on_its_own_thread() {
    let title = "thread + ureq, in tokio's current-thread runtime";
    table(title, |server, queue, call| {
        let (working, endpoint) = (Collector::start().expect("a collector"), server.open());
        current_thread().block_on(async {
            let session = start((&working, &endpoint), Ureq::new, Thread);
            in_executor(session, (queue, call), async |_| {}).await
        })
    });
}

#[test]
fn async_calls_resolve_in_time_with_a_driver_on_the_executor_and_a_drop_only_requests_the_stop() {
    let title = "tokio + reqwest, in tokio's current-thread runtime";
    table(title, |server, queue, call| {
        let (working, endpoint) = (Collector::start().expect("a collector"), server.open());
        current_thread().block_on(async {
            let client = Reqwest::new().expect("a client");
            let session = start((&working, &endpoint), || client.clone(), Tokio);
            in_executor(session, (queue, call), async |handle| {
                // The drop has requested the stop; the driver completes it in time.
                let begin = Instant::now();
                assert!(!handle.stop(BOUND).await.all_delivered());
                assert!(begin.elapsed() < TIMEOUT + SLACK);
            })
            .await
        })
    });
}

const URL: &str = "TINKEX_TEST_URL";

/// In the child: a session with a misbehaving server and a few events.
fn child_session() -> Reporter<HttpTransport<Ureq>, Thread, Thread> {
    let url = std::env::var(URL).expect("it is set");
    let session = crate::support::session(&url)
        .drop_timeout(TIMEOUT)
        .flush_timeout(TIMEOUT)
        .start()
        .expect("it starts");
    fill(&session, Queue::Few);
    session
}

#[test]
fn a_panic_hook_returns_in_time() {
    println!("\nthread + ureq, in a panic hook                               fatal    stop  (ms)");
    for server in SERVERS {
        let endpoint = server.open();
        let output = child("deadlines::child_has_a_hook")
            .env(URL, &endpoint.url)
            .output()
            .expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        let took = |what: &str| {
            let text = printed.lines().find_map(|line| line.strip_prefix(what));
            let millis = text.and_then(|text| text.parse().ok()).expect(&printed);
            let took = Duration::from_millis(millis);
            assert!(took < TIMEOUT + SLACK, "{what}{took:?}");
            took.as_millis()
        };
        let case = format!("  {} server, few queue", Name(server));
        println!("{case:<58}{:>8}{:>8}", took("fatal "), took("stop "));
    }
}

#[test]
fn child_has_a_hook() {
    if !is_child() {
        return;
    }
    let session = child_session();
    let handle = session.handle();
    std::panic::set_hook(Box::new(move |_| {
        let begin = Instant::now();
        let error = Failure("it panicked", None);
        let drain = handle.log_fatal_exception_blocking(&error, Severity::Critical);
        assert!(drain.is_ok_and(|drain| !drain.is_drained()));
        println!("\nfatal {}", begin.elapsed().as_millis());
        let begin = Instant::now();
        assert!(
            handle
                .stop_blocking(TIMEOUT)
                .is_ok_and(|drain| !drain.all_delivered())
        );
        println!("stop {}", begin.elapsed().as_millis());
    }));
    assert!(thread::spawn(|| panic!("seen by the hook")).join().is_err());
}

/// Panics in `send`, so that the hook runs on the driver's own thread.
struct Panicking;

impl Transport for Panicking {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        panic!("a test transport panics")
    }
}

#[test]
fn a_panic_hook_on_the_drivers_own_thread_does_not_block() {
    let output = child("deadlines::child_panics_in_its_transport")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn child_panics_in_its_transport() {
    if !is_child() {
        return;
    }
    let session = Reporter::builder(SESSION)
        .transport(Panicking)
        .runtime(Thread)
        .enabled(true)
        .retry_base_delay(Duration::ZERO)
        .start()
        .expect("it starts");
    let handle = session.handle();
    let (sender, receiver) = mpsc::channel();
    std::panic::set_hook(Box::new(move |_| {
        let error = Failure("it panicked", None);
        let fatal = handle.log_fatal_exception_blocking(&error, Severity::Critical);
        let drain = handle.wait_until_drained_blocking(BOUND);
        let _ = sender.send(fatal.is_err() && drain.is_err());
    }));
    session.flush();
    for _ in 0..4 {
        assert_eq!(receiver.recv_timeout(BOUND), Ok(true));
    }
}

#[test]
fn a_program_exits_in_time() {
    println!("\nthread + ureq, the guard is dropped at the end of a program      exit  (ms)");
    for server in SERVERS {
        let endpoint = server.open();
        let mut child = child("deadlines::child_ends")
            .env(URL, &endpoint.url)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut printed = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while line.trim() != "dropping" {
            line.clear();
            assert!(printed.read_line(&mut line).is_ok_and(|len| len > 0));
        }
        let begin = Instant::now();
        let status = child.wait().expect("it ends");
        let took = begin.elapsed();
        assert!(status.success());
        assert!(took < TIMEOUT + SLACK, "{took:?}");
        let _ = printed.read_to_string(&mut line);
        let case = format!("  {} server, few queue", Name(server));
        println!("{case:<58}{:>12}", took.as_millis());
    }
}

#[test]
fn child_ends() {
    if is_child() {
        let _session = child_session();
        println!("\ndropping");
    }
}
