//! eyre: reports of the application's, for capture.

use crate::Outcome;
use crate::capture::Found;
use crate::exception::{AnyError, sealed::Sealed};
use core::error::Error;

/// The errors of eyre.
#[derive(Debug)]
pub enum ByEyre {}

impl<T> Outcome<ByEyre> for Result<T, eyre::Report> {
    fn error(&self, found: Found<'_>) {
        if let Err(report) = self {
            found(&Eyre(report));
        }
    }
}

struct Eyre<'a>(&'a eyre::Report);

impl Sealed for Eyre<'_> {}

impl AnyError for Eyre<'_> {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self.0.as_ref()
    }

    fn type_name(&self) -> Option<&'static str> {
        None
    }
}
