//! Why a request failed, in fixed words: an error's own text may contain a URL, a header or worse.

use crate::event::cut::Cut;
use crate::event::exception::chain;
use alloc::string::{String, ToString};
use core::error::Error;
use core::fmt;
use std::io;

/// What an `exception` event says about a request that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
}

/// Lowercase phrases in error texts, and the failure each stands for. The first match counts.
const PHRASES: [(&str, Failure); 19] = [
    ("timed out", Failure::TIMEOUT),
    ("timeout", Failure::TIMEOUT),
    ("no response in time", Failure::TIMEOUT),
    ("refused", Failure::REFUSED),
    ("connection reset", Failure::RESET),
    ("broken pipe", Failure::RESET),
    ("connection aborted", Failure::RESET),
    ("unreachable", Failure::UNREACHABLE),
    ("lookup", Failure::LOOKUP),
    ("looked up", Failure::LOOKUP),
    ("resolve", Failure::LOOKUP),
    ("dns", Failure::LOOKUP),
    ("host not found", Failure::LOOKUP),
    ("certificate", Failure::TLS),
    ("handshake", Failure::TLS),
    ("broke off", Failure::TRUNCATED),
    ("unexpected end", Failure::TRUNCATED),
    ("incomplete message", Failure::TRUNCATED),
    ("connection closed", Failure::TRUNCATED),
];

impl Failure {
    pub(crate) const TIMEOUT: Self = Self {
        kind: "timeout",
        reason: "timed out",
    };
    pub(crate) const LOOKUP: Self = Self::error("host name lookup failed");
    const REFUSED: Self = Self::error("connection refused");
    const RESET: Self = Self::error("connection reset");
    pub(crate) const TLS: Self = Self::error("TLS");
    pub(crate) const TRUNCATED: Self = Self::error("the response broke off");
    pub(crate) const UNKNOWN: Self = Self::error("no complete response");
    const UNREACHABLE: Self = Self::error("host unreachable");

    pub(crate) const fn error(reason: &'static str) -> Self {
        Self {
            kind: "error",
            reason,
        }
    }

    pub(crate) fn from_text(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let mut phrases = PHRASES.iter();
        phrases
            .find(|(phrase, _)| text.contains(phrase))
            .map_or(Self::UNKNOWN, |(_, failure)| *failure)
    }

    /// Searches the `source()` chain: an `io::Error` decides, else the first text that has a known phrase.
    pub(crate) fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut by_text = Self::UNKNOWN;
        for error in chain(error) {
            if let Some(error) = error.downcast_ref() {
                return Self::from_io(error);
            }
            if by_text == Self::UNKNOWN {
                by_text = Self::from_text(&start_of(error));
            }
        }
        by_text
    }

    pub(crate) fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::TimedOut | Kind::WouldBlock => Self::TIMEOUT,
            Kind::ConnectionRefused => Self::REFUSED,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::RESET,
            Kind::NetworkUnreachable | Kind::HostUnreachable => Self::UNREACHABLE,
            Kind::UnexpectedEof => Self::TRUNCATED,
            _ => Self::from_text(&start_of(error)),
        }
    }
}

/// The beginning of an error's text, which may be of any length.
fn start_of(error: &dyn fmt::Display) -> String {
    const MAX_BYTES: usize = 4096;
    Cut::new(error, MAX_BYTES).to_string()
}

/// Whether the other side reset the connection: reading or writing failed, as it does when a server answers early and
/// closes.
#[cfg(any(feature = "reqwest", feature = "surf", feature = "ureq"))]
pub(crate) fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe
    )
}

/// [`is_reset`] of the first `io::Error` on the `source()` chain.
#[cfg(any(feature = "reqwest", feature = "surf"))]
pub(crate) fn has_reset(error: &(dyn Error + 'static)) -> bool {
    chain(error)
        .find_map(|error| error.downcast_ref())
        .is_some_and(is_reset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::http::HttpError;

    #[test]
    fn an_error_is_classified_by_kind_or_text_and_reported_in_fixed_words() {
        let secret = "https://user:secret@host/?key=secret";
        for (text, failure) in [
            (
                "Connection refused (os error 111)",
                Failure::error("connection refused"),
            ),
            ("the request TIMED OUT", Failure::TIMEOUT),
            (
                "failed to lookup address",
                Failure::error("host name lookup failed"),
            ),
            ("bad header", Failure::UNKNOWN),
        ] {
            let error = HttpError::new(alloc::format!("{secret}: {text}"));
            assert_eq!(Failure::from_error(&error), failure, "{text}");
        }
        let kinds = [
            (io::ErrorKind::TimedOut, Failure::TIMEOUT),
            (
                io::ErrorKind::UnexpectedEof,
                Failure::error("the response broke off"),
            ),
            (io::ErrorKind::InvalidData, Failure::UNKNOWN),
        ];
        for (kind, failure) in kinds {
            let error = io::Error::new(kind, secret);
            assert_eq!(Failure::from_error(&error), failure, "{kind}");
        }
    }

    /// An error whose source is itself.
    #[derive(Debug)]
    struct Looped;

    impl fmt::Display for Looped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }

    impl Error for Looped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn an_error_whose_source_is_itself_hangs_nothing() {
        assert_eq!(Failure::from_error(&Looped), Failure::UNKNOWN);
        let error = HttpError::from_error(&Looped);
        assert!(error.to_string().starts_with("again: again: "));
    }
}
