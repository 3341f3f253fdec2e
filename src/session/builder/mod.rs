//! How a session is put together.

use crate::clock::Clock;
use crate::diagnostic::{Diagnostic, Observer};
use crate::engine::Engine;
use crate::engine::ring::{HEADER, Ring};
use crate::event::encode::FOOT;
use crate::event::exception::{Classify, ErrorRules};
use crate::event::writer;
use crate::session::driven::Driver;
use crate::session::handle::Handle;
use crate::session::identity::{Identity, IdentityError, ProcessUuid, Session, SessionId};
use crate::session::options::Options;
use crate::session::reporter::Reporter;
use crate::session::shared::{Core, CoreRef, Parts, Shared};
use crate::spawner::{Runtime, SpawnError};
use crate::sys::entropy::{Entropy, Random};
use crate::text::Str;
use crate::transport::{Body, LocalTransport};
use core::fmt;
use core::time::Duration;
use uuid::Uuid;

#[cfg(feature = "std")]
use crate::event::scrub::{Draft, Scrub, Verdict};
#[cfg(has_arc)]
use crate::{
    bus::{AttachError, Bus, Events},
    spawner::{LocalSpawner, Spawner},
    transport::Transport,
};
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(has_arc)]
use alloc::sync::Arc;

mod error;
mod memory;

pub use error::BuildError;
pub use memory::Memory;

use memory::Places;

/// Puts a session together: [`Reporter::builder`] begins, [`start`](Self::start) ends.
///
/// A transport and a clock are needed, and a spawner to start; the compiler says so when one is missing. Every option
/// has its default in [`Options`].
#[must_use = "a builder does nothing until start() or build()"]
pub struct Builder<T, C, S> {
    identity: Identity,
    options: Options,
    transport: T,
    clock: C,
    spawner: S,
    /// A runtime that could not be bound, which matters only if the session is enabled.
    bound: Result<(), SpawnError>,
    observer: Observer,
    errors: ErrorRules,
    #[cfg(feature = "std")]
    scrub: Option<Scrub>,
    entropy: Option<Entropy>,
    #[cfg(has_arc)]
    bus: Option<Bus>,
}

impl Reporter<(), (), ()> {
    /// Begins a session. Its id is any string; [`SessionId::sessionless`] where there is none.
    pub fn builder(session: impl Into<SessionId>) -> Builder<(), (), ()> {
        Builder::new(session.into())
    }
}

impl Builder<(), (), ()> {
    fn new(session: SessionId) -> Self {
        Self {
            identity: Identity::new(session),
            options: Options::default(),
            transport: (),
            clock: (),
            spawner: (),
            bound: Ok(()),
            observer: Observer::Log,
            errors: ErrorRules::default(),
            #[cfg(feature = "std")]
            scrub: None,
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

    /// Sets all [`Options`] at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Switches telemetry on or off; see [`Options::enabled`]. It wins over the environment.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.options.enabled = Some(enabled);
        self
    }
}

/// # The event bus
#[cfg(has_arc)]
impl<T, C, S> Builder<T, C, S> {
    /// The session's bus, from which it takes its events. Default: [`Bus::global`] with `std`, none without.
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
        self.options.events = Events::from_iter(events);
        self
    }

    /// Sets [`Options::handler_id`].
    pub fn handler_id(mut self, id: impl Into<Str>) -> Self {
        self.options.handler_id = Some(id.into());
        self
    }
}

/// # What the backend and the application are told
impl<T, C, S> Builder<T, C, S> {
    /// `platform` of every request, `family/os`. Default: the host's, `unknown/unknown` without `std`.
    pub fn platform(mut self, platform: impl Into<Str>) -> Self {
        self.identity.platform = Some(platform.into());
        self
    }

    /// `sdk_version` of every request. Default: this crate's. Some backends gate features on it.
    pub fn sdk_version(mut self, version: impl Into<Str>) -> Self {
        self.identity.sdk_version = version.into();
        self
    }

    /// `process_uuid` of every request; `None` leaves it out, which some older backends want. Default: one random
    /// UUID for each process, shared by its sessions (without `std`: for each session).
    pub fn process_uuid(mut self, uuid: Option<Uuid>) -> Self {
        self.identity.process_uuid = uuid.map_or(ProcessUuid::Omitted, ProcessUuid::Given);
        self
    }

    /// Who is told what the reporter has to say of itself. Default: the `log` facade, target `tinkex_telemetry`.
    ///
    /// Called by the driver and by whoever waits for a stop, never inside `log`. It should not block.
    #[cfg(feature = "alloc")]
    pub fn on_diagnostic(
        mut self,
        observer: impl Fn(&Diagnostic<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Observer::Boxed(Box::new(observer));
        self
    }

    /// Who is told what the reporter has to say of itself. Default: the `log` facade, target `tinkex_telemetry`.
    ///
    /// Called by the driver and by whoever waits for a stop, never inside `log`. It should not block.
    #[cfg(not(feature = "alloc"))]
    pub fn on_diagnostic(mut self, observer: fn(&Diagnostic<'_>)) -> Self {
        self.observer = Observer::Function(observer);
        self
    }

    /// Looks at every event before it is queued, to remove what must not leave the program: it may change the event, or
    /// drop it. `SESSION_START` and `SESSION_END` have nothing in them, and are not shown. Default: none.
    ///
    /// Called by whoever logs, on the calling thread, with no lock held. With it `log` costs about twice as much, and four
    /// or five times as much where it looks at the data, which are parsed then. Texts are whole: what is too long is cut
    /// only afterwards, unless the event as a whole does not fit into `max_event_bytes`.
    ///
    /// A panic in it refuses this one event, as [`ScrubPanicked`](crate::Refusal::ScrubPanicked). What it logs itself is
    /// refused as [`Scrubbed`](crate::Refusal::Scrubbed), on every session with a hook. A fatal exception that it drops
    /// ends the session all the same.
    ///
    /// ```
    /// # use tinkex_telemetry::{Reporter, Verdict};
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
        self.scrub = Some(Scrub(Box::new(hook)));
        self
    }

    /// No stacks in tracebacks, so that a simulation is the same in every build.
    #[cfg(feature = "std")]
    #[allow(dead_code, reason = "for simulations")]
    pub(crate) fn without_stacks(mut self) -> Self {
        self.errors.without_stacks = true;
        self
    }

    /// Teaches the session to read the HTTP status of errors of the application's own, to tell user errors from
    /// exceptions. It is asked for every error on a `source()` chain, before anybody else: what it answers counts.
    /// [`StatusError`](crate::StatusError) is known, and so are the errors of the transport's HTTP client; those of
    /// another one are with [`HttpClient::fault`](crate::HttpClient::fault) of its adapter, as in
    /// `.classify_errors(Reqwest::fault)`.
    pub fn classify_errors(mut self, classify: Classify) -> Self {
        self.errors.classify = Some(classify);
        self
    }

    /// Attaches the bodies of failed requests to `user_error` events. Default: no, they may contain anything.
    pub fn user_error_bodies(mut self, attach: bool) -> Self {
        self.errors.with_bodies = attach;
        self
    }

    /// The session's randomness. Default with `std`: the operating system's. Without: required.
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = Some(entropy);
        self
    }
}

/// # The seams
impl<T, C, S> Builder<T, C, S> {
    /// What carries the batches: a [`Transport`] or a [`LocalTransport`].
    pub fn transport<U>(self, transport: U) -> Builder<U, C, S> {
        self.replace(|_, clock, spawner| (transport, clock, spawner))
    }

    /// Where the time comes from.
    pub fn clock<D>(self, clock: D) -> Builder<T, D, S> {
        self.replace(|transport, _, spawner| (transport, clock, spawner))
    }

    /// What runs the driver.
    pub fn spawner<R>(self, spawner: R) -> Builder<T, C, R> {
        self.replace(|transport, clock, _| (transport, clock, spawner))
    }

    /// Clock and spawner in one, bound to the executor of the calling thread.
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
            #[cfg(feature = "std")]
            scrub: self.scrub,
            entropy: self.entropy,
            #[cfg(has_arc)]
            bus: self.bus,
        }
    }
}

/// # Ends, where memory is allocated
#[cfg(has_arc)]
impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Opens the session and hands out its driver, to be run by anything that runs a future.
    ///
    /// When telemetry is switched off the driver's future ends at once.
    ///
    /// # Errors
    /// An option, the session's identity or the transport's configuration that cannot work; see [`BuildError`].
    #[expect(clippy::type_complexity, reason = "both parts have names of their own")]
    pub fn build(self) -> Result<(Reporter<T, C, S>, Driver<T, C>), BuildError> {
        let places = Places::growing(self.options.max_queue_bytes);
        self.assemble(places, Body::owned(), None, |core| {
            CoreRef::Shared(Arc::new(core))
        })
    }
}

#[cfg(has_arc)]
impl<T: Transport, C: Clock, S: Spawner> Builder<T, C, S> {
    /// Opens the session and spawns its driver.
    ///
    /// # Errors
    /// As [`build`](Self::build); and [`BuildError::Spawn`] when there is no executor to run the driver.
    pub fn start(self) -> Result<Reporter<T, C, S>, BuildError> {
        let (builder, spawner) = self.take_spawner();
        let places = Places::growing(builder.options.max_queue_bytes);
        let any = Box::new(Arc::clone(&spawner));
        let (reporter, driver) = builder.assemble(places, Body::owned(), Some(any), |core| {
            CoreRef::Shared(Arc::new(core))
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
    /// [`start`](Builder::start) on a single-threaded executor, for transports that are not `Send`. To be called on its
    /// thread, where blocking waits answer [`WouldDeadlock`](crate::WouldDeadlock) from then on.
    ///
    /// # Errors
    /// As there.
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
            // It can run nowhere else, so nobody may block here even before its first turn.
            if let Some(sink) = reporter.handle().sink() {
                sink.shared().note_driver_thread();
            }
        }
        Ok(reporter.with_spawner())
    }
}

/// # The end, where memory is given
impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Opens the session in memory that the program gives, and hands out its driver. Nothing is allocated.
    ///
    /// `max_queue_bytes` and `max_batch_bytes` are taken from the memory's own lengths.
    ///
    /// # Errors
    /// As `build`; and [`BuildError::StorageTooSmall`] when the memory does not hold one event of `max_event_bytes`, the
    /// reserve for a fatal exception, as much again, and 256 bytes for `SESSION_END` and the session's id.
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
        let least = record.saturating_mul(2).saturating_add(Places::BESIDE);
        if QUEUE < least {
            return too_small("queue", least, QUEUE);
        }
        self.options.max_queue_bytes = QUEUE - Places::BESIDE - record;
        self.options.max_batch_bytes = BATCH;
        let Memory { core, queue, batch } = memory;
        let result = self.assemble(Places::within(queue), Body::fixed(batch), None, |new| {
            CoreRef::Static(core.insert(new))
        });
        match result {
            Err(BuildError::Option(error)) if error.option() == "max_batch_bytes" => {
                too_small("batch", error.least().unwrap_or(BATCH + 1), BATCH)
            }
            other => other,
        }
    }
}

#[cfg(feature = "alloc")]
type AnySpawner = Option<Box<dyn crate::session::shared::AnySpawner>>;
#[cfg(not(feature = "alloc"))]
type AnySpawner = Option<core::convert::Infallible>;

impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Checks everything, then makes reporter and driver.
    #[expect(clippy::type_complexity, reason = "both parts have names of their own")]
    fn assemble(
        self,
        places: Places,
        body: Body,
        spawner: AnySpawner,
        place: impl FnOnce(Core<C>) -> CoreRef<C>,
    ) -> Result<(Reporter<T, C, S>, Driver<T, C>), BuildError> {
        if !self.options.is_enabled() {
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
        let parts = Parts {
            session,
            observer: self.observer,
            errors: ErrorRules {
                known: Some(T::fault),
                ..self.errors
            },
            #[cfg(feature = "std")]
            scrub: self.scrub,
            #[cfg(has_arc)]
            bus: self.bus.or_else(default_bus),
            #[cfg(feature = "alloc")]
            spawner,
        };
        let options = self.options;
        let reserve = options.max_event_bytes + HEADER;
        let ring = Ring::new(places.storage.with_reserve(reserve));
        let mut engine = Engine::new(options.for_engine(overhead), ring, places.end_slot, random);
        // Nobody else knows the engine yet.
        let _ = engine.attach();
        let (started, at) = (self.clock.now(), self.clock.utc());
        let head_len = overhead - FOOT.len();
        let shared = Shared::new(engine, &options, parts, started, head_len);
        let core = place(Core {
            clock: self.clock,
            shared,
        });
        core.shared.log_start(at);
        #[cfg(has_arc)]
        if options.attach_events {
            attach(&core, &options).map_err(BuildError::Attach)?;
        }
        let driver = Driver::new(Some(core.clone()), self.transport, body);
        Ok((Reporter::new(core.handle(), Some(core)), driver))
    }
}

#[cfg(has_arc)]
fn attach<C: Clock>(core: &CoreRef<C>, options: &Options) -> Result<(), AttachError> {
    let Shared {
        session, on_bus, ..
    } = &core.shared;
    let handler_id = options.handler_id.as_deref();
    let weak = core.downgrade();
    on_bus.attach(
        session.id(),
        handler_id,
        &options.events,
        move |name, data, severity| {
            if let Some(handle) = weak.upgrade() {
                handle.log_with(name, data, severity);
            }
        },
    )
}

/// What a request's body spends beside its events.
fn overhead(session: &Session) -> Result<usize, IdentityError> {
    writer::with(Session::MAX_HEAD, |head| {
        session.write_head(head)?;
        head.finish().map_err(|_| IdentityError::TooLong)?;
        Ok(head.len() + FOOT.len())
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
