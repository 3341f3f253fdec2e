//! The public collector: its builder, its queries, and its thread.

use alloc::{
    borrow::ToOwned,
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
    collections::HashMap,
    io,
    net::TcpListener,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use hyper_util::service::TowerToHyperService;
use tokio::{
    runtime::{self, Runtime},
    sync::oneshot,
};

use super::super::wire::check::Mode;
use super::super::wire::record::EventRecord;
use super::super::wire::violation::Violation;
use super::backend::Backend;
use super::connection;
use super::notice::Notice;
use super::record::SessionRecord;
use super::request::RequestRecord;
use super::script::Reply;
use super::seats::{Limits, Seats};
use super::state::{Observers, Rules, State};
#[cfg(feature = "cli")]
use super::tap::Tap;

/// Threads for the checks of long requests, which would hold up the others.
const CHECKERS: usize = 4;

/// How long `stop` waits for the collector's thread, which only an observer that blocks can delay.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A telemetry backend on loopback, in its own thread.
///
/// It keeps every event and every request's headers until it is dropped: it is made for tests, examples and
/// development. All methods can be called from any thread and none is async, so it serves programs on any runtime;
/// [`wait_for`](Self::wait_for) and its like block.
///
/// Dropping it calls [`stop`](Self::stop).
pub struct Collector {
    addr: SocketAddr,
    state: Arc<State>,
    worker: Mutex<Option<Worker>>,
    /// Until it serves.
    waiting: Mutex<Option<(TcpListener, Limits)>>,
}

impl Collector {
    /// Starts a strict collector on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If no port can be bound or no thread started.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Configures a collector before it starts.
    pub fn builder() -> CollectorBuilder {
        CollectorBuilder {
            port: 0,
            rules: Rules::default(),
            observers: Observers::default(),
            limits: Limits::default(),
            max_memory: None,
        }
    }

    /// Its address, even after it has stopped.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for clients: `http://127.0.0.1:PORT`, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Appends to the script: each request to the endpoint takes one reply from the front, in the order in which their
    /// headers arrive.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        // Collected first: the iterator is the caller's code, and must not run under the lock.
        let replies: Vec<_> = replies.into_iter().collect();
        self.state.ledger().append(replies);
    }

    /// Sets the reply to a request when the script is empty. Default: [`Reply::accept`].
    pub fn always(&self, reply: Reply) {
        self.state.ledger().set_always(reply);
    }

    /// A snapshot of this session, if any of its requests was kept: of its latest [run](SessionRecord::run).
    ///
    /// It shares its contents with the collector until the session's next request, which copies them (16 bytes and a
    /// map entry per event) if the snapshot is still alive.
    pub fn session(&self, id: &str) -> Option<Arc<SessionRecord>> {
        self.state.ledger().session(id).cloned()
    }

    /// Snapshots of all sessions, sorted by id, and each of their [runs](SessionRecord::run).
    pub fn sessions(&self) -> Vec<Arc<SessionRecord>> {
        self.state.ledger().sessions().cloned().collect()
    }

    /// A copy of the list of all requests to the endpoint, in the order in which they were read.
    ///
    /// A request is listed before its response is sent, and not at all if its connection broke in the middle of it.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.ledger().requests().iter().cloned().collect()
    }

    /// The violations of the wire format, at most one per request.
    pub fn violations(&self) -> Vec<Violation> {
        let ledger = self.state.ledger();
        ledger
            .requests()
            .iter()
            .filter_map(|request| request.violation().cloned())
            .collect()
    }

    /// The [requests](Self::requests) by their idempotency key: for each batch that was sent, its attempts, in the order
    /// of the first ones. Requests without a key are left out.
    ///
    /// A batch was retried as it should be if all its attempts have the same [events](RequestRecord::event_ids).
    pub fn attempts(&self) -> Vec<(String, Vec<RequestRecord>)> {
        let mut places = HashMap::new();
        let mut attempts: Vec<(String, Vec<RequestRecord>)> = Vec::new();
        for request in self.requests() {
            let Some(key) = request.idempotency_key() else {
                continue;
            };
            let at = *places.entry(key.to_owned()).or_insert(attempts.len());
            match attempts.get_mut(at) {
                Some((_, requests)) => requests.push(request),
                None => attempts.push((key.to_owned(), Vec::from([request]))),
            }
        }
        attempts
    }

    /// Forgets all sessions and requests, and the calls of the [`backend`](Self::backend); scripts stay. A session that
    /// goes on need not begin again.
    pub fn clear(&self) {
        self.state.clear();
    }

    /// The backend for the other calls of clients: sessions, sampling, training.
    pub fn backend(&self) -> &Backend {
        self.state.backend()
    }

    /// Blocks the thread until `count` distinct events of the session are kept; `false` if `timeout` passes first.
    pub fn wait_for(&self, session: &str, count: usize, timeout: Duration) -> bool {
        self.state.wait_until(timeout, |ledger| {
            ledger.session(session).map_or(0, |session| session.len()) >= count
        })
    }

    /// Blocks the thread until `predicate` is true of the session, which it sees after each request, in its latest run;
    /// `false` if `timeout` passes first. A session of which nothing was kept is not shown.
    ///
    /// ```
    /// # use tinkex_telemetry::collector::Collector;
    /// # use core::time::Duration;
    /// # let collector = Collector::start()?;
    /// # let timeout = Duration::ZERO;
    /// let ended = collector.wait_until("session-123", timeout, |session| session.has_ended());
    /// # assert!(!ended);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wait_until(
        &self,
        session: &str,
        timeout: Duration,
        mut predicate: impl FnMut(&SessionRecord) -> bool,
    ) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // The caller's code must not run under the lock.
            let (version, record) = {
                let ledger = self.state.ledger();
                (ledger.version(), ledger.session(session).cloned())
            };
            if record.is_some_and(|record| predicate(&record)) {
                return true;
            }
            let left =
                deadline.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
            if !self
                .state
                .wait_until(left, |ledger| ledger.version() != version)
            {
                return false;
            }
        }
    }

    /// Blocks the thread until the session has an event with this [name](EventRecord::name), and returns the first one;
    /// `None` if `timeout` passes first.
    pub fn wait_for_event(
        &self,
        session: &str,
        name: &str,
        timeout: Duration,
    ) -> Option<EventRecord> {
        let mut found = None;
        self.wait_until(session, timeout, |record| {
            let mut events = record.events().iter();
            found = events.find(|event| event.name() == name).cloned();
            found.is_some()
        });
        found
    }

    /// Blocks the thread until [`requests`](Self::requests) has `count` entries; `false` if `timeout` passes first.
    pub fn wait_for_requests(&self, count: usize, timeout: Duration) -> bool {
        self.state
            .wait_until(timeout, |ledger| ledger.requests().len() >= count)
    }

    /// Forgets the script, and the reply to all other requests.
    #[cfg(feature = "cli")]
    pub(crate) fn clear_script(&self) {
        self.state.ledger().clear_script();
    }

    /// Keeps a request's body as if it had been received, without an answer. Returns the violation that prevents it.
    #[cfg(feature = "cli")]
    pub(crate) fn restore(&self, body: &[u8]) -> Result<(), Violation> {
        self.state.restore(body)
    }

    /// Begins to serve. Until then connections wait.
    pub(crate) fn open(&self) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((listener, limits)) = waiting.take() {
            let worker = Worker::start(listener, self.addr, Arc::clone(&self.state), limits)?;
            let mut own = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
            *own = Some(worker);
        }
        Ok(())
    }

    /// Stops serving: closes the port and all connections; requests in progress get no response. The records stay
    /// available. Idempotent.
    ///
    /// Waits for the collector's thread, at most for the check of one request. If an observer blocks that thread for
    /// five seconds, or makes this call itself, `stop` returns and the thread ends later.
    pub fn stop(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        drop(waiting.take());
        drop(waiting);
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

/// Configures and starts a [`Collector`].
#[must_use]
pub struct CollectorBuilder {
    port: u16,
    rules: Rules,
    observers: Observers,
    limits: Limits,
    max_memory: Option<usize>,
}

impl CollectorBuilder {
    /// Also accepts what other clients write; see [`Mode::Lenient`]. Default: strict.
    pub fn lenient(mut self) -> Self {
        self.rules.mode = Mode::Lenient;
        self
    }

    /// Listens on this port. Default: 0, any free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Responds 401 to requests with another `x-api-key`. Default: any key is accepted.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.rules.api_key = Some(key.into());
        self
    }

    /// Responds 422 to requests with more events. Default: no limit.
    pub fn max_events(mut self, max: usize) -> Self {
        self.rules.max_events = Some(max);
        self
    }

    /// Accepts events after every `SESSION_END`, but no second one. Default: only after one that a fatal exception may
    /// have caused, unless [`lenient`](Self::lenient).
    pub fn events_after_end(mut self) -> Self {
        self.rules.events_after_end = true;
        self
    }

    /// Accepts new events with a lower index than earlier ones, as from a client that sends later what it could not
    /// send at first. Such a session need not begin with its `SESSION_START`. Default: refused, unless
    /// [`lenient`](Self::lenient).
    pub fn late_events(mut self) -> Self {
        self.rules.late_events = true;
        self
    }

    /// Calls `observer` with the session's id and each new event that is kept, in order. Default: no observer.
    ///
    /// The call is on the collector's thread, after the event is kept and before the response: while it blocks, no
    /// request is served. It may use the collector. If it panics, the request's connection is closed and the remaining
    /// events stay unobserved.
    pub fn on_event(mut self, observer: impl FnMut(&str, &EventRecord) + Send + 'static) -> Self {
        self.observers.on_event = Some(Mutex::new(Box::new(observer)));
        self
    }

    /// Calls `observer` with each [`Notice`]: refused requests with their reason, closed connections, forgotten sessions.
    /// Default: no observer.
    ///
    /// The call is on the collector's thread, or on one that checks a long request: while it blocks, requests wait.
    pub fn on_notice(mut self, observer: impl FnMut(&Notice) + Send + 'static) -> Self {
        self.observers.on_notice = Some(Mutex::new(Box::new(observer)));
        self
    }

    /// Bounds the memory of what is kept, in bytes, as estimated from the lengths of texts: half for sessions, a quarter
    /// each for requests and for the calls of the [`Backend`]; bodies that are being received may take as much again,
    /// and more get a 503. Sessions that were changed the longest ago are forgotten first, which is a
    /// [`Notice::Forgotten`]; the oldest requests and calls go without. Default: no bound.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// Limits the number of connections. When all are taken, a new one replaces the one that has waited the longest
    /// without a complete request, or gets no response if every one has a request in progress. Default: 4096.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = connections.max(1);
        self
    }

    /// Closes a connection on which the head of a request takes longer, from its first byte on. Default: 10 s.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head = timeout;
        self
    }

    /// Closes a connection without progress for this long: between requests, in a body, in the reading of a response. A
    /// body may take ten times as long in all. Scripted delays and stalls do not count. Default: 60 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle = timeout;
        self
    }

    /// Lets the program see and do what [`Tap`] says.
    #[cfg(feature = "cli")]
    pub(crate) fn tap(mut self, tap: Arc<dyn Tap>) -> Self {
        self.observers.tap = Some(tap);
        self
    }

    /// Starts the collector, which is listening when this returns. Can be called inside any async runtime.
    ///
    /// # Errors
    ///
    /// If the port is in use or no thread can be started.
    pub fn start(self) -> io::Result<Collector> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        let collector = self.on(listener)?;
        collector.open()?;
        Ok(collector)
    }

    /// A collector that does not serve yet; see [`open`](Collector::open).
    pub(crate) fn on(self, listener: TcpListener) -> io::Result<Collector> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let backend = Backend::named(&addr.port().to_string());
        let state = Arc::new(State::new(
            self.rules,
            backend,
            self.observers,
            self.max_memory,
        ));
        Ok(Collector {
            addr,
            state,
            worker: Mutex::new(None),
            waiting: Mutex::new(Some((listener, self.limits))),
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

/// The thread that serves requests, and the means to stop it.
struct Worker {
    stop: oneshot::Sender<()>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(
        listener: TcpListener,
        own: SocketAddr,
        state: Arc<State>,
        limits: Limits,
    ) -> io::Result<Self> {
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
                        let server = connection::Server {
                            own,
                            routes: TowerToHyperService::new(connection::routes(Arc::clone(
                                &state,
                            ))),
                            state,
                        };
                        serve(&runtime, listener, server, Seats::new(limits), stopped);
                        // A check on another thread may still run, and nothing waits for it.
                        runtime.shutdown_background();
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
        // An error means that the thread has already ended.
        let _ = self.stop.send(());
        if thread::current().id() == self.thread.thread().id() {
            return;
        }
        if self.ended.recv_timeout(STOP_TIMEOUT) == Err(mpsc::RecvTimeoutError::Disconnected) {
            // Its panic, if any, was already printed.
            let _ = self.thread.join();
        }
    }
}

/// Runs on the collector's thread: a runtime that is dropped inside another one panics.
fn prepare(listener: TcpListener) -> io::Result<(Runtime, tokio::net::TcpListener)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(CHECKERS)
        .build()?;
    let listener = {
        let _guard = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    Ok((runtime, listener))
}

/// Serves until `stopped`; requests in progress then end with the runtime.
fn serve(
    runtime: &Runtime,
    listener: tokio::net::TcpListener,
    server: connection::Server,
    seats: Arc<Seats>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        tokio::spawn(accept(listener, server, seats));
        let _ = stopped.await;
    });
}

async fn accept(listener: tokio::net::TcpListener, server: connection::Server, seats: Arc<Seats>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(seat) = seats.take() else {
                    let reason = "every connection has a request in progress".into();
                    server.state.notify(&Notice::Closed { reason });
                    continue;
                };
                // Otherwise a response can wait for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection::serve(stream, seat, server.clone()));
            }
            // Usually too many open files, which passes, but not in a tight loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
