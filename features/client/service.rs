//! The service: a session at the backend, and the clients that it makes.

use super::error::{ClientError, Result};
use super::link::{Call, Link};
use super::output::ServerCapabilities;
use super::pending::Pending;
use super::port::World;
use super::sampling::{SamplingClient, SamplingModel};
use super::session::{Created, EndReason, NewSession, Session};
use super::train::NewModel;
use super::training::TrainingClient;
use crate::sys::entropy::Random;
use crate::sys::park::block_on;
use crate::{
    BuildError, Builder, Config, Drain, Entropy, Handle, HttpClient, HttpEvents, HttpTransport,
    QueueStateChange, QueueStateObserver, QueueStateTracker, Reporter, Runtime,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::time::Duration;

/// The session's own telemetry while it is put together.
pub type TelemetryBuilder<H, R> = Builder<HttpTransport<H>, R, R>;

type Adjust<H, R> = Box<dyn FnOnce(TelemetryBuilder<H, R>) -> TelemetryBuilder<H, R> + Send>;

/// Puts a service together: [`ServiceClient::builder`] begins, [`connect`](Self::connect) ends. An HTTP client and a
/// runtime are needed.
#[must_use = "it does nothing until connect()"]
pub struct ServiceBuilder<H, R> {
    config: Config,
    tags: Vec<String>,
    user_metadata: BTreeMap<String, String>,
    project: Option<String>,
    sdk_version: String,
    observer: Option<Arc<dyn QueueStateObserver>>,
    close_timeout: Duration,
    max_requests: usize,
    entropy: Option<Entropy>,
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
            sdk_version: env!("CARGO_PKG_VERSION").into(),
            observer: None,
            close_timeout: Duration::from_secs(10),
            max_requests: 256,
            entropy: None,
            http: (),
            runtime: (),
            telemetry: None,
        }
    }
}

impl<H, R> ServiceBuilder<H, R> {
    /// Words by which the session can be found. Default: none.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Something that the session is to be known by. Default: nothing.
    pub fn user_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_metadata.insert(name.into(), value.into());
        self
    }

    /// The id of the project that the session belongs to. Default: none.
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.project = Some(id.into());
        self
    }

    /// `sdk_version` of the session and of its telemetry. Default: this crate's.
    pub fn sdk_version(mut self, version: impl Into<String>) -> Self {
        self.sdk_version = version.into();
        self
    }

    /// Who is told when requests wait in another way. Default: nobody but the session's bus.
    pub fn queue_state_observer(mut self, observer: impl QueueStateObserver) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// How long [`ServiceClient::close`] may take. Default: 10 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// The most requests that are under way at once; others wait. A poll for a result is one for up to 45 s. Each takes
    /// a connection, and with `Ureq` a thread. Default: 256, and never less than one.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.max_requests = requests;
        self
    }

    /// The randomness of the idempotency keys. Default: the operating system's.
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
            sdk_version: self.sdk_version,
            observer: self.observer,
            close_timeout: self.close_timeout,
            max_requests: self.max_requests,
            entropy: self.entropy,
            http,
            runtime,
            telemetry: None,
        };
        (builder, self.http, self.runtime)
    }
}

impl<R> ServiceBuilder<(), R> {
    /// The HTTP client: calls, and what is reported of them, each go through clones of it.
    pub fn http<H: HttpClient + Clone>(self, client: H) -> ServiceBuilder<H, R> {
        let (builder, (), runtime) = self.with((), ());
        builder.with(client, runtime).0
    }
}

impl<H> ServiceBuilder<H, ()> {
    /// Clock and spawner. It is bound to the executor of whoever first polls [`connect`](ServiceBuilder::connect). The
    /// heartbeat is a task on it, and so is each training client: with `Thread`, a thread.
    pub fn runtime<R: Runtime>(self, runtime: R) -> ServiceBuilder<H, R> {
        let (builder, http, ()) = self.with((), ());
        builder.with(http, runtime).0
    }
}

impl<H: HttpClient + Clone, R: Runtime> ServiceBuilder<H, R> {
    /// Sets options of the session's own telemetry, as in
    /// `.telemetry(|telemetry| telemetry.flush_interval(Duration::from_secs(1)))`. `enabled(false)` is one of them.
    /// Of several calls the last counts.
    pub fn telemetry(
        mut self,
        adjust: impl FnOnce(TelemetryBuilder<H, R>) -> TelemetryBuilder<H, R> + Send + 'static,
    ) -> Self {
        self.telemetry = Some(Box::new(adjust));
        self
    }

    /// Creates the session: at the backend, then its telemetry, then its heartbeat.
    ///
    /// # Errors
    /// A configuration that cannot work, a backend that does not create the session within five minutes or refuses to,
    /// a runtime that cannot be bound.
    pub fn connect(self) -> Pending<ServiceClient> {
        Pending::new(self.open())
    }

    async fn open(mut self) -> Result<ServiceClient> {
        let api = self.config.api()?;
        self.runtime.bind()?;
        let entropy = match self.entropy.take() {
            Some(entropy) => entropy,
            None => {
                Entropy::from_os().map_err(|_| ClientError::Telemetry(BuildError::NoEntropy))?
            }
        };
        let world = World::new(self.http.clone(), self.runtime.clone());
        let (random, most) = (Random::new(entropy), self.max_requests);
        let link = Arc::new(Link::new(Box::new(world), api, random, most));
        let create = self.create(&link)?;
        let created: Created = link.ask(&create).await?;

        let transport = HttpTransport::new(self.config, self.http);
        let mut telemetry = Reporter::builder(&*created.session_id)
            .sdk_version(self.sdk_version)
            .transport(transport)
            .runtime(self.runtime);
        if let Some(adjust) = self.telemetry {
            telemetry = adjust(telemetry);
        }
        let reporter = telemetry.start().map_err(ClientError::Telemetry)?;
        let handle = reporter.handle();
        link.tell(HttpEvents::new(&handle));
        let mut tracker = QueueStateTracker::new(&handle);
        if let Some(observer) = self.observer {
            let observe = move |change: &QueueStateChange<'_>| {
                observer.on_queue_state_change(change);
            };
            tracker = tracker.observer(observe);
        }
        let session = Session::open(created, link, tracker, handle, Box::new(reporter))?;
        Ok(ServiceClient {
            session,
            close_timeout: self.close_timeout,
        })
    }

    fn create(&self, link: &Link) -> Result<Call> {
        let body = NewSession {
            tags: &self.tags,
            user_metadata: &self.user_metadata,
            sdk_version: &self.sdk_version,
            project_id: self.project.as_deref(),
            r#type: "create_session",
        };
        let name = "create_session";
        Call::post(link, name, name, &body)
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

/// A session at the backend, and the maker of the other clients. Clones are the same session.
///
/// The session lives until it is [closed](Self::close), or until its last client is dropped, this one or another, and
/// its last call. A drop does what it can: where the runtime has threads of its own (`Thread`) it waits until the
/// backend is told and the telemetry is sent, at most 2 s and `drop_timeout`; elsewhere it only asks for both.
#[derive(Clone)]
pub struct ServiceClient {
    session: Arc<Session>,
    close_timeout: Duration,
}

impl ServiceClient {
    /// Begins a service. The [`Config`] says where the backend is and what it is shown.
    pub fn builder(config: Config) -> ServiceBuilder<(), ()> {
        ServiceBuilder::new(config)
    }

    /// The id that the backend has given the session.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session.id
    }

    /// The session's telemetry, for events of the program's own; `None` where it is switched off.
    #[must_use]
    pub fn telemetry(&self) -> Option<Handle> {
        Some(self.session.handle())
            .filter(|handle| handle.is_enabled())
            .cloned()
    }

    /// What the backend can do.
    pub fn get_server_capabilities(&self) -> Pending<ServerCapabilities> {
        let link = Arc::clone(&self.session.link);
        self.session.run(async move {
            let name = "get_server_capabilities";
            link.ask(&Call::get(name, name)).await
        })
    }

    /// A client that samples from a model.
    pub fn create_sampling_client(
        &self,
        model: impl Into<SamplingModel>,
    ) -> Pending<SamplingClient> {
        let (session, model) = (Arc::clone(&self.session), model.into());
        self.session.run(SamplingClient::create(session, model))
    }

    /// A client that trains an adapter on top of a base model. It waits until the backend has made the model.
    pub fn create_training_client(
        &self,
        base_model: impl Into<String>,
        model: impl Into<NewModel>,
    ) -> Pending<TrainingClient> {
        let (session, base) = (Arc::clone(&self.session), base_model.into());
        let model = model.into();
        self.session
            .run(TrainingClient::create(session, base, model))
    }

    /// Ends the session for all its clients: calls under way fail with [`ClientError::Closed`], the backend is told of the
    /// success, and the telemetry is sent. At most [`close_timeout`](ServiceBuilder::close_timeout), whatever the backend
    /// does. A second call waits for the telemetry only.
    pub fn close(&self) -> impl Future<Output = Drain> + Send + 'static + use<> {
        let session = Arc::clone(&self.session);
        session.close(EndReason::Success, String::new(), self.close_timeout)
    }

    /// [`close`](Self::close), with another reason and words for it.
    pub fn close_as(
        &self,
        reason: EndReason,
        detail: &str,
    ) -> impl Future<Output = Drain> + Send + 'static + use<> {
        let session = Arc::clone(&self.session);
        session.close(reason, detail.into(), self.close_timeout)
    }

    /// [`close`](Self::close), waiting on the calling thread; see [`Pending::wait`].
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
