//! anyhow: errors of the application's, for capture.

use crate::Outcome;
use crate::capture::Found;
use crate::exception::{AnyError, Stack, sealed::Sealed};
use core::error::Error;
use std::backtrace::BacktraceStatus;

/// The errors of anyhow.
#[derive(Debug)]
pub enum ByAnyhow {}

impl<T> Outcome<ByAnyhow> for Result<T, anyhow::Error> {
    fn error(&self, found: Found<'_>) {
        if let Err(error) = self {
            found(&Anyhow(error));
        }
    }
}

struct Anyhow<'a>(&'a anyhow::Error);

impl Sealed for Anyhow<'_> {}

impl AnyError for Anyhow<'_> {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self.0.as_ref()
    }

    fn type_name(&self) -> Option<&'static str> {
        None
    }

    /// Where the error was made, if that is known.
    fn stack(&self) -> Stack<'_> {
        match self.0.backtrace().status() {
            BacktraceStatus::Captured => Stack::Known(self.0.backtrace()),
            _ => Stack::Here,
        }
    }
}
