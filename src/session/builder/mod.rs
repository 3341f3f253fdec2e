//! Building a session: its options, its seams and its memory.

use crate::clock::Clock;
use crate::diagnostic::{Diagnostic, Observer};
use crate::engine::GiveUp;
use crate::engine::ring::HEADER;
use crate::event::exception::{Classify, ErrorRules};
use crate::event::severity::Severity;
use crate::session::driven::Driver;
use crate::session::host::Host;
use crate::session::identity::{IdentitySettings, ProcessUuid, SessionId};
use crate::session::options::Options;
use crate::session::reporter::Reporter;
use crate::session::session_ref::SessionRef;
use crate::spawner::{Runtime, SpawnError};
use crate::sys::entropy::Entropy;
use crate::text::Str;
use crate::transport::{Body, LocalTransport};
use core::fmt;
use core::time::Duration;
use uuid::Uuid;

#[cfg(feature = "std")]
use crate::event::scrub::{Draft, Scrub, Verdict};
#[cfg(has_arc)]
use crate::{
    bus::{Bus, EventNames},
    spawner::{LocalSpawner, Spawner},
    transport::Transport,
};
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(has_arc)]
use alloc::sync::Arc;

pub(crate) mod assembly;
mod error;
#[cfg(feature = "std")]
mod error_types;
mod fields;
mod memory;
#[cfg(feature = "std")]
mod variables;

pub use error::BuildError;
pub use memory::Memory;
#[cfg(feature = "std")]
pub use variables::VariableError;

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
    fields: Option<fields::SessionFields>,
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
            fields: None,
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
        give_up: GiveUp,
        max_retries: u32,
        retry_base_delay: Duration,
        retry_max_delay: Duration,
        max_queue_size: usize,
        max_queue_bytes: usize,
        max_batch_size: usize,
        max_batch_bytes: usize,
        min_severity: Severity,
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

/// # What is lost
#[cfg(has_arc)]
impl<T, C, S> Builder<T, C, S> {
    option_setters! {
        loss_report: bool,
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
    /// A fatal exception ends the session even if the hook drops it, and then leaves a gap in the indices.
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
            fields: self.fields,
            #[cfg(has_arc)]
            bus: self.bus,
        }
    }
}

/// # Starting, with an allocator
#[cfg(has_arc)]
impl<T, C, S> Builder<T, C, S> {
    /// Starts the session and returns its driver, for the caller to run on any executor.
    ///
    /// If telemetry is switched off, the driver's future ends at once.
    ///
    /// # Errors
    /// When an option, the session's identity or the transport's configuration is invalid, when the
    /// [runtime](Self::runtime) was set outside its executor, when there is no randomness, or when the session cannot
    /// attach to its bus; see [`BuildError`].
    #[expect(clippy::type_complexity, reason = "both parts have names of their own")]
    pub fn build(self) -> Result<(Reporter<T, C, S>, Driver<T, C>), BuildError>
    where
        T: LocalTransport,
        C: Clock,
    {
        let places = Places::growing(self.options.max_queue_bytes);
        self.assemble(places, Body::owned(), None, |core| {
            SessionRef::Shared(Arc::new(core))
        })
    }
}

// Bounds on the methods: with bounds on the block, the compiler says that there is no such method, and not what is missing.
#[cfg(has_arc)]
impl<T, C, S> Builder<T, C, S> {
    /// Starts the session and spawns its driver.
    ///
    /// # Errors
    /// As for [`build`](Self::build), and [`BuildError::Spawn`] when there is no executor to run the driver.
    pub fn start(self) -> Result<Reporter<T, C, S>, BuildError>
    where
        T: Transport,
        C: Clock,
        S: Spawner,
    {
        let (builder, spawner) = self.take_spawner();
        let places = Places::growing(builder.options.max_queue_bytes);
        let any = Box::new(Arc::clone(&spawner));
        let (reporter, driver) = builder.assemble(places, Body::owned(), Some(any), |core| {
            SessionRef::Shared(Arc::new(core))
        })?;
        if reporter.has_session() {
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
impl<T, C, S> Builder<T, C, S> {
    /// [`start`](Builder::start) on a single-threaded executor, for transports that are not `Send`. Call it on the
    /// executor's thread, where blocking waits return [`WouldDeadlock`](crate::runtime::WouldDeadlock) from then on.
    ///
    /// # Errors
    /// As for [`start`](Builder::start).
    pub fn start_local(self) -> Result<Reporter<T, C, S>, BuildError>
    where
        T: LocalTransport + 'static,
        C: Clock,
        S: LocalSpawner,
    {
        let mut taken = None;
        let builder = self.replace(|transport, clock, spawner| {
            taken = Some(spawner);
            (transport, clock, ())
        });
        let (reporter, driver) = builder.build()?;
        if let (true, Some(spawner)) = (reporter.has_session(), taken) {
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

impl<T, C, S> fmt::Debug for Builder<T, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("identity", &self.identity)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
