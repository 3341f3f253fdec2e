//! The error of building a session.

use crate::session::identity::IdentityError;
use crate::session::options::OptionError;
use crate::spawner::SpawnError;
use crate::transport::SetupError;
use core::fmt;

#[cfg(feature = "std")]
use crate::text::{Str, Text};

#[cfg(has_arc)]
use crate::bus::AttachError;

/// The reason a session could not be started. The message, or that of its `source()`, says what to change.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// An option, or a combination of options, is invalid.
    Option(OptionError),
    /// The session's id, platform or version is invalid.
    Identity(IdentityError),
    /// The transport's configuration is invalid.
    Transport(SetupError),
    /// There is no executor to run the driver, or it lacks what the runtime's clock needs.
    Spawn(SpawnError),
    /// The session cannot attach to its bus: its `handler_id` is taken, or the bus belongs to the parent process.
    #[cfg(has_arc)]
    Attach(AttachError),
    /// A live session of this process has the same id and sends to the same URL, where the events of the two would
    /// collide. Stop it before another is started; it may still be stopping then.
    #[cfg(feature = "std")]
    AlreadyLive {
        /// The id.
        session_id: Str,
    },
    /// There is no randomness: the operating system has none, or, without `std`, none was set.
    NoEntropy,
    /// The provided memory is too small.
    StorageTooSmall {
        /// The part that is too small: `queue` or `batch`.
        what: &'static str,
        /// The minimum in bytes.
        needed: usize,
        /// Its size in bytes.
        given: usize,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(_) => f.write_str("telemetry cannot work with these options"),
            Self::Identity(_) => f.write_str("telemetry cannot identify the session"),
            Self::Transport(_) => f.write_str("the telemetry transport is not configured"),
            Self::Spawn(_) => f.write_str("the telemetry driver cannot be started"),
            #[cfg(has_arc)]
            Self::Attach(_) => f.write_str("telemetry cannot take events from its bus"),
            #[cfg(feature = "std")]
            Self::AlreadyLive { session_id } => {
                let id = Text::<64>::new(session_id.escape_debug());
                write!(
                    f,
                    "the session id \"{id}\" is that of a live session that sends to the same URL: stop that one first, or use another id"
                )
            }
            Self::NoEntropy => f.write_str("there is no randomness: give some with entropy()"),
            Self::StorageTooSmall {
                what,
                needed,
                given,
            } => write!(
                f,
                "the {what} memory needs at least {needed} bytes, not {given}"
            ),
        }
    }
}

crate::text::debug_with_causes!(BuildError);

impl core::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Option(error) => Some(error),
            Self::Identity(error) => Some(error),
            Self::Transport(error) => Some(error),
            Self::Spawn(error) => Some(error),
            #[cfg(has_arc)]
            Self::Attach(error) => Some(error),
            #[cfg(feature = "std")]
            Self::AlreadyLive { .. } => None,
            Self::NoEntropy | Self::StorageTooSmall { .. } => None,
        }
    }
}
