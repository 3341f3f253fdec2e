//! An option's value as text, checked at once.

use super::kinds::Wrong;
use super::{OptionError, Options};
use crate::text::Text;
use core::fmt;

/// Why a text is no value of its option; continues the name of what was set.
pub(crate) struct Refused<'a> {
    text: &'a str,
    problem: Problem<'a>,
}

enum Problem<'a> {
    /// What is wrong with it, and what it must be.
    Text(Wrong<'a>, &'static str),
    /// It is out of bounds.
    Value(OptionError),
}

impl Options {
    /// Sets the option of this name from text. Whether options fit together is not checked.
    pub(crate) fn set<'a>(&mut self, name: &'static str, text: &'a str) -> Result<(), Refused<'a>> {
        let problem = match self.set_text(name, text) {
            Err((wrong, must_be)) => Problem::Text(wrong, must_be),
            Ok(()) => match self.check_each() {
                Err(error) if error.option() == name => Problem::Value(error),
                _ => return Ok(()),
            },
        };
        Err(Refused { text, problem })
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text::<60>::new(self.text.escape_debug());
        write!(f, "is \"{text}\"")?;
        match &self.problem {
            Problem::Text(wrong, must_be) => write!(f, "{wrong}; it must be {must_be}"),
            Problem::Value(error) => write!(f, ": {error}"),
        }
    }
}
