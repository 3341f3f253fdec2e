//! What calls fail with, and whose fault it was.

use crate::text::Why;
use crate::{BuildError, ConfigError, Fault, SpawnError, StatusError, UserFault};
use alloc::string::String;
use core::fmt;

/// The `Result` of a call.
pub type Result<T, E = ClientError> = core::result::Result<T, E>;

/// What a call fails with. No form of it shows the API key or the value of a configured header.
///
/// A session knows by itself whose fault it was: errors of the [category](Self::category) `user` are reported as the
/// event `user_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration cannot work.
    Config(ConfigError),
    /// The session's telemetry cannot be started.
    Telemetry(BuildError),
    /// There is no executor for what goes on beside the calls.
    Spawn(SpawnError),
    /// The request cannot be written as JSON.
    #[non_exhaustive]
    Unencodable {
        /// The call.
        call: &'static str,
        /// Why.
        why: String,
    },
    /// The backend has refused the call, or did not take it in time, with an answer.
    #[non_exhaustive]
    Status {
        /// The call.
        call: &'static str,
        /// The status of the last response, and the beginning of its body.
        error: StatusError,
    },
    /// There was no answer in time.
    #[non_exhaustive]
    NoAnswer {
        /// The call.
        call: &'static str,
        /// Why the last attempt had none.
        why: String,
    },
    /// The request was taken, and failed.
    #[non_exhaustive]
    Failed {
        /// The call.
        call: &'static str,
        /// Its id at the backend.
        request_id: String,
        /// Whose fault it was.
        category: Category,
        /// Why, in the backend's words.
        message: String,
    },
    /// The backend has lost the request, and lost it again whenever it was sent once more.
    #[non_exhaustive]
    Expired {
        /// The call.
        call: &'static str,
        /// Its last id at the backend.
        request_id: String,
    },
    /// The answer is not what it should be.
    #[non_exhaustive]
    Answer {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The session was closed.
    Closed,
}

/// Whose fault a failure was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Category {
    /// The caller's own.
    User,
    /// The backend's.
    Server,
    /// Nobody knows.
    #[default]
    Unknown,
}

impl Category {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Server => "server",
            Self::Unknown => "unknown",
        }
    }

    /// What the backend's word means; any other word is [`Unknown`](Self::Unknown).
    pub(super) fn parse(word: &str) -> Self {
        let mut all = [Self::User, Self::Server].into_iter();
        all.find(|category| category.as_str().eq_ignore_ascii_case(word.trim()))
            .unwrap_or_default()
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl ClientError {
    /// Whose fault it was.
    #[must_use]
    pub const fn category(&self) -> Category {
        match self {
            Self::Failed { category, .. } => *category,
            Self::Status { error, .. } => match Fault::status(error.status()).is_callers() {
                true => Category::User,
                false => Category::Server,
            },
            Self::Config(_) | Self::Unencodable { .. } => Category::User,
            Self::Expired { .. } | Self::Answer { .. } => Category::Server,
            _ => Category::Unknown,
        }
    }

    /// The HTTP status that it came with, if it is one.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { error, .. } => Some(error.status()),
            _ => None,
        }
    }

    /// The id of the request at the backend, if it has one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Failed { request_id, .. } | Self::Expired { request_id, .. } => Some(request_id),
            _ => None,
        }
    }

    /// Whether the same call may come to something at another time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Expired { .. } => true,
            Self::Status { error, .. } => {
                matches!(error.status(), 408 | 409 | 425 | 429 | 500..)
            }
            Self::Failed { category, .. } => *category != Category::User,
            _ => false,
        }
    }

    pub(super) fn unencodable(call: &'static str, error: &serde_json::Error) -> Self {
        let why = Why::new(error).as_str().into();
        Self::Unencodable { call, why }
    }

    pub(super) fn answer(call: &'static str, why: impl fmt::Display) -> Self {
        let why = Why::new(why).as_str().into();
        Self::Answer { call, why }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Telemetry(_) => f.write_str("telemetry cannot be started"),
            Self::Spawn(error) => error.fmt(f),
            Self::Unencodable { call, why } => write!(f, "{call} cannot be written as JSON: {why}"),
            Self::Status { call, error } => {
                let (status, body) = (error.status(), error.body().unwrap_or_default());
                let gap = if body.is_empty() { "" } else { ": " };
                write!(f, "{call} was answered with HTTP {status}{gap}{body}")
            }
            Self::NoAnswer { call, why } => write!(f, "{call} got no answer: {why}"),
            Self::Failed { call, message, .. } if message.is_empty() => write!(f, "{call} failed"),
            Self::Failed { call, message, .. } => write!(f, "{call} failed: {message}"),
            Self::Expired { call, .. } => write!(f, "{call} was lost by the backend"),
            Self::Answer { call, why } => write!(f, "the answer to {call} makes no sense: {why}"),
            Self::Closed => f.write_str("the session is closed"),
        }
    }
}

impl core::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // Two of them speak for themselves.
            Self::Config(error) => error.source().or(Some(&UserFault)),
            Self::Spawn(error) => error.source(),
            Self::Telemetry(error) => Some(error),
            // A session looks for whose fault it was on the chain of sources.
            Self::Status { error, .. } if self.category() == Category::User => Some(error),
            _ if self.category() == Category::User => Some(&UserFault),
            _ => None,
        }
    }
}

impl From<ConfigError> for ClientError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<SpawnError> for ClientError {
    fn from(error: SpawnError) -> Self {
        Self::Spawn(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use core::error::Error;

    fn status(status: u16) -> ClientError {
        ClientError::Status {
            call: "sample",
            error: StatusError::new(status).with_body("why"),
        }
    }

    fn failed(category: Category) -> ClientError {
        ClientError::Failed {
            call: "sample",
            request_id: "r".into(),
            category,
            message: "no".into(),
        }
    }

    #[test]
    fn the_callers_own_faults_are_faults_and_nothing_else_is() {
        let is_callers = |error: &ClientError| {
            error.source().is_some_and(|source| {
                let status = source.downcast_ref().map(StatusError::status);
                source.is::<UserFault>()
                    || status
                        .map(Fault::status)
                        .is_some_and(|fault| fault.is_callers())
            })
        };
        for code in 300..600 {
            let expected = (400..500).contains(&code) && code != 408 && code != 429;
            assert_eq!(is_callers(&status(code)), expected, "{code}");
            assert_eq!(status(code).category() == Category::User, expected);
        }
        assert!(is_callers(&failed(Category::User)));
        assert!(!is_callers(&failed(Category::Server)));
        assert!(!is_callers(&failed(Category::Unknown)));
        assert!(!is_callers(&ClientError::Closed));
    }

    #[test]
    fn an_error_says_which_call_and_why() {
        assert_eq!(
            status(404).to_string(),
            "sample was answered with HTTP 404: why"
        );
        let error = failed(Category::parse(" USER "));
        assert_eq!(error.to_string(), "sample failed: no");
        assert_eq!(error.request_id(), Some("r"));
        assert!(!error.is_retryable() && status(503).is_retryable());
        assert_eq!(Category::parse("of tomorrow"), Category::Unknown);
    }
}
