//! Building a session: its options, its seams and its memory.

use crate::clock::Clock;
use crate::diagnostic::{Diagnostic, Observer};
use crate::engine::Engine;
use crate::engine::ring::{HEADER, Ring};
use crate::event::encode::BODY_SUFFIX;
use crate::event::exception::{Classify, ErrorRules};
use crate::event::writer;
use crate::session::driven::Driver;
use crate::session::handle::Handle;
use crate::session::host::Host;
use crate::session::identity::{Identity, IdentityError, IdentitySettings, ProcessUuid, SessionId};
use crate::session::options::Options;
use crate::session::reporter::Reporter;
use crate::session::session_ref::SessionRef;
use crate::session::shared::{SessionCore, Shared, SharedParts};
use crate::spawner::{Runtime, SpawnError};
use crate::sys::entropy::{Entropy, Random};
use crate::text::Str;
use crate::transport::{Body, LocalTransport};
use core::fmt;
use core::time::Duration;
use uuid::Uuid;

#[cfg(has_arc)]
use crate::{
    bus::{AttachError, Bus, EventNames},
    spawner::{LocalSpawner, Spawner},
    transport::Transport,
};
#[cfg(feature = "std")]
use crate::{
    diagnostic::DiagnosticKind,
    event::exception::TypeNames,
    event::scrub::{Draft, Scrub, Verdict},
    session::{live, switch::Switch},
    text::Reason,
};
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(has_arc)]
use alloc::sync::Arc;

mod error;
#[cfg(feature = "std")]
mod error_types;
mod memory;

pub use error::BuildError;
pub use memory::Memory;

use memory::Places;

/// Configures and starts a session. Created by [`Reporter::builder`].
///
/// A session needs a transport and a clock, and a spawner for [`start`](Self::start); if one is missing, the code does
/// not compile. [`Options`] has the defaults of all options.
#[must_use = "a builder does nothing until start() or build()"]
pub struct Builder<T, C, S> {
    identity: IdentitySettings,
    options: Options,
    transport: T,
    clock: C,
    spawner: S,
    /// The result of binding the runtime, which matters only if the session is enabled.
    bound: Result<(), SpawnError>,
    observer: Observer,
    pub(crate) errors: ErrorRules,
    pub(crate) host: Host,
    entropy: Option<Entropy>,
    #[cfg(has_arc)]
    bus: Option<Bus>,
}

impl Reporter<(), (), ()> {
    /// Returns a builder for a session with this id, or with [`SessionId::sessionless`].
    pub fn builder(session: impl Into<SessionId>) -> Builder<(), (), ()> {
        Builder::new(session.into())
    }
}

impl Builder<(), (), ()> {
    fn new(session: SessionId) -> Self {
        Self {
            identity: IdentitySettings::new(session),
            options: Options::default(),
            transport: (),
            clock: (),
            spawner: (),
            bound: Ok(()),
            observer: Observer::Log,
            errors: ErrorRules::default(),
            host: Host::new(),
            entropy: None,
            #[cfg(has_arc)]
            bus: None,
        }
    }
}

macro_rules! option_setters {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        #[doc = concat!("Sets [`Options::", stringify!($name), "`].")]
        pub fn $name(mut self, $name: $type) -> Self {
            self.options.$name = $name;
            self
        }
    )*};
}

/// # The options
impl<T, C, S> Builder<T, C, S> {
    option_setters! {
        flush_interval: Duration,
        flush_threshold: usize,
        flush_timeout: Duration,
        drop_timeout: Duration,
        http_timeout: Duration,
        max_retries: u32,
        retry_base_delay: Duration,
        retry_max_delay: Duration,
        max_queue_size: usize,
        max_queue_bytes: usize,
        max_batch_size: usize,
        max_batch_bytes: usize,
        max_event_bytes: usize,
        max_data_depth: usize,
        max_string_bytes: usize,
        max_fields: usize,
    }

    /// Sets [`Options::reserve`]: one part in `one_in` of each limit of the queue; 0 is none.
    pub fn reserve(mut self, one_in: u32) -> Self {
        self.options.reserve = Some(one_in);
        self
    }

    /// Sets all [`Options`] at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Switches telemetry on or off, whatever the environment says; see [`Options::enabled`].
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.options.enabled = Some(enabled);
        self
    }
}

/// # The event bus
#[cfg(has_arc)]
impl<T, C, S> Builder<T, C, S> {
    /// Sets the bus from which the session takes events. Default: [`Bus::global`] with `std`, none without.
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Sets [`Options::attach_events`].
    pub fn attach_events(mut self, attach: bool) -> Self {
        self.options.attach_events = attach;
        self
    }

    /// Sets [`Options::events`].
    pub fn events<E: Into<Str>>(mut self, events: impl IntoIterator<Item = E>) -> Self {
        self.options.events = EventNames::from_iter(events);
        self
    }

    /// Sets [`Options::handler_id`].
    pub fn handler_id(mut self, id: impl Into<Str>) -> Self {
        self.options.handler_id = Some(id.into());
        self
    }
}

/// # What is sent and reported
impl<T, C, S> Builder<T, C, S> {
    /// Sets `platform` in every request, as `family/os`. Default: the host's, `unknown/unknown` without `std`.
    pub fn platform(mut self, platform: impl Into<Str>) -> Self {
        self.identity.platform = Some(platform.into());
        self
    }

    /// Sets `sdk_version` in every request. Some backends gate features on it. Default: this crate's version.
    pub fn sdk_version(mut self, version: impl Into<Str>) -> Self {
        self.identity.sdk_version = version.into();
        self
    }

    /// Sets `process_uuid` in every request; `None` omits it, which some older backends require. Default: one random
    /// UUID per process, shared by its sessions (without `std`: one per session).
    pub fn process_uuid(mut self, uuid: Option<Uuid>) -> Self {
        self.identity.process_uuid = uuid.map_or(ProcessUuid::Omitted, ProcessUuid::Given);
        self
    }

    /// Sets the observer of the session's diagnostics. Default: the `log` facade, target `tinkex_telemetry`.
    ///
    /// Called by the driver, by threads and tasks whose wait ends, where the reporter or the driver is dropped, and, where
    /// a session has no driver, on a thread of its own; never inside `log`. It should not block: waits that have found a
    /// loss end only after it was reported. What it logs to this session is refused as
    /// [`OwnWork`](crate::stats::Refusal::OwnWork).
    #[cfg(feature = "alloc")]
    pub fn on_diagnostic(
        mut self,
        observer: impl Fn(&Diagnostic<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Observer::Boxed(Box::new(observer));
        self
    }

    /// Sets the observer of the session's diagnostics. Default: the `log` facade, target `tinkex_telemetry`.
    ///
    /// Called by the driver, by tasks whose wait ends, and where the reporter or the driver is dropped; never inside
    /// `log`. It should not block.
    #[cfg(not(feature = "alloc"))]
    pub fn on_diagnostic(mut self, observer: fn(&Diagnostic<'_>)) -> Self {
        self.observer = Observer::Function(observer);
        self
    }

    /// Sets a hook that inspects every event before it is queued, to remove what must not leave the program. It may
    /// change the event or drop it. It does not see `SESSION_START` and `SESSION_END`, which have no data. Default:
    /// none.
    ///
    /// Called inside `log`, on the calling thread, with no lock held. A hook makes `log` about twice as expensive, and
    /// four to five times if it reads the data, which must then be parsed. It sees whole texts: long ones are cut
    /// afterwards, unless the whole event does not fit into `max_event_bytes`.
    ///
    /// If the hook panics, the event is refused as [`ScrubPanicked`](crate::stats::Refusal::ScrubPanicked). Events that
    /// the hook logs itself are refused as [`Scrubbed`](crate::stats::Refusal::Scrubbed), on every session with a hook.
    /// A fatal exception ends the session even if the hook drops it.
    ///
    /// ```
    /// # use tinkex_telemetry::Reporter;
    /// # use tinkex_telemetry::event::Verdict;
    /// let builder = Reporter::builder("session-123").scrub(|event| {
    ///     if event.data().contains_key("password") {
    ///         event.data_mut().insert("password".into(), "(removed)".into());
    ///     }
    ///     match event.name() {
    ///         "internal" => Verdict::Drop,
    ///         _ => Verdict::Keep,
    ///     }
    /// });
    /// # let _ = builder;
    /// ```
    #[cfg(feature = "std")]
    pub fn scrub(
        mut self,
        hook: impl Fn(&mut Draft<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.host.scrub = Some(Scrub(Box::new(hook)));
        self
    }

    /// Sets a function that says who is to blame for the application's errors, to distinguish user errors from
    /// exceptions. It is called for the errors on a `source()` chain, outermost first, until one blames the caller, and
    /// takes precedence over the built-in rules.
    ///
    /// Those know [`StatusError`](crate::event::StatusError), with `std` [`UserFault`](crate::event::UserFault), and
    /// the errors of the transport's HTTP client. For the errors of another client pass its adapter's
    /// [`HttpClient::blame`](crate::http::HttpClient::blame), as in `.classify_errors(Reqwest::blame)`.
    pub fn classify_errors(mut self, classify: Classify) -> Self {
        self.errors.classify = Some(classify);
        self
    }

    /// Sets whether `user_error` events include the bodies of failed requests. Default: false, because they may contain
    /// anything.
    pub fn user_error_bodies(mut self, attach: bool) -> Self {
        self.errors.with_bodies = attach;
        self
    }

    /// Sets the session's source of randomness. Default: the operating system's with `std`; required without.
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = Some(entropy);
        self
    }
}

/// # The seams
impl<T, C, S> Builder<T, C, S> {
    /// Sets the transport that sends the batches: a [`Transport`] or a [`LocalTransport`].
    pub fn transport<U>(self, transport: U) -> Builder<U, C, S> {
        self.replace(|_, clock, spawner| (transport, clock, spawner))
    }

    /// Sets the [`Clock`] that times batches, retries and waits, and that timestamps events.
    pub fn clock<D>(self, clock: D) -> Builder<T, D, S> {
        self.replace(|transport, _, spawner| (transport, clock, spawner))
    }

    /// Sets the spawner that runs the driver.
    pub fn spawner<R>(self, spawner: R) -> Builder<T, C, R> {
        self.replace(|transport, clock, _| (transport, clock, spawner))
    }

    /// Sets clock and spawner in one, bound to the calling thread's executor.
    pub fn runtime<R: Runtime>(mut self, mut runtime: R) -> Builder<T, R, R> {
        self.bound = runtime.bind();
        self.replace(|transport, _, _| (transport, runtime.clone(), runtime))
    }

    fn replace<U, D, R>(self, change: impl FnOnce(T, C, S) -> (U, D, R)) -> Builder<U, D, R> {
        let (transport, clock, spawner) = change(self.transport, self.clock, self.spawner);
        Builder {
            identity: self.identity,
            options: self.options,
            transport,
            clock,
            spawner,
            bound: self.bound,
            observer: self.observer,
            errors: self.errors,
            host: self.host,
            entropy: self.entropy,
            #[cfg(has_arc)]
            bus: self.bus,
        }
    }
}

/// # Starting, with an allocator
#[cfg(has_arc)]
impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Starts the session and returns its driver, for the caller to run on any executor.
    ///
    /// If telemetry is switched off, the driver's future ends at once.
    ///
    /// # Errors
    /// When an option, the session's identity or the transport's configuration is invalid, when the
    /// [runtime](Self::runtime) was set outside its executor, when there is no randomness, or when the session cannot
    /// attach to its bus; see [`BuildError`].
    #[expect(clippy::type_complexity, reason = "both parts have names of their own")]
    pub fn build(self) -> Result<(Reporter<T, C, S>, Driver<T, C>), BuildError> {
        let places = Places::growing(self.options.max_queue_bytes);
        self.assemble(places, Body::owned(), None, |core| {
            SessionRef::Shared(Arc::new(core))
        })
    }
}

#[cfg(has_arc)]
impl<T: Transport, C: Clock, S: Spawner> Builder<T, C, S> {
    /// Starts the session and spawns its driver.
    ///
    /// # Errors
    /// As for [`build`](Self::build), and [`BuildError::Spawn`] when there is no executor to run the driver.
    pub fn start(self) -> Result<Reporter<T, C, S>, BuildError> {
        let (builder, spawner) = self.take_spawner();
        let places = Places::growing(builder.options.max_queue_bytes);
        let any = Box::new(Arc::clone(&spawner));
        let (reporter, driver) = builder.assemble(places, Body::owned(), Some(any), |core| {
            SessionRef::Shared(Arc::new(core))
        })?;
        if reporter.is_enabled() {
            spawner.spawn(driver.run()).map_err(BuildError::Spawn)?;
        }
        Ok(reporter.with_spawner())
    }

    fn take_spawner(self) -> (Builder<T, C, ()>, Arc<S>) {
        let mut taken = None;
        let builder = self.replace(|transport, clock, spawner| {
            taken = Some(Arc::new(spawner));
            (transport, clock, ())
        });
        (builder, taken.expect("replace() calls its closure"))
    }
}

#[cfg(has_arc)]
impl<T: LocalTransport + 'static, C: Clock, S: LocalSpawner> Builder<T, C, S> {
    /// [`start`](Builder::start) on a single-threaded executor, for transports that are not `Send`. Call it on the
    /// executor's thread, where blocking waits return [`WouldDeadlock`](crate::runtime::WouldDeadlock) from then on.
    ///
    /// # Errors
    /// As for [`start`](Builder::start).
    pub fn start_local(self) -> Result<Reporter<T, C, S>, BuildError> {
        let mut taken = None;
        let builder = self.replace(|transport, clock, spawner| {
            taken = Some(spawner);
            (transport, clock, ())
        });
        let (reporter, driver) = builder.build()?;
        if let (true, Some(spawner)) = (reporter.is_enabled(), taken) {
            spawner
                .spawn_local(driver.run_local())
                .map_err(BuildError::Spawn)?;
            // The driver can run on this thread only, so blocking here is refused even before its first poll.
            if let Some(session) = reporter.handle().session() {
                session.shared().note_driver_thread();
            }
        }
        Ok(reporter.with_spawner())
    }
}

/// # Starting, without an allocator
impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Starts the session in memory that the program provides, and returns its driver. Allocates nothing.
    ///
    /// `max_queue_bytes` and `max_batch_bytes` follow from the size of the memory.
    ///
    /// # Errors
    /// As for `build`, and [`BuildError::StorageTooSmall`] when the queue's memory cannot hold one event of
    /// `max_event_bytes`, the equally large place of a fatal exception, the [reserve](Options::reserve) for errors if one
    /// was set, and 256 bytes for `SESSION_END` and the
    /// session's id, or when the batch's memory cannot hold a request with one such event.
    #[expect(clippy::type_complexity, reason = "both parts have names of their own")]
    pub fn build_in<const QUEUE: usize, const BATCH: usize>(
        mut self,
        memory: &'static mut Memory<C, QUEUE, BATCH>,
    ) -> Result<(Reporter<T, C, S>, Driver<T, C>), BuildError> {
        let record = self.options.max_event_bytes.saturating_add(HEADER);
        let too_small = |what, needed, given| {
            Err(BuildError::StorageTooSmall {
                what,
                needed,
                given,
            })
        };
        // One part in `parts` of what is left beside a fatal exception is the reserve for errors.
        let one_in = self.options.reserve.unwrap_or(0);
        let parts = (one_in as usize).saturating_add(1);
        let errors = record
            .checked_div(one_in as usize)
            .map_or(0, |errors| errors + 1);
        let fatal = record.saturating_add(Places::OVERHEAD);
        let min = fatal.saturating_add(record).saturating_add(errors);
        if QUEUE < min {
            return too_small("queue", min, QUEUE);
        }
        let available = QUEUE - fatal;
        self.options.reserve = Some(one_in);
        self.options.max_queue_bytes = match one_in {
            0 => available,
            _ => available - available.div_ceil(parts),
        };
        self.options.max_batch_bytes = BATCH;
        let Memory { core, queue, batch } = memory;
        let result = self.assemble(Places::within(queue), Body::fixed(batch), None, |new| {
            SessionRef::Static(core.insert(new))
        });
        match result {
            Err(BuildError::Option(error)) if error.option() == "max_batch_bytes" => {
                too_small("batch", error.min().unwrap_or(BATCH + 1), BATCH)
            }
            other => other,
        }
    }
}

#[cfg(feature = "alloc")]
type AnySpawner = Option<Box<dyn crate::session::spawning::AnySpawner>>;
#[cfg(not(feature = "alloc"))]
type AnySpawner = Option<core::convert::Infallible>;

impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Whether telemetry is on. Reports a switch that is set to an unknown word: no session will.
    #[cfg(feature = "std")]
    fn is_enabled(&self) -> bool {
        let switch = self.options.switch();
        if matches!(switch, Switch::Unknown(_)) {
            let session_id = self.identity.id.given().unwrap_or_default();
            report_setting(&self.observer, session_id, &switch);
        }
        switch == Switch::On
    }

    /// Whether telemetry is on.
    #[cfg(not(feature = "std"))]
    fn is_enabled(&self) -> bool {
        self.options.enabled.unwrap_or(true)
    }

    /// Checks everything, then creates reporter and driver.
    #[expect(clippy::type_complexity, reason = "both parts have names of their own")]
    fn assemble(
        self,
        places: Places,
        body: Body,
        spawner: AnySpawner,
        place: impl FnOnce(SessionCore<C>) -> SessionRef<C>,
    ) -> Result<(Reporter<T, C, S>, Driver<T, C>), BuildError> {
        if !self.is_enabled() {
            #[cfg(has_arc)]
            let handle = Handle::disabled(spawner);
            #[cfg(not(has_arc))]
            let handle = Handle::off();
            let reporter = Reporter::new(handle, None);
            return Ok((reporter, Driver::new(None, self.transport, body)));
        }
        self.bound.map_err(BuildError::Spawn)?;
        self.transport.check().map_err(BuildError::Transport)?;
        let entropy = match self.entropy {
            Some(entropy) => entropy,
            None => default_entropy()?,
        };
        let mut random = Random::new(entropy);
        let session = self
            .identity
            .resolve(&mut random, places.id)
            .map_err(BuildError::Identity)?;
        let overhead = overhead(&session).map_err(BuildError::Identity)?;
        self.options.check(overhead).map_err(BuildError::Option)?;

        #[cfg(not(feature = "alloc"))]
        let _ = spawner;
        let parts = SharedParts {
            identity: session,
            observer: self.observer,
            errors: ErrorRules {
                known: Some(T::blame),
                #[cfg(feature = "std")]
                names: TypeNames::new(error_types::name),
                ..self.errors
            },
            host: self.host,
            #[cfg(has_arc)]
            bus: self.bus.or_else(default_bus),
            #[cfg(feature = "alloc")]
            spawner,
        };
        let options = self.options;
        let ring = Ring::new(places.storage.with_reserve(options.reserved_bytes()));
        let mut engine = Engine::new(options.for_engine(overhead), ring, places.end_slot, random);
        // Cannot fail: the engine is new.
        let _ = engine.attach();
        let (started, at) = (self.clock.now(), self.clock.utc());
        let body_prefix_len = overhead - BODY_SUFFIX.len();
        let shared = Shared::new(engine, &options, parts, started, body_prefix_len);
        #[cfg(feature = "std")]
        let is_simulated = self.clock.is_simulated();
        let core = place(SessionCore {
            clock: self.clock,
            shared,
        });
        #[cfg(feature = "std")]
        if !is_simulated {
            core.shared.host.reporting.set_session(core.downgrade());
            core.shared.observer().check_console();
            meet(&core, &self.transport)?;
        }
        core.shared.log_start(at);
        #[cfg(has_arc)]
        if options.attach_events {
            attach(&core, &options).map_err(BuildError::Attach)?;
        }
        let driver = Driver::new(Some(core.clone()), self.transport, body);
        Ok((Reporter::new(core.handle(), Some(core)), driver))
    }
}

/// Makes sure that no other live session has this one's id where it sends to, and reports what is questionable about the
/// transport's configuration.
#[cfg(feature = "std")]
fn meet<C: Clock>(core: &SessionRef<C>, transport: &impl LocalTransport) -> Result<(), BuildError> {
    let session_id = core.shared.identity.id();
    if let Some(destination) = transport.destination()
        && !live::register(destination, core)
    {
        let session_id = alloc::string::String::from(session_id).into();
        return Err(BuildError::AlreadyLive { session_id });
    }
    if let Some(warning) = transport.warning() {
        report_setting(core.shared.observer(), session_id, &warning);
    }
    Ok(())
}

/// Reports a setting at once: there is no driver, or none that has begun.
#[cfg(feature = "std")]
pub(crate) fn report_setting(observer: &Observer, session_id: &str, reason: &dyn fmt::Display) {
    let _own = crate::sys::origin::OwnWork::enter();
    observer.notify(&Diagnostic {
        kind: DiagnosticKind::Setting,
        count: 1,
        reason: Reason::new(reason).as_str(),
        session_id,
        limit: None,
        limit_name: None,
    });
}

#[cfg(has_arc)]
fn attach<C: Clock>(core: &SessionRef<C>, options: &Options) -> Result<(), AttachError> {
    let Shared {
        identity, on_bus, ..
    } = &core.shared;
    let handler_id = options.handler_id.as_deref();
    let weak = core.downgrade();
    on_bus.attach(
        identity.id(),
        handler_id,
        &options.events,
        move |name, data, severity| {
            if let Some(handle) = weak.upgrade() {
                handle.log_automatic(name, data, severity);
            }
        },
    )
}

/// The bytes that a request's body takes besides its events.
fn overhead(session: &Identity) -> Result<usize, IdentityError> {
    writer::with(Identity::MAX_BODY_PREFIX, |prefix| {
        session.write_body_prefix(prefix)?;
        prefix.finish().map_err(|_| IdentityError::TooLong)?;
        Ok(prefix.len() + BODY_SUFFIX.len())
    })
}

#[cfg(feature = "std")]
fn default_bus() -> Option<Bus> {
    Some(Bus::global().clone())
}

#[cfg(all(has_arc, not(feature = "std")))]
fn default_bus() -> Option<Bus> {
    None
}

#[cfg(feature = "std")]
fn default_entropy() -> Result<Entropy, BuildError> {
    Entropy::from_os().map_err(|_| BuildError::NoEntropy)
}

#[cfg(not(feature = "std"))]
fn default_entropy() -> Result<Entropy, BuildError> {
    Err(BuildError::NoEntropy)
}

impl<T, C, S> fmt::Debug for Builder<T, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("identity", &self.identity)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
