//! A simulated world with a backend in it: time passes by itself, and the weather is the test's.

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

/// How long a request is under way, and its answer.
pub(crate) const PING: Duration = Duration::from_millis(5);

/// What the world is like. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Sky {
    pub(crate) backend: Backend,
    pub(crate) clock: SimClock,
    start: tinkex_telemetry::time::Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    down_until: Duration,
    is_telemetry_stalled: bool,
    panics_in: &'static str,
    /// Per mille of exchanges that come to nothing, and the state of the dice.
    storm: u64,
    dice: u64,
    /// Exchanges under way, and the most that there were.
    under_way: [usize; 2],
    /// What arrived at the backend, and when.
    arrived: Vec<(u64, String)>,
    events: Vec<Value>,
    told: Vec<(u64, DiagnosticKind, String)>,
}

impl Sky {
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

    /// How long the simulation has been running.
    pub(crate) fn passed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let end = self.clock.now().checked_add(duration).unwrap();
        self.clock.sleep_until(end).await;
    }

    /// No connection from now on, for so long.
    pub(crate) fn outage(&self, duration: Duration) {
        let end = self.passed() + duration;
        self.with(|state| state.down_until = end);
    }

    /// So many of a thousand exchanges come to nothing.
    pub(crate) fn storm(&self, per_mille: u64, seed: u64) {
        self.with(|state| (state.storm, state.dice) = (per_mille, seed | 1));
    }

    /// The HTTP client panics in calls of this name.
    pub(crate) fn panic_in(&self, name: &'static str) {
        self.with(|state| state.panics_in = name);
    }

    /// Everything that has come, and when.
    pub(crate) fn log(&self) -> String {
        self.with(|state| format!("{:?} {:?}", state.arrived, state.events))
    }

    pub(crate) fn stall_telemetry(&self) {
        self.with(|state| state.is_telemetry_stalled = true);
    }

    /// In which seconds calls of this name were attempted.
    pub(crate) fn attempts(&self, name: &str) -> Vec<u64> {
        self.with(|state| {
            let arrived = state.arrived.iter().filter(|(_, call)| call == name);
            arrived.map(|(at, _)| *at).collect()
        })
    }

    /// The telemetry that has come.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.with(|state| state.events.clone())
    }

    /// What was told of one kind, and in which second.
    pub(crate) fn told(&self, kind: DiagnosticKind) -> Vec<(u64, String)> {
        self.with(|state| {
            let told = state.told.iter().filter(|told| told.1 == kind);
            told.map(|(at, _, reason)| (*at, reason.clone())).collect()
        })
    }

    /// The most exchanges, heartbeats apart, that were under way at once.
    pub(crate) fn most_under_way(&self) -> usize {
        self.with(|state| state.under_way[1])
    }

    fn note_diagnostic(&self, diagnostic: &Diagnostic<'_>) {
        let at = self.passed().as_secs();
        let reason = diagnostic.reason.to_owned();
        self.with(|state| state.told.push((at, diagnostic.kind, reason)));
    }

    fn strikes(&self) -> Option<u64> {
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
        let _under_way = (name != "session_heartbeat").then(|| UnderWay::begin(&self));
        self.with(|state| state.arrived.push((at, name)));
        if self.with(|state| state.arrived.last().map(|last| &*last.1) == Some(state.panics_in)) {
            // As a panic would be, but for the message that the hook would print.
            std::panic::resume_unwind(Box::new("simulated"));
        }
        if self.passed() < self.with(|state| state.down_until) {
            return Err(HttpError::new("connection refused"));
        }
        match self.strikes().map(|dice| dice % 4) {
            Some(0) => return Err(HttpError::new("connection refused")),
            Some(1) => {
                // The backend has it, and the answer gets lost.
                let _ = self.backend.answer(&request);
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
        let answer = self.backend.answer(&request).response();
        self.sleep(PING).await;
        match answer {
            Some(answer) => Ok(answer),
            None => pending().await,
        }
    }

    fn http(&self) -> impl HttpClient + Clone + use<> {
        let sky = self.clone();
        move |request| sky.clone().exchange(request)
    }

    /// A service in this world.
    pub(crate) fn connect(&self, spawner: &SimSpawner) -> Pending<ServiceClient> {
        self.connect_with(spawner, |builder| builder)
    }

    pub(crate) fn connect_with(
        &self,
        spawner: &SimSpawner,
        adjust: impl FnOnce(ServiceBuilder<(), ()>) -> ServiceBuilder<(), ()>,
    ) -> Pending<ServiceClient> {
        let config = Config::new("http://simulated.invalid", "simulated").unwrap();
        let sky = self.clone();
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
                    .on_diagnostic(move |diagnostic| sky.note_diagnostic(diagnostic))
            })
            .connect()
    }
}

/// An exchange, until it ends or is given up.
struct UnderWay(Sky);

impl UnderWay {
    fn begin(sky: &Sky) -> Self {
        sky.with(|state| {
            state.under_way[0] += 1;
            state.under_way[1] = state.under_way[1].max(state.under_way[0]);
        });
        Self(sky.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.with(|state| state.under_way[0] -= 1);
    }
}

/// Runs a test in a simulated world to its end.
pub(crate) fn under<F: Future<Output = ()> + 'static>(
    seed: u64,
    test: impl FnOnce(Sky, SimSpawner) -> F,
) {
    let mut executor = SimExecutor::new(seed);
    let sky = Sky::new(executor.clock());
    let test = test(sky, executor.spawner());
    executor.block_on(test).expect("it comes to its end");
}
