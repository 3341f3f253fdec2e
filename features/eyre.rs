//! eyre: capture of `eyre::Report`.

use crate::capture::{OnError, Outcome};
use crate::event::exception::DynamicError;

/// Selects the implementation of [`Outcome`] for eyre's errors.
#[derive(Debug)]
pub enum ByEyre {}

impl<T> Outcome<ByEyre> for Result<T, eyre::Report> {
    fn error(&self, on_error: OnError<'_>) {
        if let Err(report) = self {
            on_error(&DynamicError::new(report.as_ref()));
        }
    }
}
