//! The service client: opens a session at the backend and creates the other clients.

use super::api::{Api, Call};
use super::block_on::block_on;
use super::error::{ClientError, Result};
use super::io::{RuntimeIo, with_deadline};
use super::kind::RequestKind;
use super::open_calls::OpenRequest;
use super::output::ServerCapabilities;
use super::params::NewModel;
use super::pending::Pending;
use super::progress::Progress;
use super::sampling::{SamplingClient, SamplingModel};
use super::session::{ClientSession, CreatedSession, EndReason, NewSession, WatchOptions};
use super::training::TrainingClient;
use super::usage::{Prices, Usage};
use crate::bus::{QueueStateChange, QueueStateObserver, QueueStateTracker};
use crate::diagnostic::{Diagnostic, DiagnosticKind, Observer};
use crate::features::http::{
    Config, ConfigError, ConfigProblem, HttpClient, HttpEvents, HttpTransport,
};
use crate::session::{BuildError, Builder, Entropy, Handle, Reporter};
use crate::spawner::Runtime;
use crate::stats::Drain;
use crate::sys::entropy::Random;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::time::Duration;

/// The builder of a session's own telemetry.
pub type TelemetryBuilder<H, R> = Builder<HttpTransport<H>, R, R>;

type Adjust<H, R> = Box<dyn FnOnce(TelemetryBuilder<H, R>) -> TelemetryBuilder<H, R> + Send>;

/// Builds a [`ServiceClient`]: from [`ServiceClient::builder`] to [`connect`](Self::connect). An HTTP client and a
/// runtime are required.
#[must_use = "a builder does nothing until connect()"]
pub struct ServiceBuilder<H, R> {
    config: Config,
    tags: Vec<String>,
    user_metadata: BTreeMap<String, String>,
    project: Option<String>,
    display_name: Option<String>,
    sdk_version: String,
    observer: Option<Arc<dyn QueueStateObserver>>,
    close_timeout: Duration,
    connect_timeout: Duration,
    max_requests: usize,
    entropy: Option<Entropy>,
    watch: WatchOptions,
    http: H,
    runtime: R,
    telemetry: Option<Adjust<H, R>>,
}

impl ServiceBuilder<(), ()> {
    fn new(config: Config) -> Self {
        Self {
            config,
            tags: Vec::new(),
            user_metadata: BTreeMap::new(),
            project: None,
            display_name: None,
            sdk_version: env!("CARGO_PKG_VERSION").into(),
            observer: None,
            close_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(30),
            max_requests: 256,
            entropy: None,
            watch: WatchOptions::default(),
            http: (),
            runtime: (),
            telemetry: None,
        }
    }
}

impl<H, R> ServiceBuilder<H, R> {
    /// Sets the tags of the session, by which it can be found. Default: none.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an entry to the session's metadata. Default: none.
    pub fn user_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_metadata.insert(name.into(), value.into());
        self
    }

    /// Sets the id of the project that the session belongs to. Default: none.
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.project = Some(id.into());
        self
    }

    /// Sets the name under which the backend shows the session; it need not be unique. Backends of 2025 refuse it.
    /// Default: none.
    pub fn display_name(mut self, name: impl Into<String>) -> Self {
        self.display_name = Some(name.into());
        self
    }

    /// Sets `sdk_version` of the session and of its telemetry. Default: this crate's version.
    pub fn sdk_version(mut self, version: impl Into<String>) -> Self {
        self.sdk_version = version.into();
        self
    }

    /// Sets an observer of queue state changes. Default: none; the session's bus has them in any case.
    pub fn queue_state_observer(mut self, observer: impl QueueStateObserver) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Limits the duration of [`ServiceClient::close`]: at most half of it is spent on the backend's response, the rest
    /// on the telemetry. Default: 10 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Limits the duration of [`connect`](ServiceBuilder::connect), retries included. After 5 s, and then every 10 s, a
    /// warning in the log says what it waits for. Default: 30 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Limits the number of concurrent requests; others wait. The heartbeat and the last request of `close` are exempt.
    /// A poll for a result is a request of up to 45 s. Each request takes a connection, and with `Ureq` a thread.
    /// Default: 256; at least one.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.max_requests = requests;
        self
    }

    /// Sets how long a call may be under way before it is reported as stalled, and again each time its age has doubled:
    /// as the event [`tinkex.request.stalled`](crate::bus::REQUEST_STALLED), to the
    /// [observer](Self::stall_observer), and as a diagnostic. Its end is an event, too. Default: 60 s; at least 1 ms.
    /// `Duration::MAX` switches it off.
    pub fn stall_after(mut self, age: Duration) -> Self {
        self.watch.stall_after = age;
        self
    }

    /// Sets an observer of calls that are stalled, and of their ends. It is called by a task of the session, or by what
    /// ends the call, and should return quickly; its panics are caught. Default: none.
    pub fn stall_observer(
        mut self,
        observer: impl Fn(&OpenRequest) + Send + Sync + 'static,
    ) -> Self {
        self.watch.stall_observer = Some(Arc::new(observer));
        self
    }

    /// Sets how often the session's [usage](ServiceClient::usage) is reported, as the event
    /// [`tinkex.usage`](crate::bus::USAGE); once more when the session ends. Default: 10 min; at least 1 ms.
    /// `Duration::MAX` leaves only the last report.
    pub fn usage_interval(mut self, interval: Duration) -> Self {
        self.watch.usage_interval = interval;
        self
    }

    /// Sets what the tokens of a model cost, from which the cost in the session's [usage](ServiceClient::usage) is
    /// computed. The model is a base model's name or, for weights that are sampled from by their path, the path.
    /// Default: none; then there is no cost.
    pub fn price(mut self, model: impl Into<String>, prices: Prices) -> Self {
        self.watch.prices.insert(model.into(), prices);
        self
    }

    /// Sets the seed of the idempotency keys. Default: from the operating system.
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = Some(entropy);
        self
    }

    fn with<I, Q>(self, http: I, runtime: Q) -> (ServiceBuilder<I, Q>, H, R) {
        let builder = ServiceBuilder {
            config: self.config,
            tags: self.tags,
            user_metadata: self.user_metadata,
            project: self.project,
            display_name: self.display_name,
            sdk_version: self.sdk_version,
            observer: self.observer,
            close_timeout: self.close_timeout,
            connect_timeout: self.connect_timeout,
            max_requests: self.max_requests,
            entropy: self.entropy,
            watch: self.watch,
            http,
            runtime,
            telemetry: None,
        };
        (builder, self.http, self.runtime)
    }
}

impl<R> ServiceBuilder<(), R> {
    /// Sets the HTTP client. Calls and telemetry use clones of it.
    pub fn http<H: HttpClient + Clone>(self, client: H) -> ServiceBuilder<H, R> {
        let (builder, (), runtime) = self.with((), ());
        builder.with(client, runtime).0
    }
}

impl<H> ServiceBuilder<H, ()> {
    /// Sets the runtime. It is bound to the executor on which [`connect`](ServiceBuilder::connect) is first polled. The
    /// heartbeat and each training client take a task on it; with `Thread`, a thread.
    pub fn runtime<R: Runtime>(self, runtime: R) -> ServiceBuilder<H, R> {
        let (builder, http, ()) = self.with((), ());
        builder.with(http, runtime).0
    }
}

impl<H: HttpClient + Clone, R: Runtime> ServiceBuilder<H, R> {
    /// Sets options of the session's own telemetry, as in
    /// `.telemetry(|telemetry| telemetry.flush_interval(Duration::from_secs(1)))`. `enabled(false)` switches it off.
    /// The last call wins.
    pub fn telemetry(
        mut self,
        adjust: impl FnOnce(TelemetryBuilder<H, R>) -> TelemetryBuilder<H, R> + Send + 'static,
    ) -> Self {
        self.telemetry = Some(Box::new(adjust));
        self
    }

    /// Creates the session at the backend, then starts its telemetry and its heartbeat.
    ///
    /// # Errors
    /// If the configuration is invalid, the runtime cannot be bound or cannot run tasks, the backend refuses to create
    /// the session or does not create it within [`connect_timeout`](Self::connect_timeout), or the telemetry cannot be
    /// started. An API key is required even where telemetry is switched off.
    pub fn connect(self) -> Pending<ServiceClient> {
        Pending::new(self.open())
    }

    async fn open(mut self) -> Result<ServiceClient> {
        let endpoint = self.config.api().map_err(needed_by_client)?;
        self.runtime.bind()?;
        let entropy = match self.entropy.take() {
            Some(entropy) => entropy,
            None => {
                Entropy::from_os().map_err(|_| ClientError::Telemetry(BuildError::NoEntropy))?
            }
        };
        let io = RuntimeIo::new(self.http.clone(), self.runtime.clone());
        let random = Random::new(entropy);
        let api = Arc::new(Api::new(Box::new(io), endpoint, random, self.max_requests));
        let create = self.create(&api)?;
        let created = ask_patiently(&api, &create, self.connect_timeout).await?;
        created.check()?;

        let config = self.config.clone();
        let is_simulated = self.runtime.is_simulated();
        let transport = HttpTransport::new(self.config, self.http);
        let mut telemetry = Reporter::builder(&*created.session_id)
            .sdk_version(self.sdk_version)
            .transport(transport)
            .runtime(self.runtime);
        if let Some(adjust) = self.telemetry {
            telemetry = adjust(telemetry);
        }
        let reporter = telemetry.start().map_err(ClientError::Telemetry)?;
        // The calls carry the key even where telemetry is switched off.
        if !is_simulated {
            config.report_warning(&created.session_id);
        }
        let handle = reporter.handle();
        api.report_to(HttpEvents::new(&handle));
        let mut tracker = QueueStateTracker::new(&handle);
        if let Some(observer) = self.observer {
            let observe = move |change: &QueueStateChange<'_>| {
                observer.on_queue_state_change(change);
            };
            tracker = tracker.observer(observe);
        }
        let reporter = Box::new(reporter);
        let session = ClientSession::open(created, api, tracker, handle, reporter, self.watch)?;
        Ok(ServiceClient {
            session,
            close_timeout: self.close_timeout,
        })
    }

    fn create(&self, api: &Api) -> Result<Call> {
        let body = NewSession {
            tags: &self.tags,
            user_metadata: &self.user_metadata,
            sdk_version: &self.sdk_version,
            project_id: self.project.as_deref(),
            display_name: self.display_name.as_deref(),
            r#type: "create_session",
        };
        let name = "create_session";
        let mut call = Call::post(api, name, name, &body)?;
        call.patience = self.connect_timeout;
        call.max_wait = CONNECT_WAIT;
        call.timeout = CONNECT_ATTEMPT.min(self.connect_timeout);
        Ok(call)
    }
}

/// The deadline of one attempt to create the session, so that there is time for another.
const CONNECT_ATTEMPT: Duration = Duration::from_secs(15);
/// The longest wait between two attempts, so that the end of an outage is noticed within the timeout.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// When the first message about a slow connect is due, and how long after it the next.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
const NEXT_MESSAGE: Duration = Duration::from_secs(10);

/// Makes the call that opens the session, and says what it waits for: there is no session yet that could.
async fn ask_patiently(api: &Api, call: &Call, timeout: Duration) -> Result<CreatedSession> {
    let started = api.now();
    let messages = async {
        let mut wait = FIRST_MESSAGE;
        loop {
            api.sleep(wait).await;
            let elapsed = api.now().saturating_duration_since(started).as_secs();
            let reason = format!(
                "waiting for the backend at {} to create the session, for {elapsed} s so far (connect_timeout: \
                 {timeout:?})",
                api.address(),
            );
            Observer::Log.notify(&Diagnostic {
                kind: DiagnosticKind::Connecting,
                count: 1,
                reason: &reason,
                session_id: "",
                limit: None,
                limit_name: None,
            });
            wait = NEXT_MESSAGE;
        }
    };
    let deadline = async {
        // The messages never end; the sleep does.
        with_deadline(api.sleep(timeout), messages)
            .await
            .unwrap_or(())
    };
    let created = with_deadline(deadline, api.ask(call, &Progress::default())).await;
    let created = created.unwrap_or_else(|| {
        Err(ClientError::NoResponse {
            call: call.name,
            reason: "timed out".into(),
            is_retryable: true,
        })
    });
    created.map_err(|error| match error {
        ClientError::NoResponse {
            call,
            reason,
            is_retryable: true,
        } => {
            let address = api.address();
            let reason =
                format!("{reason}; the backend is at {address} (connect_timeout: {timeout:?})");
            ClientError::NoResponse {
                call,
                reason,
                is_retryable: true,
            }
        }
        error => error,
    })
}

/// Replaces advice that is for telemetry alone: a client needs its settings even where telemetry is switched off.
fn needed_by_client(error: ConfigError) -> ConfigError {
    match error.problem() {
        ConfigProblem::Missing => error.explained(
            "is not set: a client of the backend needs it, even where telemetry is switched off",
        ),
        _ => error,
    }
}

impl<H, R> fmt::Debug for ServiceBuilder<H, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder")
            .field("config", &self.config)
            .field("tags", &self.tags)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

/// A session at the backend, from which the other clients are created. Clones share the session.
///
/// The session ends when it is [closed](Self::close), or when the last of its clients and calls is dropped. Where other
/// threads run the session's tasks ([`Spawner::waits_on_drop`](crate::runtime::Spawner::waits_on_drop)), as with `Thread`
/// and on tokio's multi-thread runtime, the drop waits until the backend is notified, for at most 2 s, and until the
/// telemetry is sent, for at most `drop_timeout`; elsewhere it starts both without waiting.
#[derive(Clone)]
pub struct ServiceClient {
    session: Arc<ClientSession>,
    close_timeout: Duration,
}

impl ServiceClient {
    /// Starts building a service client. The [`Config`] has the backend's address and the credentials.
    pub fn builder(config: Config) -> ServiceBuilder<(), ()> {
        ServiceBuilder::new(config)
    }

    /// The session's id, which the backend has assigned.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session.id
    }

    #[cfg(feature = "signal")]
    pub(super) const fn session(&self) -> &Arc<ClientSession> {
        &self.session
    }

    /// A handle of the session's telemetry, for the program's own events; `None` if telemetry is disabled.
    #[must_use]
    pub fn telemetry(&self) -> Option<Handle> {
        Some(self.session.handle())
            .filter(|handle| handle.has_session())
            .cloned()
    }

    /// The calls of the session that are under way, the oldest first: those that have been polled and have not ended.
    /// Heartbeats, and calls that make another one, are not among them.
    #[must_use]
    pub fn open_requests(&self) -> Vec<OpenRequest> {
        self.session.open_requests()
    }

    /// What the session has used so far: the tokens of all results that have arrived. What the backend has computed for
    /// calls that failed or were dropped is not known here.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.session.usage.usage()
    }

    /// Asks the backend what it supports.
    pub fn get_server_capabilities(&self) -> Pending<ServerCapabilities> {
        let name = "get_server_capabilities";
        let progress = Arc::<Progress>::default();
        let (api, listed) = (Arc::clone(&self.session.api), Arc::clone(&progress));
        self.session.run_listed(name, listed, async move {
            api.ask(&Call::get(name, name), &progress).await
        })
    }

    /// Creates a client that samples from a model.
    pub fn create_sampling_client(
        &self,
        model: impl Into<SamplingModel>,
    ) -> Pending<SamplingClient> {
        let (session, model) = (Arc::clone(&self.session), model.into());
        let progress = Arc::<Progress>::default();
        let listed = Arc::clone(&progress);
        let name = "create_sampling_session";
        self.session.run_listed(name, listed, async move {
            SamplingClient::create(session, model, &progress).await
        })
    }

    /// Creates a client that trains an adapter of a base model. Completes when the backend has created the model.
    pub fn create_training_client(
        &self,
        base_model: impl Into<String>,
        model: impl Into<NewModel>,
    ) -> Pending<TrainingClient> {
        let (session, base) = (Arc::clone(&self.session), base_model.into());
        let model = model.into();
        let progress = Arc::<Progress>::default();
        let listed = Arc::clone(&progress);
        let name = RequestKind::CreateModel.name();
        self.session.run_listed(name, listed, async move {
            TrainingClient::create(session, base, model, &progress).await
        })
    }

    /// Ends the session for all its clients: open calls fail with [`ClientError::Closed`], the backend learns that the
    /// program succeeded, and the remaining telemetry is sent. Takes at most
    /// [`close_timeout`](ServiceBuilder::close_timeout). Further calls only wait for the telemetry.
    ///
    /// # Cancel safety
    /// The first poll closes the session. Dropping the future after that only skips the rest; another `close` waits for
    /// the telemetry.
    pub fn close(&self) -> impl Future<Output = Drain> + Send + 'static + use<> {
        let session = Arc::clone(&self.session);
        session.close(EndReason::Success, String::new(), self.close_timeout)
    }

    /// [`close`](Self::close), with a reason and a detail for the backend.
    pub fn close_as(
        &self,
        reason: EndReason,
        detail: &str,
    ) -> impl Future<Output = Drain> + Send + 'static + use<> {
        let session = Arc::clone(&self.session);
        session.close(reason, detail.into(), self.close_timeout)
    }

    /// [`close`](Self::close), blocking the calling thread; see [`Pending::wait`].
    pub fn close_blocking(&self) -> Drain {
        block_on(self.close())
    }
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient")
            .field("session_id", &self.session_id())
            .finish_non_exhaustive()
    }
}
