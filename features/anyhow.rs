//! anyhow: errors of the application's, for capture.

use crate::Outcome;
use crate::capture::Found;
use crate::event::exception::Dynamic;
use core::fmt;
use std::backtrace::BacktraceStatus;

/// The errors of anyhow.
#[derive(Debug)]
pub enum ByAnyhow {}

impl<T> Outcome<ByAnyhow> for Result<T, anyhow::Error> {
    fn error(&self, found: Found<'_>) {
        if let Err(error) = self {
            let stack = error.backtrace();
            let has_stack = stack.status() == BacktraceStatus::Captured;
            found(&Dynamic {
                stack: has_stack.then_some(stack as &dyn fmt::Display),
                ..Dynamic::new(error.as_ref())
            });
        }
    }
}
