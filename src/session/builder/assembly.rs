//! Assembling a session from what its builder has been given.

use super::memory::Places;
use super::{BuildError, Builder};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::ring::Ring;
use crate::event::encode::BODY_SUFFIX;
use crate::event::exception::ErrorRules;
use crate::event::writer;
use crate::session::driven::Driver;
use crate::session::handle::Handle;
use crate::session::identity::{Identity, IdentityError};
use crate::session::reporter::Reporter;
use crate::session::session_ref::SessionRef;
use crate::session::shared::{SessionCore, Shared, SharedParts};
use crate::sys::entropy::{Entropy, Random};
use crate::transport::{Body, LocalTransport};

#[cfg(feature = "std")]
use super::error_types;
#[cfg(has_arc)]
use crate::bus::{AttachError, Bus};
#[cfg(has_arc)]
use crate::session::options::Options;
#[cfg(feature = "std")]
use crate::{
    diagnostic::{Diagnostic, DiagnosticKind, Observer},
    event::exception::TypeNames,
    session::{live, switch::Switch},
    sys::console,
    text::Reason,
};
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(feature = "std")]
use core::fmt;

#[cfg(feature = "alloc")]
type AnySpawner = Option<Box<dyn crate::session::spawning::AnySpawner>>;
#[cfg(not(feature = "alloc"))]
type AnySpawner = Option<core::convert::Infallible>;

impl<T: LocalTransport, C: Clock, S> Builder<T, C, S> {
    /// Whether telemetry is on. Reports a switch that is set to an unknown word: no session will.
    #[cfg(feature = "std")]
    fn is_enabled(&self) -> bool {
        let switch = self.options.switch();
        if matches!(switch, Switch::Unknown(..)) {
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
    pub(super) fn assemble(
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
                known: Some(self.transport.classifier()),
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
        if let Some(fields) = &self.fields {
            fields.log(&core.shared, at).map_err(BuildError::Option)?;
        }
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

/// Reports a setting at once: there is no driver, or none that has begun. Where nothing listens it is written to stderr,
/// since the program does not do what its settings ask for.
#[cfg(feature = "std")]
pub(crate) fn report_setting(observer: &Observer, session_id: &str, reason: &dyn fmt::Display) {
    let _own = crate::sys::origin::OwnWork::enter();
    let reason = Reason::new(reason);
    let is_heard = observer.notify(&Diagnostic {
        kind: DiagnosticKind::Setting,
        count: 1,
        reason: reason.as_str(),
        session_id,
        limit: None,
        limit_name: None,
    });
    if !is_heard {
        console::write_line(format_args!("{}", reason.as_str()));
    }
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
