//! What an event says of an error's type, of its sources and of where it happened.

use super::chain;
use core::error::Error;
use core::fmt::{self, Write};

/// The name of an error's type: of a known type the last segment of its path; else the identifier its `Debug` form
/// begins with, or `Error`.
pub(super) struct ErrorType<'a>(pub(super) &'a dyn Error, pub(super) Option<&'static str>);

impl fmt::Display for ErrorType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.1 {
            let without_parameters = path.split('<').next().unwrap_or(path);
            return f.write_str(without_parameters.rsplit("::").next().unwrap_or(path));
        }
        let mut name = Identifier::default();
        // It stops at the first character that is not part of the identifier, with an error.
        let _ = write!(name, "{:?}", self.0);
        match name.0.as_str() {
            "" => f.write_str("Error"),
            name => f.write_str(name),
        }
    }
}

/// Takes the identifier that a text begins with.
#[derive(Default)]
struct Identifier(heapless::String<64>);

impl Write for Identifier {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let belongs = character == '_'
                || character.is_alphabetic()
                || (character.is_numeric() && !self.0.is_empty());
            if !belongs || self.0.push(character).is_err() {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Where an error happened.
#[derive(Clone, Copy)]
pub enum Stack<'a> {
    /// Where it is reported, as far as anybody knows: with `std` the calling thread's stack, if `RUST_BACKTRACE` asks
    /// for one.
    Here,
    /// It knows itself.
    Known(&'a dyn fmt::Display),
    /// Elsewhere: the stack of who reports it would mislead.
    Unknown,
}

/// An error's sources, then the stack.
pub(super) struct Traceback<'a> {
    error: &'a (dyn Error + 'static),
    known: Option<&'a dyn fmt::Display>,
    #[cfg(feature = "std")]
    here: std::backtrace::Backtrace,
}

impl<'a> Traceback<'a> {
    /// `None` when there is nothing to show.
    pub(super) fn new(error: &'a (dyn Error + 'static), stack: Stack<'a>) -> Option<Self> {
        let traceback = Self {
            error,
            known: match stack {
                Stack::Known(known) => Some(known),
                Stack::Here | Stack::Unknown => None,
            },
            #[cfg(feature = "std")]
            here: match stack {
                Stack::Here => std::backtrace::Backtrace::capture(),
                Stack::Known(_) | Stack::Unknown => std::backtrace::Backtrace::disabled(),
            },
        };
        let is_empty = error.source().is_none() && traceback.stack().is_none();
        (!is_empty).then_some(traceback)
    }

    fn stack(&self) -> Option<&dyn fmt::Display> {
        #[cfg(feature = "std")]
        if self.here.status() == std::backtrace::BacktraceStatus::Captured {
            return Some(&self.here);
        }
        self.known
    }
}

impl fmt::Display for Traceback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for source in chain(self.error).skip(1) {
            write!(
                f,
                "{separator}Caused by: {}: {source}",
                ErrorType(source, None)
            )?;
            separator = "\n";
        }
        if let Some(stack) = self.stack() {
            write!(f, "{separator}Stack:\n{stack}")?;
        }
        Ok(())
    }
}
