//! The collector as its user holds it: how it is set up, what can be asked of it, its thread.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use std::{
    io,
    net::TcpListener,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::{
    runtime::{self, Runtime},
    sync::oneshot,
};

use super::super::wire::check::Mode;
use super::super::wire::violation::Violation;
use super::backend::Backend;
use super::connection;
use super::record::{EventRecord, RequestRecord, SessionRecord};
use super::script::Reply;
use super::state::{OnEvent, Rules, State};

/// How long stopping waits for the collector's thread; only an observer that blocks can hold it up.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A telemetry backend on loopback, in a thread of its own.
///
/// It keeps every event and every request's headers until it is dropped: it is made for tests,
/// examples and an afternoon's development. All methods can be called from any thread and none of
/// them is async, so it serves programs on any runtime; [`wait_for`](Self::wait_for) blocks.
///
/// Dropping it is [`stop`](Self::stop).
pub struct Collector {
    addr: SocketAddr,
    state: Arc<State>,
    worker: Mutex<Option<Worker>>,
}

impl Collector {
    /// Starts a strict collector on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When no port can be bound or no thread started.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// What can be set before a collector starts.
    pub fn builder() -> CollectorBuilder {
        CollectorBuilder {
            port: 0,
            rules: Rules::default(),
            on_event: None,
        }
    }

    /// Its address, also after it has stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL that a client is given: `http://127.0.0.1:PORT`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Appends to the script: each request to the endpoint takes one answer from its front, in the
    /// order in which their headers arrive.
    pub fn script(&self, answers: impl IntoIterator<Item = Reply>) {
        let answers: Vec<_> = answers.into_iter().collect();
        self.state.ledger().append(answers);
    }

    /// Sets the answer that holds whenever the script is empty, [`Reply::accept`] until then.
    pub fn always(&self, answer: Reply) {
        self.state.ledger().set_always(answer);
    }

    /// What is known of this session now, if a request of it was kept.
    ///
    /// A snapshot: it shares its contents with the collector until the next request of the session,
    /// which copies them (16 bytes and an entry in a map per event) if the snapshot still lives.
    pub fn session(&self, id: &str) -> Option<Arc<SessionRecord>> {
        self.state.ledger().session(id).cloned()
    }

    /// Snapshots of all sessions, in the order of their ids.
    pub fn sessions(&self) -> Vec<Arc<SessionRecord>> {
        self.state.ledger().sessions().cloned().collect()
    }

    /// A copy of the list of all requests to the endpoint, in the order in which they were read.
    ///
    /// A request is listed before it is answered, and not at all when its connection broke off in
    /// the middle of it.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.ledger().requests().to_vec()
    }

    /// Where requests left the wire, one for each request that did.
    pub fn violations(&self) -> Vec<Violation> {
        let ledger = self.state.ledger();
        ledger
            .requests()
            .iter()
            .filter_map(|request| request.violation().cloned())
            .collect()
    }

    /// Who answers the calls of clients: sessions, sampling, training.
    pub fn backend(&self) -> &Backend {
        self.state.backend()
    }

    /// Waits until `count` distinct events of the session are kept; `false` when `timeout` comes
    /// first. Blocks the thread.
    pub fn wait_for(&self, session: &str, count: usize, timeout: Duration) -> bool {
        self.state.wait_until(timeout, |ledger| {
            ledger.session(session).map_or(0, |session| session.len()) >= count
        })
    }

    /// Waits until [`requests`](Self::requests) has `count` of them; `false` when `timeout` comes
    /// first. Blocks the thread.
    pub fn wait_for_requests(&self, count: usize, timeout: Duration) -> bool {
        self.state
            .wait_until(timeout, |ledger| ledger.requests().len() >= count)
    }

    /// Stops serving: the port and all connections are closed, requests under way stay unanswered.
    /// What was kept can still be looked at. Idempotent.
    ///
    /// Waits for the collector's thread, which takes as long as the check of one request at most.
    /// If an observer holds it up for five seconds, or is the one who calls, the thread is left to
    /// end by itself.
    pub fn stop(&self) {
        let worker = self
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(worker) = worker {
            worker.stop();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// Sets up a [`Collector`].
#[must_use]
pub struct CollectorBuilder {
    port: u16,
    rules: Rules,
    on_event: Option<OnEvent>,
}

impl CollectorBuilder {
    /// Takes what other clients write, too; see [`Mode::Lenient`]. Default: strict.
    pub fn lenient(mut self) -> Self {
        self.rules.mode = Mode::Lenient;
        self
    }

    /// Listens on this port. Default: 0, any that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Answers 401 to requests whose `x-api-key` is another. Default: any key will do.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.rules.api_key = Some(key.into());
        self
    }

    /// Answers 422 to requests with more events. Default: no limit.
    pub fn max_events(mut self, max: usize) -> Self {
        self.rules.max_events = Some(max);
        self
    }

    /// Takes events after a session's `SESSION_END`, as of a program that survived a fatal exception,
    /// but no second `SESSION_END`. Default: refused, unless [`lenient`](Self::lenient).
    pub fn events_after_end(mut self) -> Self {
        self.rules.events_after_end = true;
        self
    }

    /// Takes new events whose index lies below one that came before, as of a client that sends
    /// later what it could not send at first. Such a session need not begin with its `SESSION_START`.
    /// Default: refused, unless [`lenient`](Self::lenient).
    pub fn late_events(mut self) -> Self {
        self.rules.late_events = true;
        self
    }

    /// Calls `observer` with the session's id and each new event that is kept, in their order.
    /// Default: nobody is called.
    ///
    /// It is called on the collector's thread, after the event is kept and before the request is
    /// answered: while it blocks, nobody is served. It may look at the collector. If it panics, the
    /// request's connection is closed and the rest of its events stay unobserved.
    pub fn on_event(mut self, observer: impl FnMut(&str, &EventRecord) + Send + 'static) -> Self {
        self.on_event = Some(Box::new(observer));
        self
    }

    /// Starts the collector; it listens when this returns. Can be called inside any async runtime.
    ///
    /// # Errors
    ///
    /// When the port is taken or no thread can be started.
    pub fn start(self) -> io::Result<Collector> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let backend = Backend::named(&addr.port().to_string());
        let state = Arc::new(State::new(self.rules, backend, self.on_event));
        let worker = Worker::start(listener, Arc::clone(&state))?;
        Ok(Collector {
            addr,
            state,
            worker: Mutex::new(Some(worker)),
        })
    }
}

impl fmt::Debug for CollectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorBuilder")
            .field("port", &self.port)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// The thread that serves, and how to end it.
struct Worker {
    stop: oneshot::Sender<()>,
    /// Disconnected when the thread is through.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(listener: TcpListener, state: Arc<State>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::sync_channel(1);
        let (alive, ended) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("tinkex-collector".into())
            .spawn(move || {
                let _alive: SyncSender<()> = alive;
                match prepare(listener) {
                    Ok((runtime, listener)) => {
                        let _ = ready.send(Ok(()));
                        serve(&runtime, listener, state, stopped);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let died = || io::Error::other("the collector's thread died");
        started.recv().map_err(|_| died())??;
        Ok(Self {
            stop,
            ended,
            thread,
        })
    }

    fn stop(self) {
        // An error means that the thread is through already.
        let _ = self.stop.send(());
        if thread::current().id() == self.thread.thread().id() {
            return;
        }
        if self.ended.recv_timeout(STOP_TIMEOUT) == Err(mpsc::RecvTimeoutError::Disconnected) {
            // Its panic, if any, was printed and is nobody's business here.
            let _ = self.thread.join();
        }
    }
}

/// On the thread itself: a runtime that is dropped inside another one panics.
fn prepare(listener: TcpListener) -> io::Result<(Runtime, tokio::net::TcpListener)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    Ok((runtime, listener))
}

/// Serves until `stopped`; what is under way then goes down with the runtime.
fn serve(
    runtime: &Runtime,
    listener: tokio::net::TcpListener,
    state: Arc<State>,
    stopped: oneshot::Receiver<()>,
) {
    let routes = TowerToHyperService::new(connection::routes(state));
    runtime.block_on(async {
        tokio::spawn(accept(listener, routes));
        let _ = stopped.await;
    });
}

async fn accept(listener: tokio::net::TcpListener, routes: TowerToHyperService<Router>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it an answer can wait for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection::serve(stream, routes.clone()));
            }
            // Mostly too many open files, which passes, but not by trying in a tight loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
