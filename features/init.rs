//! A session in one line, for programs with no executor or with any.

use crate::features::http::{Config, ConfigError, HttpTransport};
use crate::features::thread::Thread;
use crate::features::ureq::Ureq;
use crate::session::{BuildError, Reporter, SessionId};
use core::error::Error;
use core::fmt;

/// What [`init`] opens: a session with a thread of its own, over HTTP.
///
/// It is a guard: dropping it stops the session and waits until everything is sent, at most `drop_timeout`.
pub type Telemetry = Reporter<HttpTransport<Ureq>, Thread, Thread>;

/// Opens a session with every option at its default and its [`Config`] from the environment.
///
/// It works in every program, whatever executor that has. Where `TINKER_TELEMETRY` switches telemetry off nothing else
/// is asked for, and every call on the guard is a no-op.
///
/// ```no_run
/// let telemetry = tinkex_telemetry::init("session-123")?;
/// telemetry.log("app.started", tinkex_telemetry::fields! { version: "1.0.0" });
/// # Ok::<_, tinkex_telemetry::InitError>(())
/// ```
///
/// # Errors
/// A variable that is missing or wrong, or a session that cannot be opened; see [`InitError`].
pub fn init(session: impl Into<SessionId>) -> Result<Telemetry, InitError> {
    let config = Config::from_env().map_err(InitError::Config)?;
    Reporter::builder(session)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .start()
        .map_err(InitError::Build)
}

/// Why [`init`] has opened no session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// The environment: which variable, and what is wrong with it.
    Config(ConfigError),
    /// The session itself.
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

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // It speaks for itself.
            Self::Config(error) => error.source(),
            Self::Build(error) => Some(error),
        }
    }
}
