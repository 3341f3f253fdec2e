//! anyhow: errors of the application's, for capture.

use crate::capture::OnError;
use crate::capture::Outcome;
use crate::event::exception::DynamicError;
use core::fmt;
use std::backtrace::BacktraceStatus;

/// The errors of anyhow.
#[derive(Debug)]
pub enum ByAnyhow {}

impl<T> Outcome<ByAnyhow> for Result<T, anyhow::Error> {
    fn error(&self, found: OnError<'_>) {
        if let Err(error) = self {
            let stack = error.backtrace();
            let has_stack = stack.status() == BacktraceStatus::Captured;
            found(&DynamicError {
                stack: has_stack.then_some(stack as &dyn fmt::Display),
                ..DynamicError::new(error.as_ref())
            });
        }
    }
}
