//! An error's type name and its traceback: sources and stack.

use super::{TypeNames, chain};
use crate::event::context::Context;
use crate::text::ASKS_FOR_TYPE;
use core::error::Error;
use core::fmt::{self, Write};

/// The name of an error's type: its path without generic arguments, if the type is known. Behind a trait object it is
/// the identifier that its `Debug` output begins with, if that looks like the name of a type, else `Error`.
pub(super) struct ErrorType<'a> {
    pub(super) error: &'a (dyn Error + 'static),
    pub(super) path: Option<&'static str>,
    pub(super) names: TypeNames,
}

impl fmt::Display for ErrorType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = || self.names.of(self.error);
        let path = self
            .path
            .map(pointee)
            .filter(|path| !path.starts_with("dyn "));
        if let Some(path) = path.or_else(known) {
            return without_arguments(path, f);
        }
        let mut name = LeadingType::default();
        // A write fails at the first character that decides.
        let _ = write!(name, "{:.*?}", ASKS_FOR_TYPE, self.error);
        f.write_str(name.get().unwrap_or("Error"))
    }
}

/// The path of the type that a pointer's error comes from.
fn pointee(path: &str) -> &str {
    const POINTERS: [&str; 3] = ["alloc::boxed::Box<", "alloc::sync::Arc<", "alloc::rc::Rc<"];
    let path = path.trim_start_matches('&');
    let inner = POINTERS
        .iter()
        .find_map(|pointer| path.strip_prefix(pointer));
    match inner.and_then(|inner| inner.strip_suffix('>')) {
        Some(inner) => pointee(inner),
        None => path,
    }
}

/// Writes a path without the arguments of its types. The `<Type as Trait>` of an associated item is not an argument.
fn without_arguments(path: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (mut depth, mut before) = (0_u32, ':');
    for character in path.chars() {
        match character {
            '<' if depth > 0 || before == '_' || before.is_alphanumeric() => depth += 1,
            '>' if depth > 0 && before != '-' => depth -= 1,
            _ if depth == 0 => f.write_char(character)?,
            _ => {}
        }
        before = character;
    }
    Ok(())
}

/// Recognizes the name of a type at the beginning of a derived `Debug` output: an identifier that begins in upper case,
/// has a lower-case letter, and is followed by nothing, ` {` or `(`. Anything else may be a part of the error's data,
/// such as a secret.
#[derive(Default)]
struct LeadingType {
    name: heapless::String<64>,
    has_lowercase: bool,
    /// A blank follows the name.
    is_at_blank: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    OfName,
    NoName,
}

impl LeadingType {
    fn get(&self) -> Option<&str> {
        let is_name = match self.end {
            Some(end) => end == End::OfName,
            // The whole output.
            None => !self.is_at_blank,
        };
        (is_name && self.has_lowercase).then_some(&self.name)
    }

    /// Takes the next character; returns what it decides, if anything.
    fn take(&mut self, next: char) -> Option<End> {
        let can_begin = next.is_uppercase();
        let can_continue = next == '_' || next.is_alphanumeric();
        match next {
            '{' if self.is_at_blank => Some(End::OfName),
            _ if self.is_at_blank => Some(End::NoName),
            '(' => Some(End::OfName),
            ' ' => {
                self.is_at_blank = true;
                None
            }
            _ if can_begin || (can_continue && !self.name.is_empty()) => {
                self.has_lowercase |= next.is_lowercase();
                self.name.push(next).is_err().then_some(End::NoName)
            }
            _ => Some(End::NoName),
        }
    }
}

impl Write for LeadingType {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.end.is_none() {
                self.end = self.take(character);
            }
            if self.end.is_some() {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// The stack that an event shows for an error.
#[derive(Clone, Copy)]
pub enum Stack<'a> {
    /// That of the reporting thread, with `std` and if `RUST_BACKTRACE` asks for one.
    Here,
    /// The one that came with the error.
    Known(&'a dyn fmt::Display),
    /// None: the error happened elsewhere, and the reporting thread's stack would mislead.
    Unknown,
}

/// The context, an error's sources, then the stack: what is too long is cut at its end.
pub(super) struct Traceback<'a> {
    context: Option<&'a Context>,
    error: &'a (dyn Error + 'static),
    names: TypeNames,
    known: Option<&'a dyn fmt::Display>,
    #[cfg(feature = "std")]
    here: Option<alloc::string::String>,
}

impl<'a> Traceback<'a> {
    /// `None` if there are neither a context nor sources nor a stack.
    pub(super) fn new(
        error: &'a (dyn Error + 'static),
        names: TypeNames,
        stack: Stack<'a>,
        context: Option<&'a Context>,
    ) -> Option<Self> {
        let traceback = Self {
            context,
            error,
            names,
            known: match stack {
                Stack::Known(known) => Some(known),
                Stack::Here | Stack::Unknown => None,
            },
            #[cfg(feature = "std")]
            here: match stack {
                Stack::Here => crate::sys::backtrace::here(),
                Stack::Known(_) | Stack::Unknown => None,
            },
        };
        let is_empty = context.is_none() && error.source().is_none() && traceback.stack().is_none();
        (!is_empty).then_some(traceback)
    }

    fn stack(&self) -> Option<&dyn fmt::Display> {
        #[cfg(feature = "std")]
        if let Some(here) = &self.here {
            return Some(here);
        }
        self.known
    }
}

impl fmt::Display for Traceback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(context) = self.context {
            write!(f, "{context}")?;
            separator = "\n";
        }
        for source in chain(self.error).skip(1) {
            let name = ErrorType {
                error: source,
                path: None,
                names: self.names,
            };
            write!(f, "{separator}Caused by: {name}: {source}")?;
            separator = "\n";
        }
        if let Some(stack) = self.stack() {
            write!(f, "{separator}Stack:\n{stack}")?;
        }
        Ok(())
    }
}
