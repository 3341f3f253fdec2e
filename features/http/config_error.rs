//! The error of a setting that is missing or cannot work.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// An invalid or missing setting. The message names the setting, and shows what is wrong with its value, unless that
/// may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    setting: Box<str>,
    problem: ConfigProblem,
    message: Box<str>,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The variable is not set, or empty.
    Missing,
    /// The value is empty.
    Empty,
    /// The variable is not valid Unicode.
    NotUnicode,
    /// The value contains CR, LF or NUL.
    LineEnd,
    /// Not a valid header name.
    HeaderName,
    /// Not a valid header value: it contains characters other than visible ASCII.
    HeaderValue,
    /// A header that the transport or the client sets, or that concerns a single connection.
    Reserved,
    /// More headers than a request can have.
    TooManyHeaders,
    /// Not an absolute URL.
    Url,
    /// A scheme that is neither `http` nor `https`.
    Scheme,
    /// A URL with an invalid host, or without one.
    Host,
    /// A URL with an invalid port.
    Port,
    /// A URL with a user or a password.
    Userinfo,
    /// A URL with a query or a fragment.
    Query,
    /// A URL whose path ends in `/api/v1/telemetry` already, or contains `.` or `..`.
    Path,
    /// A URL with a character that no URL has.
    Character,
    /// A value that is too long.
    TooLong,
    /// The API key is a URL: perhaps the two were exchanged.
    Exchanged,
    /// A list that is not of the form `name=value,name=value`.
    List,
    /// A word that is none of those that the setting takes, or that needs a feature of this crate.
    Word,
}

impl ConfigError {
    /// The message continues "the setting …".
    pub(crate) fn new(setting: &str, problem: ConfigProblem, message: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            problem,
            message: message.into().into(),
        }
    }

    /// The same error with another message.
    #[cfg(feature = "client")]
    pub(crate) fn explained(self, message: &str) -> Self {
        Self {
            message: message.into(),
            ..self
        }
    }

    /// The variable (`TINKER_API_KEY`), the argument (`api_key`, `base_url`), the header, or `header name` where that
    /// is invalid.
    #[must_use]
    pub const fn setting(&self) -> &str {
        &self.setting
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn problem(&self) -> ConfigProblem {
        self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.message)
    }
}

crate::text::debug_with_causes!(ConfigError);

impl core::error::Error for ConfigError {}
