//! Why a request got no answer, in fixed words: the text of an error may have a URL, a header or worse in it.

use alloc::string::ToString;
use core::error::Error;
use std::io;

/// What is told of a request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
}

impl Failure {
    pub(crate) const fn error(reason: &'static str) -> Self {
        Self {
            kind: "error",
            reason,
        }
    }

    pub(crate) const TIMEOUT: Self = Self {
        kind: "timeout",
        reason: "timed out",
    };

    pub(crate) const UNKNOWN: Self = Self::error("no complete answer");
}

/// Phrases by which an error is known, and what is told of it.
const PHRASES: [(&str, Failure); 19] = [
    ("timed out", Failure::TIMEOUT),
    ("timeout", Failure::TIMEOUT),
    ("no answer in time", Failure::TIMEOUT),
    ("refused", Failure::error("connection refused")),
    ("connection reset", Failure::error("connection reset")),
    ("broken pipe", Failure::error("connection reset")),
    ("connection aborted", Failure::error("connection reset")),
    ("unreachable", Failure::error("host unreachable")),
    ("lookup", Failure::error("the name cannot be looked up")),
    ("looked up", Failure::error("the name cannot be looked up")),
    ("resolve", Failure::error("the name cannot be looked up")),
    ("dns", Failure::error("the name cannot be looked up")),
    (
        "host not found",
        Failure::error("the name cannot be looked up"),
    ),
    ("certificate", Failure::error("TLS")),
    ("handshake", Failure::error("TLS")),
    ("broke off", Failure::error("the answer broke off")),
    ("unexpected end", Failure::error("the answer broke off")),
    ("incomplete message", Failure::error("the answer broke off")),
    ("connection closed", Failure::error("the answer broke off")),
];

/// By the text of an error.
pub(crate) fn of_text(text: &str) -> Failure {
    let text = text.to_ascii_lowercase();
    let mut phrases = PHRASES.iter();
    phrases
        .find(|(phrase, _)| text.contains(phrase))
        .map_or(Failure::UNKNOWN, |(_, failure)| *failure)
}

/// By the errors on the chain: the operating system's own says more than any text.
pub(crate) fn of_error(error: &(dyn Error + 'static)) -> Failure {
    let mut by_text = Failure::UNKNOWN;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return of_io(error);
        }
        if by_text == Failure::UNKNOWN {
            by_text = of_text(&error.to_string());
        }
        next = error.source();
    }
    by_text
}

pub(crate) fn of_io(error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::TimedOut | Kind::WouldBlock => Failure::TIMEOUT,
        Kind::ConnectionRefused => Failure::error("connection refused"),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
            Failure::error("connection reset")
        }
        Kind::NetworkUnreachable | Kind::HostUnreachable => Failure::error("host unreachable"),
        Kind::UnexpectedEof => Failure::error("the answer broke off"),
        _ => of_text(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::http::HttpError;

    #[test]
    fn an_error_is_known_by_its_kind_or_its_words_and_told_in_words_of_our_own() {
        let secret = "https://user:secret@host/?key=secret";
        for (text, failure) in [
            (
                "Connection refused (os error 111)",
                Failure::error("connection refused"),
            ),
            ("the request TIMED OUT", Failure::TIMEOUT),
            (
                "failed to lookup address",
                Failure::error("the name cannot be looked up"),
            ),
            ("bad header", Failure::UNKNOWN),
        ] {
            let error = HttpError::new(alloc::format!("{secret}: {text}"));
            assert_eq!(of_error(&error), failure, "{text}");
        }
        let kinds = [
            (io::ErrorKind::TimedOut, Failure::TIMEOUT),
            (
                io::ErrorKind::UnexpectedEof,
                Failure::error("the answer broke off"),
            ),
            (io::ErrorKind::InvalidData, Failure::UNKNOWN),
        ];
        for (kind, failure) in kinds {
            let error = io::Error::new(kind, secret);
            assert_eq!(of_error(&error), failure, "{kind}");
        }
    }
}
