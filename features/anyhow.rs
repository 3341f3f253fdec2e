//! anyhow: capture of `anyhow::Error`.

use crate::capture::{OnError, Outcome};
use crate::event::exception::DynamicError;
use core::fmt;
use std::backtrace::BacktraceStatus;

/// Selects the implementation of [`Outcome`] for anyhow's errors.
#[derive(Debug)]
pub enum ByAnyhow {}

impl<T> Outcome<ByAnyhow> for Result<T, anyhow::Error> {
    fn error(&self, on_error: OnError<'_>) {
        if let Err(error) = self {
            let stack = error.backtrace();
            let has_stack = stack.status() == BacktraceStatus::Captured;
            on_error(&DynamicError {
                stack: has_stack.then_some(stack as &dyn fmt::Display),
                ..DynamicError::new(error.as_ref())
            });
        }
    }
}
