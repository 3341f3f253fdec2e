//! Whose fault an error was.

use core::error::Error;
use core::fmt;

#[cfg(feature = "alloc")]
use alloc::string::String;

/// What a request's failure says about whose fault it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault<'a> {
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The error says of itself that its category is "user".
    pub is_user: bool,
    /// The answer's body; attached to events only when the application opts in.
    pub body: Option<&'a str>,
}

impl<'a> Fault<'a> {
    /// An answer with this HTTP status.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            is_user: false,
            body: None,
        }
    }

    /// An error that says of itself that its category is "user".
    #[must_use]
    pub const fn user() -> Self {
        Self {
            status: None,
            is_user: true,
            body: None,
        }
    }

    /// With the answer's body.
    #[must_use]
    pub const fn with_body(mut self, body: &'a str) -> Self {
        self.body = Some(body);
        self
    }

    /// Whether it is the caller's own fault: category "user", or a status of 400 to 499 except 408 and 429.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        self.is_user || matches!(self.status, Some(400..=407 | 409..=428 | 430..=499))
    }
}

/// Looks at one error of a chain and says what it knows of whose fault it is; see
/// [`Builder::classify_errors`](crate::Builder::classify_errors).
pub type Classify = for<'a> fn(&'a (dyn Error + 'static)) -> Option<Fault<'a>>;

/// A failed request, as an error for applications that have none of their own: with it anywhere on an error's
/// `source()` chain, a status of the caller's own making is reported as `user_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusError {
    status: u16,
    #[cfg(feature = "alloc")]
    body: Option<String>,
}

impl StatusError {
    /// The answer had this HTTP status.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            #[cfg(feature = "alloc")]
            body: None,
        }
    }

    /// With the answer's body, which goes into events only when the application opts in.
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

    pub(super) fn fault(&self) -> Fault<'_> {
        let fault = Fault::status(self.status);
        #[cfg(feature = "alloc")]
        if let Some(body) = &self.body {
            return fault.with_body(body);
        }
        fault
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.status)
    }
}

impl Error for StatusError {}

/// Marks errors as the caller's own fault where no HTTP status says so: an error that has it anywhere on its `source()`
/// chain is reported as `user_error`.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserFault;

#[cfg(feature = "std")]
impl fmt::Display for UserFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller is at fault")
    }
}

#[cfg(feature = "std")]
impl Error for UserFault {}
