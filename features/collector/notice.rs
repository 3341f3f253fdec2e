//! What a collector says beside the events: refused requests, closed connections, forgotten sessions.

use alloc::string::String;
use core::fmt;

/// Something that a collector did and that its user would want to see, besides keeping events.
///
/// `Display` is one line. It contains what clients sent, so control characters must be escaped for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A request was refused.
    #[non_exhaustive]
    Refused {
        /// The status of the response.
        status: u16,
        /// Method and path.
        request: String,
        /// Why, as in the response.
        reason: String,
    },
    /// A connection was closed without a response: it was too slow, or its request was not HTTP.
    #[non_exhaustive]
    Closed {
        /// Why.
        reason: String,
    },
    /// A session's records were discarded to stay below [`max_memory`](super::CollectorBuilder::max_memory).
    #[non_exhaustive]
    Forgotten {
        /// The session's id.
        session: String,
        /// How many events it had.
        events: usize,
    },
    /// A session that was kept began again; see [`SessionRecord::run`](super::SessionRecord::run).
    #[non_exhaustive]
    NewRun {
        /// The session's id.
        session: String,
        /// The number of the run.
        run: u32,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                status,
                request,
                reason,
            } => write!(f, "refused ({status}): {request}: {reason}"),
            Self::Closed { reason } => write!(f, "closed a connection: {reason}"),
            Self::Forgotten { session, events } => {
                write!(
                    f,
                    "forgot session {session} with {events} events, to keep within memory"
                )
            }
            Self::NewRun { session, run } => write!(f, "run {run} of session {session} begins"),
        }
    }
}
