//! A violation of the wire format: the field, the problem, and the status.

use alloc::{borrow::ToOwned, format, string::String};
use core::{
    error,
    fmt::{self, Write},
};

/// A violation of the wire format: which field of a request is wrong, and how.
///
/// `Display` is the [field](Self::field) and the [problem](Self::problem) as one sentence.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    field: String,
    problem: String,
    status: u16,
}

impl Violation {
    pub(crate) fn new(status: u16, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            status,
        }
    }

    /// The field at fault: `events[3].timestamp`, a header's name in lower case, or `body`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The problem, as the rest of a sentence that begins with the field.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The status of a collector's response: 400 if the body is not a JSON object, 401 for a missing or wrong API key,
    /// 413 for a body that is too long, 415 for another content type, otherwise 422.
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

crate::text::debug_with_causes!(Violation);

impl error::Error for Violation {}

/// An object's place in the body.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Batch,
    Event(usize),
}

impl Place {
    /// An empty `key` means the object itself.
    pub(crate) fn violation(self, key: &str, problem: impl Into<String>) -> Violation {
        let field = match (self, key) {
            (Self::Batch, key) => key.to_owned(),
            (Self::Event(at), "") => format!("events[{at}]"),
            (Self::Event(at), key) => format!("events[{at}].{key}"),
        };
        Violation::new(422, field, problem)
    }

    pub(crate) fn undecodable(self, error: &serde_json::Error) -> Violation {
        self.violation("", format!("cannot be decoded: {error}"))
    }
}

/// The start of a value, on one line, short enough for a message.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self
            .0
            .char_indices()
            .nth(48)
            .map_or(self.0.len(), |(end, _)| end);
        let rest = if end < self.0.len() { "…" } else { "" };
        f.write_str("`")?;
        for char in self.0[..end].chars() {
            match char {
                char if char.is_control() => write!(f, "{}", char.escape_default())?,
                char => f.write_char(char)?,
            }
        }
        write!(f, "{rest}`")
    }
}
