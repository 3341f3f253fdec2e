//! `init`: a session in one line, with or without an executor.

use crate::diagnostic::Observer;
use crate::features::http::{Config, ConfigError, HttpTransport};
use crate::features::thread::Thread;
use crate::features::ureq::Ureq;
use crate::session::builder::assembly::report_setting;
use crate::session::switch::Switch;
use crate::session::{BuildError, Builder, Options, Reporter, SessionId, Telemetry, VariableError};
use crate::transport::Transport;
use core::error::Error;
use core::fmt;

#[cfg(feature = "spool")]
use crate::features::spool::SpoolError;

/// Opens a session with its [`Config`] and its [`Options`] from the environment: each option `x_y` that a variable
/// `TINKER_TELEMETRY_X_Y` sets (see [`Options::with_env`]), and the defaults of all others.
///
/// It works with any executor or none. Where `TINKER_TELEMETRY` or `DO_NOT_TRACK` switches telemetry off, no other
/// variable is required and every call on the guard is a no-op.
///
/// ```no_run
/// use tinkex_telemetry::session::SessionId;
///
/// let telemetry = tinkex_telemetry::init(SessionId::random())?;
/// telemetry.log("app.started", tinkex_telemetry::fields! { version: "1.0.0" });
/// # Ok::<_, tinkex_telemetry::InitError>(())
/// ```
///
/// With the feature `spool`, and a directory in `TINKER_TELEMETRY_SPOOL`, the session stores its events there first (see
/// `Spool`), and `Telemetry::spool` shows what becomes of them. The default of its flush interval is then one second. A
/// directory that is not safe is an error; a disk that fails is reported, and the session then does without.
///
/// # Errors
/// A missing or invalid variable, or a session that cannot be opened; see [`InitError`].
pub fn init(session: impl Into<SessionId>) -> Result<Telemetry, InitError> {
    let config = Config::from_env().map_err(InitError::Config)?;
    let options = options(Options::default())?;
    let builder = Reporter::builder(session).options(options);
    let directory = std::env::var_os(SPOOL).filter(|it| !it.is_empty());
    #[cfg(feature = "spool")]
    if let Some(directory) = directory
        && Switch::in_environment() == Switch::On
    {
        return spooled::start(builder, config, directory);
    }
    #[cfg(not(feature = "spool"))]
    if directory.is_some() {
        warn(
            "TINKER_TELEMETRY_SPOOL is set, and this program has no spool: build it with the feature spool",
        );
    }
    start(builder, HttpTransport::new(config, Ureq::new()))
}

/// These options, changed by the environment.
fn options(defaults: Options) -> Result<Options, InitError> {
    match defaults.with_env() {
        // Where telemetry is off, nothing that is wrong with it matters.
        Err(error) if Switch::in_environment() == Switch::On => Err(InitError::Options(error)),
        read => Ok(read.unwrap_or_default()),
    }
}

type BareBuilder = Builder<(), (), ()>;

fn start<T: Transport>(builder: BareBuilder, transport: T) -> Result<Telemetry, InitError> {
    builder
        .transport(transport)
        .runtime(Thread)
        .start()
        .map(Reporter::into_telemetry)
        .map_err(|error| match &error {
            // All options come from the environment, so a person looks for what is wrong there.
            BuildError::Option(combination) => VariableError::of_combination(combination)
                .map_or(InitError::Build(error), InitError::Options),
            _ => InitError::Build(error),
        })
}

/// Says what a setting does not do.
fn warn(what: &str) {
    report_setting(&Observer::Log, "", &what);
}

/// The variable that names the directory of the spool.
const SPOOL: &str = "TINKER_TELEMETRY_SPOOL";

/// The session of [`init`] with a spool.
#[cfg(feature = "spool")]
mod spooled {
    use super::{BareBuilder, InitError, options, start as start_session, warn};
    use crate::event::Blame;
    use crate::features::http::{Config, HttpTransport};
    use crate::features::spool::{Spool, SpoolError, SpoolTransport};
    use crate::features::thread::Thread;
    use crate::features::ureq::Ureq;
    use crate::session::{Options, Telemetry};
    use crate::transport::{Batch, Receipt, SendError, SetupError, Transport};
    use alloc::format;
    use core::time::Duration;
    use std::ffi::OsString;

    /// The default, since what a kill costs is what is not yet on disk.
    const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

    pub(super) fn start(
        builder: BareBuilder,
        config: Config,
        directory: OsString,
    ) -> Result<Telemetry, InitError> {
        let transport = HttpTransport::new(config.clone(), Ureq::new());
        let spool = Spool::builder(directory)
            .transport(transport)
            .runtime(Thread)
            .start();
        let spool = match spool {
            Ok(spool) => spool,
            Err(error @ SpoolError::Disk { .. }) => {
                warn(&format!("the session does without a spool: {error}"));
                return start_session(builder, HttpTransport::new(config, Ureq::new()));
            }
            Err(error) => return Err(InitError::Spool(error)),
        };
        let options = options(Options {
            flush_interval: FLUSH_INTERVAL,
            ..Options::default()
        })?;
        let drop_timeout = options.drop_timeout;
        let session = start_session(builder.options(options), Spooled(spool.transport()))?;
        Ok(session.keeping(Kept {
            spool: Some(spool),
            drop_timeout,
        }))
    }

    /// The spool's transport, which knows the errors of the client behind it.
    struct Spooled(SpoolTransport);

    impl Transport for Spooled {
        fn send(
            &mut self,
            batch: Batch<'_>,
        ) -> impl Future<Output = Result<Receipt, SendError>> + Send {
            self.0.send(batch)
        }

        fn destination(&self) -> Option<&str> {
            Transport::destination(&self.0)
        }

        fn warning(&self) -> Option<SetupError> {
            Transport::warning(&self.0)
        }

        fn blame<'a>(error: &'a (dyn core::error::Error + 'static)) -> Option<Blame<'a>> {
            <HttpTransport<Ureq> as Transport>::blame(error)
        }
    }

    /// The spool, until the session has been stopped. Then what is on disk has as long to be sent as the session's events
    /// would have had.
    struct Kept {
        spool: Option<Spool>,
        drop_timeout: Duration,
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            if let Some(spool) = self.spool.take() {
                // Where waiting is not safe, what is on disk is sent by the next program.
                let _ = spool.wait_until_delivered_blocking(self.drop_timeout);
                spool.close();
            }
        }
    }

    impl Telemetry {
        /// The spool of a session that [`init`](crate::init) has opened with `TINKER_TELEMETRY_SPOOL`.
        #[must_use]
        #[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
        pub fn spool(&self) -> Option<&Spool> {
            self.kept().and_then(|kept: &Kept| kept.spool.as_ref())
        }
    }
}

/// Why [`init`] could not open a session.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// An environment variable is missing or invalid.
    Config(ConfigError),
    /// A variable has a value that its option cannot have, or that does not fit the other options.
    Options(VariableError),
    /// The session could not be started.
    Build(BuildError),
    /// The directory in `TINKER_TELEMETRY_SPOOL` cannot be a spool.
    #[cfg(feature = "spool")]
    #[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
    Spool(SpoolError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Options(error) => error.fmt(f),
            Self::Build(_) => f.write_str("telemetry cannot be started"),
            #[cfg(feature = "spool")]
            Self::Spool(error) => write!(f, "{SPOOL}: {error}"),
        }
    }
}

crate::text::debug_with_causes!(InitError);

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // `Display` shows this error itself, so the chain continues with its source.
            Self::Config(error) => error.source(),
            Self::Options(error) => error.source(),
            Self::Build(error) => Some(error),
            #[cfg(feature = "spool")]
            Self::Spool(error) => error.source(),
        }
    }
}
