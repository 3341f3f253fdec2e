//! eyre: reports of the application's, for capture.

use crate::Outcome;
use crate::capture::Found;
use crate::event::exception::Dynamic;

/// The errors of eyre.
#[derive(Debug)]
pub enum ByEyre {}

impl<T> Outcome<ByEyre> for Result<T, eyre::Report> {
    fn error(&self, found: Found<'_>) {
        if let Err(report) = self {
            found(&Dynamic::new(report.as_ref()));
        }
    }
}
