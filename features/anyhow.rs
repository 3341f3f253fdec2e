//! anyhow: capture of `anyhow::Error`.

use crate::capture::{OnError, Outcome};
use crate::event::exception::DynamicError;
use crate::sys::backtrace;
use core::fmt;

/// Selects the implementation of [`Outcome`] for anyhow's errors.
#[derive(Debug)]
pub enum ByAnyhow {}

impl<T> Outcome<ByAnyhow> for Result<T, anyhow::Error> {
    fn error(&self, on_error: OnError<'_>) {
        if let Err(error) = self {
            let stack = backtrace::captured(error.backtrace());
            on_error(&DynamicError {
                stack: stack.as_ref().map(|stack| stack as &dyn fmt::Display),
                ..DynamicError::new(error.as_ref())
            });
        }
    }
}
