//! A simulated network and backend: time advances automatically, and tests script the faults.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkex_telemetry::Config;
use tinkex_telemetry::bus::Bus;
use tinkex_telemetry::client::{Pending, ServiceBuilder, ServiceClient};
use tinkex_telemetry::collector::Backend;
use tinkex_telemetry::diagnostic::{Diagnostic, DiagnosticKind};
use tinkex_telemetry::http::{HttpClient, HttpError};
use tinkex_telemetry::runtime::Clock as _;
use tinkex_telemetry::session::{Entropy, Uuid};
use tinkex_telemetry::sim::{SimClock, SimExecutor, SimSpawner};

/// The latency of a request, and of its response.
pub(crate) const PING: Duration = Duration::from_millis(5);

/// The backend, the clock and the current faults. Clones share their state.
#[derive(Clone)]
pub(crate) struct SimHarness {
    pub(crate) backend: Backend,
    pub(crate) clock: SimClock,
    start: tinkex_telemetry::time::Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    down_until: Duration,
    is_telemetry_stalled: bool,
    /// How long the backend holds back its response to a poll.
    held: Duration,
    panics_in: &'static str,
    /// The name of the calls that must not be repeated.
    refuses: &'static str,
    /// The rate of failing exchanges, per mille, and the state of the random generator.
    storm: u64,
    dice: u64,
    /// The exchanges in flight, and their maximum so far.
    in_flight: [usize; 2],
    /// What was sent to the backend, and in which second.
    arrived: Vec<(u64, String)>,
    events: Vec<Value>,
    diagnostics: Vec<(u64, DiagnosticKind, String)>,
}

impl SimHarness {
    fn new(clock: SimClock) -> Self {
        Self {
            backend: Backend::new(),
            start: clock.now(),
            clock,
            state: Arc::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// The simulated time since the start.
    pub(crate) fn passed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let end = self.clock.now().checked_add(duration).unwrap();
        self.clock.sleep_until(end).await;
    }

    /// Refuses all connections from now on, for `duration`.
    pub(crate) fn outage(&self, duration: Duration) {
        let end = self.passed() + duration;
        self.with(|state| state.down_until = end);
    }

    /// `per_mille` of the exchanges fail from now on.
    pub(crate) fn storm(&self, per_mille: u64, seed: u64) {
        self.with(|state| (state.storm, state.dice) = (per_mille, seed | 1));
    }

    /// Makes the HTTP client panic in calls of this name.
    pub(crate) fn panic_in(&self, name: &'static str) {
        self.with(|state| state.panics_in = name);
    }

    /// Makes the HTTP client fail in calls of this name, with an error that is not retryable.
    pub(crate) fn refuse(&self, name: &'static str) {
        self.with(|state| state.refuses = name);
    }

    /// Everything sent so far, for comparing two runs.
    pub(crate) fn log(&self) -> String {
        self.with(|state| format!("{:?} {:?}", state.arrived, state.events))
    }

    /// Makes the backend hold back each response to a poll for this long.
    pub(crate) fn hold_polls(&self, duration: Duration) {
        self.with(|state| state.held = duration);
    }

    pub(crate) fn stall_telemetry(&self) {
        self.with(|state| state.is_telemetry_stalled = true);
    }

    /// The seconds in which calls of this name were attempted.
    pub(crate) fn attempts(&self, name: &str) -> Vec<u64> {
        self.with(|state| {
            let arrived = state.arrived.iter().filter(|(_, call)| call == name);
            arrived.map(|(at, _)| *at).collect()
        })
    }

    /// The telemetry received so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.with(|state| state.events.clone())
    }

    /// The diagnostics of one kind, each with its second.
    pub(crate) fn diagnostics(&self, kind: DiagnosticKind) -> Vec<(u64, String)> {
        self.with(|state| {
            let reported = state
                .diagnostics
                .iter()
                .filter(|diagnostic| diagnostic.1 == kind);
            reported
                .map(|(at, _, reason)| (*at, reason.clone()))
                .collect()
        })
    }

    /// The maximum number of concurrent exchanges, without heartbeats.
    pub(crate) fn max_in_flight(&self) -> usize {
        self.with(|state| state.in_flight[1])
    }

    fn note_diagnostic(&self, diagnostic: &Diagnostic<'_>) {
        let at = self.passed().as_secs();
        let reason = diagnostic.reason.to_owned();
        self.with(|state| state.diagnostics.push((at, diagnostic.kind, reason)));
    }

    fn occurs(&self) -> Option<u64> {
        self.with(|state| {
            state.dice ^= state.dice << 13;
            state.dice ^= state.dice >> 7;
            state.dice ^= state.dice << 17;
            (state.dice % 1_000 < state.storm).then_some(state.dice >> 32)
        })
    }

    async fn exchange(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let name = name.to_owned();
        self.sleep(PING).await;
        if name == "telemetry" {
            if self.with(|state| state.is_telemetry_stalled) {
                return pending().await;
            }
            let batch: Value = serde_json::from_slice(request.body()).map_err(HttpError::new)?;
            let events = batch["events"].as_array().cloned().unwrap_or_default();
            self.with(|state| state.events.extend(events));
            return Ok(Response::new(Bytes::from_static(b"{}")));
        }
        let at = self.passed().as_secs();
        let _in_flight = (name != "session_heartbeat").then(|| InFlight::begin(&self));
        self.with(|state| state.arrived.push((at, name)));
        let is_last = |state: &State, name| state.arrived.last().map(|last| &*last.1) == Some(name);
        if self.with(|state| is_last(state, state.refuses)) {
            return Err(HttpError::new("a setting cannot work").not_retryable());
        }
        if self.with(|state| is_last(state, state.panics_in)) {
            // Unwinds like a panic, but without the message of the panic hook.
            std::panic::resume_unwind(Box::new("simulated"));
        }
        if self.passed() < self.with(|state| state.down_until) {
            return Err(HttpError::new("connection refused"));
        }
        match self.occurs().map(|dice| dice % 4) {
            Some(0) => return Err(HttpError::new("connection refused")),
            Some(1) => {
                // The backend receives the request, and the response gets lost.
                let _ = self.backend.reply(&request);
                return Err(HttpError::new("connection reset"));
            }
            Some(2) => return pending().await,
            Some(_) => {
                let mut unable = Response::new(Bytes::new());
                *unable.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                return Ok(unable);
            }
            None => {}
        }
        let is_poll = self.with(|state| is_last(state, "retrieve_future"));
        let response = self.backend.reply(&request).response();
        if is_poll {
            self.sleep(self.with(|state| state.held)).await;
        }
        self.sleep(PING).await;
        match response {
            Some(response) => Ok(response),
            None => pending().await,
        }
    }

    fn http(&self) -> impl HttpClient + Clone + use<> {
        let sim = self.clone();
        move |request| sim.clone().exchange(request)
    }

    /// Connects a service to this backend.
    pub(crate) fn connect(&self, spawner: &SimSpawner) -> Pending<ServiceClient> {
        self.connect_with(spawner, |builder| builder)
    }

    pub(crate) fn connect_with(
        &self,
        spawner: &SimSpawner,
        adjust: impl FnOnce(ServiceBuilder<(), ()>) -> ServiceBuilder<(), ()>,
    ) -> Pending<ServiceClient> {
        let config = Config::new("http://simulated.invalid", "tml-key").unwrap();
        let sim = self.clone();
        let builder = ServiceClient::builder(config).entropy(Entropy::new([1; 32]));
        adjust(builder)
            .http(self.http())
            .runtime(spawner.clone())
            .telemetry(|telemetry| {
                telemetry
                    .enabled(true)
                    .bus(Bus::new())
                    .entropy(Entropy::new([2; 32]))
                    .process_uuid(Some(Uuid::nil()))
                    .on_diagnostic(move |diagnostic| sim.note_diagnostic(diagnostic))
            })
            .connect()
    }
}

/// An exchange in flight, until it ends or is dropped.
struct InFlight(SimHarness);

impl InFlight {
    fn begin(sim: &SimHarness) -> Self {
        sim.with(|state| {
            state.in_flight[0] += 1;
            state.in_flight[1] = state.in_flight[1].max(state.in_flight[0]);
        });
        Self(sim.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.with(|state| state.in_flight[0] -= 1);
    }
}

/// Runs a test in the simulation until it ends.
pub(crate) fn run_simulated<F: Future<Output = ()> + 'static>(
    seed: u64,
    test: impl FnOnce(SimHarness, SimSpawner) -> F,
) {
    let mut executor = SimExecutor::new(seed);
    let sim = SimHarness::new(executor.clock());
    let test = test(sim, executor.spawner());
    executor.block_on(test).expect("the test ends");
}
