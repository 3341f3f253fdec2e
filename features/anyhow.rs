//! anyhow: logging and capture of `anyhow::Error`.

use crate::event::Loggable;
use crate::event::exception::DynamicError;
use crate::sys::backtrace;

/// Selects the implementation of [`Loggable`] for anyhow's errors.
#[derive(Debug)]
pub enum ByAnyhow {}

impl Loggable<ByAnyhow> for anyhow::Error {
    type Any<'a> = DynamicError<'a>;

    fn any(&self) -> DynamicError<'_> {
        DynamicError {
            stack: backtrace::captured(self.backtrace()),
            ..DynamicError::new(self.as_ref())
        }
    }
}
