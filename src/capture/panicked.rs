//! A panic as an error.

use crate::event::exception::{AnyError, Stack, sealed::Sealed};
use alloc::string::String;
use core::any::Any;
use core::error::Error;
use core::fmt;

/// The `error_type` of a panic.
const TYPE: &str = "panic";

/// A panic's message: its payload if that is text, otherwise `Box<dyn Any>`.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("Box<dyn Any>")
}

/// A panic as an error.
pub(crate) struct Panicked<'a> {
    error: Message,
    location: Option<&'a dyn fmt::Display>,
}

impl<'a> Panicked<'a> {
    /// `location` says where it happened, if known.
    pub(crate) fn new(message: &str, location: Option<&'a dyn fmt::Display>) -> Self {
        Self {
            error: Message(message.into()),
            location,
        }
    }
}

#[derive(Debug)]
struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Message {}

impl Sealed for Panicked<'_> {}

impl AnyError for Panicked<'_> {
    fn as_error(&self) -> &(dyn Error + 'static) {
        &self.error
    }

    fn type_name(&self) -> Option<&'static str> {
        Some(TYPE)
    }

    fn stack(&self) -> Stack<'_> {
        self.location.map_or(Stack::Unknown, Stack::Known)
    }

    fn is_classified(&self) -> bool {
        false
    }
}
