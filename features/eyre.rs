//! eyre: reports of the application's, for capture.

use crate::capture::OnError;
use crate::capture::Outcome;
use crate::event::exception::DynamicError;

/// The errors of eyre.
#[derive(Debug)]
pub enum ByEyre {}

impl<T> Outcome<ByEyre> for Result<T, eyre::Report> {
    fn error(&self, found: OnError<'_>) {
        if let Err(report) = self {
            found(&DynamicError::new(report.as_ref()));
        }
    }
}
