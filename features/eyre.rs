//! eyre: logging and capture of `eyre::Report`.

use crate::event::Loggable;
use crate::event::exception::DynamicError;

/// Selects the implementation of [`Loggable`] for eyre's errors.
#[derive(Debug)]
pub enum ByEyre {}

impl Loggable<ByEyre> for eyre::Report {
    type Any<'a> = DynamicError<'a>;

    fn any(&self) -> DynamicError<'_> {
        DynamicError::new(self.as_ref())
    }
}
