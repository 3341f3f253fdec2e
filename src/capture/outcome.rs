//! What capture sees in the value that a block or a future comes to.

use crate::event::exception::AnyError;
#[cfg(feature = "alloc")]
use crate::event::exception::Dynamic;
use core::error::Error;

#[cfg(feature = "alloc")]
use alloc::boxed::Box;

/// What capture takes an error out of: every `Result` whose error is an [`Error`], a boxed `dyn Error`, and with their
/// features an `anyhow::Error`, an `eyre::Report` or a `surf::Error`.
///
/// `By` only tells these kinds apart; the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no error that capture could report",
    label = "not a `Result` of an `Error`, of a boxed one, or of a report whose feature is on",
    note = "a closure or a future that comes to another value goes into `run_plain`, `future_plain` or `spawn_plain`; a block that never ends needs the type of what surrounds it"
)]
pub trait Outcome<By> {
    /// Gives the error, if there is one, to `found`.
    #[doc(hidden)]
    fn error(&self, found: Found<'_>);
}

/// Takes an error.
pub type Found<'a> = &'a mut dyn FnMut(&dyn AnyError);

/// The errors that are [`Error`]s.
#[derive(Debug)]
pub enum ByError {}

impl<T, E: Error + 'static> Outcome<ByError> for Result<T, E> {
    fn error(&self, found: Found<'_>) {
        if let Err(error) = self {
            found(error);
        }
    }
}

/// The boxed ones.
#[derive(Debug)]
pub enum ByBox {}

macro_rules! outcome_of_boxes {
    ($($object:ty),*) => {$(
        #[cfg(feature = "alloc")]
        impl<T> Outcome<ByBox> for Result<T, Box<$object>> {
            fn error(&self, found: Found<'_>) {
                if let Err(error) = self {
                    found(&Dynamic::new(&**error));
                }
            }
        }
    )*};
}

outcome_of_boxes!(
    dyn Error + 'static,
    dyn Error + Send + 'static,
    dyn Error + Send + Sync + 'static
);

/// A block that never ends normally, or comes to nothing.
#[derive(Debug)]
pub enum ByNever {}

/// A block that never ends normally has this type where nothing is expected of it.
impl Outcome<ByNever> for () {
    fn error(&self, _: Found<'_>) {}
}

/// Names the never type, which has no name of its own yet where a trait is implemented for it.
pub trait Returns {
    /// What it returns.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

impl Outcome<ByNever> for <fn() -> ! as Returns>::Output {
    fn error(&self, _: Found<'_>) {
        match *self {}
    }
}

/// A value of which the macros do not know yet whether it is an [`Outcome`].
#[derive(Debug)]
pub struct Probe<'a, R>(pub &'a R);

/// It is one.
pub trait SomeOutcome<By> {
    /// See [`Outcome::error`].
    fn error(&self, found: Found<'_>);
}

impl<R: Outcome<By>, By> SomeOutcome<By> for Probe<'_, R> {
    fn error(&self, found: Found<'_>) {
        self.0.error(found);
    }
}

/// It is a plain value. As this is a trait of the reference, it comes second when a method is looked for.
pub trait NoOutcome {
    /// Finds nothing.
    fn error(&self, _: Found<'_>) {}
}

impl<R> NoOutcome for &Probe<'_, R> {}
