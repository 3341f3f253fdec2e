//! Combinations of runtime and HTTP client whose time runs twenty times as fast, to keep waits short.

use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tinkex_telemetry::client::{
    LoraConfig, Pending, SamplingClient, ServiceBuilder, ServiceClient, TrainingClient,
};
use tinkex_telemetry::collector::{Backend, CallRecord, Collector, Reply, SessionRecord};
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::runtime::{
    Clock, Placement, Runtime, Smol, SpawnError, Spawner, WouldDeadlock,
};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Config, Reqwest, Thread, Tokio, Ureq};

pub(crate) const KEY: &str = "sk-sentinel-0123456789";
const SPEED: u32 = 20;

/// A runtime whose clock runs [`SPEED`] times as fast.
#[derive(Clone)]
pub(crate) struct Fast<R>(R);

impl<R: Clock> Clock for Fast<R> {
    fn now(&self) -> Instant {
        Instant::from_micros(self.0.now().as_micros() * u64::from(SPEED))
    }

    fn utc(&self) -> Timestamp {
        self.0.utc()
    }

    async fn sleep_until(&self, at: Instant) {
        let at = Instant::from_micros(at.as_micros().div_ceil(u64::from(SPEED)));
        self.0.sleep_until(at).await;
    }
}

impl<R: Spawner> Spawner for Fast<R> {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        self.0.spawn(task)
    }

    fn placement(&self) -> Placement {
        self.0.placement()
    }

    fn waits_on_drop(&self) -> bool {
        self.0.waits_on_drop()
    }

    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), WouldDeadlock> {
        self.0.block_in_place(is_on_this_thread, wait)
    }
}

impl<R: Runtime> Runtime for Fast<R> {
    fn bind(&mut self) -> Result<(), SpawnError> {
        self.0.bind()
    }
}

/// A runtime with an HTTP client.
pub(crate) trait Stack: Default {
    type Http: HttpClient + Clone;
    type Runtime: Runtime;

    fn http() -> Self::Http;
    fn runtime() -> Self::Runtime;
    /// Waits for a call in the usual way of programs on this runtime.
    fn wait<T>(&self, call: Pending<T>) -> tinkex_telemetry::client::Result<T>;
    /// Waits for any other future.
    fn block_on<F: Future>(&self, future: F) -> F::Output;
}

pub(crate) struct TokioReqwest(tokio::runtime::Runtime);

impl Default for TokioReqwest {
    fn default() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(builder.worker_threads(2).enable_all().build().unwrap())
    }
}

impl Stack for TokioReqwest {
    type Http = Reqwest;
    type Runtime = Fast<Tokio>;

    fn http() -> Reqwest {
        Reqwest::new().unwrap()
    }

    fn runtime() -> Fast<Tokio> {
        Fast(Tokio)
    }

    fn wait<T>(&self, call: Pending<T>) -> tinkex_telemetry::client::Result<T> {
        self.0.block_on(call)
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}

#[derive(Default)]
pub(crate) struct ThreadUreq;

impl Stack for ThreadUreq {
    type Http = Ureq;
    type Runtime = Fast<Thread>;

    fn http() -> Ureq {
        Ureq::new()
    }

    fn runtime() -> Fast<Thread> {
        Fast(Thread)
    }

    fn wait<T>(&self, call: Pending<T>) -> tinkex_telemetry::client::Result<T> {
        call.wait()
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        smol::block_on(future)
    }
}

#[derive(Default)]
pub(crate) struct SmolSurf;

impl Stack for SmolSurf {
    type Http = Surf;
    type Runtime = Fast<Smol>;

    fn http() -> Surf {
        Surf::new(surf::Client::new)
    }

    fn runtime() -> Fast<Smol> {
        Fast(Smol)
    }

    fn wait<T>(&self, call: Pending<T>) -> tinkex_telemetry::client::Result<T> {
        smol::block_on(call)
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        smol::block_on(future)
    }
}

/// A backend, and a service connected to it.
pub(crate) struct Site<W: Stack> {
    pub(crate) service: ServiceClient,
    pub(crate) backend: Backend,
    pub(crate) collector: Collector,
    pub(crate) stack: W,
}

pub(crate) fn site<W: Stack>() -> Site<W> {
    site_with(Collector::start().unwrap(), |builder| builder)
}

pub(crate) fn site_with<W: Stack>(
    collector: Collector,
    adjust: impl FnOnce(ServiceBuilder<W::Http, W::Runtime>) -> ServiceBuilder<W::Http, W::Runtime>,
) -> Site<W> {
    let stack = W::default();
    let builder = builder::<W>(&collector);
    let service = stack
        .wait(adjust(builder).connect())
        .expect("the service connects");
    Site {
        service,
        backend: collector.backend().clone(),
        collector,
        stack,
    }
}

/// The timeouts are long enough for a busy machine.
pub(crate) fn builder<W: Stack>(collector: &Collector) -> ServiceBuilder<W::Http, W::Runtime> {
    let config = Config::new(&collector.url(), KEY).unwrap();
    ServiceClient::builder(config)
        .http(W::http())
        .runtime(W::runtime())
        .close_timeout(Duration::from_secs(600))
        .telemetry(|telemetry| {
            telemetry
                .enabled(true)
                .http_timeout(Duration::from_secs(400))
        })
}

impl<W: Stack> Site<W> {
    pub(crate) fn sampler(&self) -> SamplingClient {
        let call = self.service.create_sampling_client("small");
        self.stack.wait(call).expect("the sampler is created")
    }

    pub(crate) fn trainer(&self) -> TrainingClient {
        let call = self
            .service
            .create_training_client("small", LoraConfig::rank(8));
        self.stack.wait(call).expect("the model is created")
    }

    pub(crate) fn wait<T>(&self, call: Pending<T>) -> tinkex_telemetry::client::Result<T> {
        self.stack.wait(call)
    }

    /// The only call of this name.
    pub(crate) fn only(&self, name: &str) -> CallRecord {
        let calls = self.backend.calls_of(name);
        assert_eq!(calls.len(), 1, "{name}: {calls:?}");
        calls.into_iter().next().unwrap()
    }

    /// Ends the session. Returns its received telemetry.
    pub(crate) fn close(&self) -> Arc<SessionRecord> {
        let drain = self.stack.block_on(self.service.close());
        assert!(drain.all_delivered(), "{drain:?}");
        let session = self.collector.session(self.service.session_id());
        session.expect("telemetry arrived")
    }
}

/// The names of a session's events.
pub(crate) fn names(session: &SessionRecord) -> Vec<String> {
    let events = session.events().iter();
    events
        .map(|event| match event.value()["event_name"].as_str() {
            Some(name) => name.to_owned(),
            None => event.kind().as_str().to_owned(),
        })
        .collect()
}

/// The data of the events of one name.
pub(crate) fn data_of(session: &SessionRecord, name: &str) -> Vec<Value> {
    let events = session.events().iter().map(|event| event.value());
    let events = events.filter(|event| event["event_name"] == name);
    events.map(|event| event["event_data"].clone()).collect()
}

/// `{"type": "try_again", …}`.
pub(crate) fn try_again(state: &str, more: &Value) -> Reply {
    let mut body = json!({ "type": "try_again", "request_id": "r", "queue_state": state });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    Reply::json(&body)
}
