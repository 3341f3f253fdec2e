//! The errors of calls, and who is at fault.

use crate::event::{Blame, StatusError, UserFault};
use crate::features::http::ConfigError;
use crate::session::BuildError;
use crate::spawner::SpawnError;
use crate::text::{ASKS_FOR_TYPE, Reason, WithCauses};
use alloc::string::String;
use core::fmt;

/// The result of a call.
pub type Result<T, E = ClientError> = core::result::Result<T, E>;

/// An error of a call. No form of it shows the API key or the value of a configured header.
///
/// Telemetry recognizes user errors: errors of the [category](Self::category) `user` are reported as the event
/// `user_error`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration is invalid.
    Config(ConfigError),
    /// The session's telemetry cannot be started.
    Telemetry(BuildError),
    /// The runtime cannot run the session's tasks, for example because there is no executor.
    Spawn(SpawnError),
    /// The request cannot be encoded as JSON.
    #[non_exhaustive]
    Unencodable {
        /// The name of the call.
        call: &'static str,
        /// The reason.
        reason: String,
    },
    /// The backend refused the call, or was still unable to accept it when the retries ended.
    #[non_exhaustive]
    Status {
        /// The name of the call.
        call: &'static str,
        /// The status of the last response, and the beginning of its body.
        error: StatusError,
    },
    /// There was no response when the retries ended: the last attempt failed or timed out. Or the HTTP client has found
    /// that the request must not be repeated, for example since its middleware follows redirects.
    #[non_exhaustive]
    NoResponse {
        /// The name of the call.
        call: &'static str,
        /// The reason why the last attempt got no response.
        reason: String,
        /// Whether the same call may succeed later.
        is_retryable: bool,
    },
    /// The backend accepted the request, but could not complete it.
    #[non_exhaustive]
    Failed {
        /// The name of the call.
        call: &'static str,
        /// The id of the request at the backend.
        request_id: String,
        /// Who is at fault.
        category: Category,
        /// The reason, in the backend's words.
        message: String,
    },
    /// The backend lost the request each time it was submitted, four times in all.
    #[non_exhaustive]
    Expired {
        /// The name of the call.
        call: &'static str,
        /// The last id of the request at the backend.
        request_id: String,
    },
    /// The response does not have the expected form.
    #[non_exhaustive]
    InvalidResponse {
        /// The name of the call.
        call: &'static str,
        /// What is wrong with the response.
        reason: String,
    },
    /// The session is closed.
    Closed,
}

/// Who is at fault for a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Category {
    /// The caller.
    User,
    /// The backend.
    Server,
    /// Unknown.
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

    /// Parses the backend's word; any other word is [`Unknown`](Self::Unknown).
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
    /// Who is at fault.
    #[must_use]
    pub const fn category(&self) -> Category {
        match self {
            Self::Failed { category, .. } => *category,
            Self::Status { error, .. } => match Blame::status(error.status()).is_callers() {
                true => Category::User,
                false => Category::Server,
            },
            Self::Config(_) | Self::Unencodable { .. } => Category::User,
            Self::Expired { .. } | Self::InvalidResponse { .. } => Category::Server,
            _ => Category::Unknown,
        }
    }

    /// The HTTP status of the response, for [`Status`](Self::Status).
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { error, .. } => Some(error.status()),
            _ => None,
        }
    }

    /// The id of the request at the backend, if there is one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Failed { request_id, .. } | Self::Expired { request_id, .. } => Some(request_id),
            _ => None,
        }
    }

    /// Whether the same call may succeed later. Never true for a user error: also a 409, for which a call is retried,
    /// is one when the retries have ended.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoResponse { is_retryable, .. } => *is_retryable,
            Self::Expired { .. } => true,
            Self::Status { error, .. } => matches!(error.status(), 408 | 429 | 500..),
            Self::Failed { category, .. } => *category != Category::User,
            _ => false,
        }
    }

    pub(super) fn unencodable(call: &'static str, error: &serde_json::Error) -> Self {
        let reason = Reason::new(error).as_str().into();
        Self::Unencodable { call, reason }
    }

    pub(super) fn invalid_response(call: &'static str, reason: impl fmt::Display) -> Self {
        let reason = Reason::new(reason).as_str().into();
        Self::InvalidResponse { call, reason }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Telemetry(_) => f.write_str("telemetry cannot be started"),
            Self::Spawn(error) => error.fmt(f),
            Self::Unencodable { call, reason } => {
                write!(f, "{call} cannot be encoded as JSON: {reason}")
            }
            Self::Status { call, error } => {
                let (status, body) = (error.status(), error.body().unwrap_or_default());
                let gap = if body.is_empty() { "" } else { ": " };
                write!(f, "{call} failed with HTTP {status}{gap}{body}")
            }
            Self::NoResponse { call, reason, .. } => write!(f, "{call} got no response: {reason}"),
            Self::Failed { call, message, .. } if message.is_empty() => write!(f, "{call} failed"),
            Self::Failed { call, message, .. } => write!(f, "{call} failed: {message}"),
            Self::Expired { call, .. } => write!(f, "{call} was lost by the backend"),
            Self::InvalidResponse { call, reason } => {
                write!(f, "invalid response to {call}: {reason}")
            }
            Self::Closed => f.write_str("the session is closed"),
        }
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            _ if f.precision() == Some(ASKS_FOR_TYPE) => f.write_str("ClientError"),
            Self::Telemetry(_) => fmt::Display::fmt(&WithCauses(self), f),
            // The other sources say nothing new: they are for telemetry, which looks for a user error among them.
            _ => fmt::Display::fmt(self, f),
        }
    }
}

impl core::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // Displayed as the errors inside, so their sources follow.
            Self::Config(error) => error.source().or(Some(&UserFault)),
            Self::Spawn(error) => error.source(),
            Self::Telemetry(error) => Some(error),
            // Telemetry looks for a user error in the chain of sources.
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
    fn only_user_errors_have_a_user_error_in_their_source_chain() {
        let is_callers = |error: &ClientError| {
            error.source().is_some_and(|source| {
                let status = source.downcast_ref().map(StatusError::status);
                source.is::<UserFault>()
                    || status
                        .map(Blame::status)
                        .is_some_and(|blame| blame.is_callers())
            })
        };
        for code in 300..600 {
            let expected = (400..500).contains(&code) && code != 408 && code != 429;
            assert_eq!(is_callers(&status(code)), expected, "{code}");
            assert_eq!(status(code).category() == Category::User, expected);
            assert!(!(expected && status(code).is_retryable()), "{code}");
        }
        assert!(is_callers(&failed(Category::User)));
        assert!(!is_callers(&failed(Category::Server)));
        assert!(!is_callers(&failed(Category::Unknown)));
        assert!(!is_callers(&ClientError::Closed));
    }

    #[test]
    fn an_error_names_the_call_and_the_reason() {
        assert_eq!(status(404).to_string(), "sample failed with HTTP 404: why");
        let error = failed(Category::parse(" USER "));
        assert_eq!(error.to_string(), "sample failed: no");
        assert_eq!(error.request_id(), Some("r"));
        assert!(!error.is_retryable() && status(503).is_retryable());
        assert_eq!(Category::parse("of tomorrow"), Category::Unknown);
    }
}
