//! `init`: a session in one line, with or without an executor.

use crate::features::http::{Config, ConfigError, HttpTransport};
use crate::features::thread::Thread;
use crate::features::ureq::Ureq;
use crate::session::{BuildError, Reporter, SessionId, Telemetry};
use core::error::Error;
use core::fmt;

/// Opens a session with default options and its [`Config`] from the environment.
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
/// # Errors
/// A missing or invalid variable, or a session that cannot be opened; see [`InitError`].
pub fn init(session: impl Into<SessionId>) -> Result<Telemetry, InitError> {
    let config = Config::from_env().map_err(InitError::Config)?;
    Reporter::builder(session)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .start()
        .map(Reporter::into_telemetry)
        .map_err(InitError::Build)
}

/// Why [`init`] could not open a session.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// An environment variable is missing or invalid.
    Config(ConfigError),
    /// The session could not be started.
    Build(BuildError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Build(_) => f.write_str("telemetry cannot be started"),
        }
    }
}

crate::text::debug_with_causes!(InitError);

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // `Display` shows this error itself, so the chain continues with its source.
            Self::Config(error) => error.source(),
            Self::Build(error) => Some(error),
        }
    }
}
