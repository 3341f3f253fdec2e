//! Blame: whether an error is the caller's fault or the service's.

use core::error::Error;
use core::fmt;

#[cfg(feature = "alloc")]
use alloc::string::String;

/// Who is to blame for a failed request: the caller, or the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blame<'a> {
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// Whether the error reports its category as "user".
    pub is_user: bool,
    /// The response's body; attached to events only if the application
    /// [opts in](crate::session::Builder::user_error_bodies).
    pub body: Option<&'a str>,
}

impl<'a> Blame<'a> {
    /// Blame for a response with this HTTP status.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            is_user: false,
            body: None,
        }
    }

    /// Blame for an error that reports its category as "user".
    #[must_use]
    pub const fn user() -> Self {
        Self {
            status: None,
            is_user: true,
            body: None,
        }
    }

    /// Adds the response's body.
    #[must_use]
    pub const fn with_body(mut self, body: &'a str) -> Self {
        self.body = Some(body);
        self
    }

    /// Whether the caller is at fault: category "user", or a status of 400 to 499 except 408 and 429.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        self.is_user || matches!(self.status, Some(400..=407 | 409..=428 | 430..=499))
    }
}

/// A function that says who is to blame for one error of a chain, or `None` if it does not know; see
/// [`Builder::classify_errors`](crate::session::Builder::classify_errors).
pub type Classify = for<'a> fn(&'a (dyn Error + 'static)) -> Option<Blame<'a>>;

/// A failed request, for applications without an error type for it. An error that has it on its `source()` chain is
/// reported as `user_error` if the status blames the caller.
#[derive(Clone, PartialEq, Eq)]
pub struct StatusError {
    status: u16,
    #[cfg(feature = "alloc")]
    body: Option<String>,
}

impl StatusError {
    /// Creates the error for a response with this HTTP status.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            #[cfg(feature = "alloc")]
            body: None,
        }
    }

    /// Adds the response's body; attached to events only if the application
    /// [opts in](crate::session::Builder::user_error_bodies).
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn with_body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The response's body, if it was given.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    pub(super) fn blame(&self) -> Blame<'_> {
        let blame = Blame::status(self.status);
        #[cfg(feature = "alloc")]
        if let Some(body) = &self.body {
            return blame.with_body(body);
        }
        blame
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.status)
    }
}

crate::text::debug_with_causes!(StatusError);

impl Error for StatusError {}

/// Marks an error as the caller's fault, where no HTTP status says so: an error that has it on its `source()` chain is
/// reported as `user_error`.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct UserFault;

#[cfg(feature = "std")]
impl fmt::Display for UserFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller is at fault")
    }
}

#[cfg(feature = "std")]
crate::text::debug_with_causes!(UserFault);

#[cfg(feature = "std")]
impl Error for UserFault {}
