//! Finding an error in the value of a captured block or future.

use crate::event::exception::{AnyError, Loggable};

/// A value that may hold an error to log: every `Result` whose error is [`Loggable`]: an error, a boxed
/// `dyn Error`, a text or, with their features, an `anyhow::Error`, an `eyre::Report` or a `surf::Error`.
///
/// `By` keeps these implementations apart; the compiler infers it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no error that capture could report",
    label = "not a `Result` whose error is an `Error`, a boxed one, a text, or a report whose feature is on",
    note = "for a closure or a future with another value use `run_plain`, `future_plain` or `spawn_plain`; a block that never returns needs an explicit type"
)]
pub trait Outcome<By> {
    /// Calls `on_error` with the error, if there is one.
    #[doc(hidden)]
    fn error(&self, on_error: OnError<'_>);
}

/// A callback that receives the error.
pub type OnError<'a> = &'a mut dyn FnMut(&dyn AnyError);

impl<T, E: Loggable<By>, By> Outcome<By> for Result<T, E> {
    fn error(&self, on_error: OnError<'_>) {
        if let Err(error) = self {
            on_error(&error.any());
        }
    }
}

/// Marks the [`Outcome`] of blocks that never return, or return `()`.
#[derive(Debug)]
pub enum ByNever {}

/// The type of a block that never returns, where the context expects no other.
impl Outcome<ByNever> for () {
    fn error(&self, _: OnError<'_>) {}
}

/// Names the never type, which stable Rust does not let an `impl` name directly.
pub trait Returns {
    /// The return type.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

impl Outcome<ByNever> for <fn() -> ! as Returns>::Output {
    fn error(&self, _: OnError<'_>) {
        match *self {}
    }
}

/// Autoref specialization for the macros, which take blocks of any type: on `&Probe(value)`, method lookup finds
/// [`SomeOutcome::error`] if the value is an [`Outcome`], and otherwise, one autoref later, [`NoOutcome::error`].
#[derive(Debug)]
pub struct Probe<'a, R>(pub &'a R);

/// Implemented for a [`Probe`] of an [`Outcome`].
#[diagnostic::on_unimplemented(
    message = "capture cannot tell whether the block's value holds an error",
    label = "say the value's type in full where the block ends, as in `Ok::<_, Error>(value)`"
)]
pub trait SomeOutcome<By> {
    /// See [`Outcome::error`].
    fn error(&self, on_error: OnError<'_>);
}

impl<R: Outcome<By>, By> SomeOutcome<By> for Probe<'_, R> {
    fn error(&self, on_error: OnError<'_>) {
        self.0.error(on_error);
    }
}

/// Implemented for a reference to any [`Probe`], so method lookup finds it second: the value is a plain one.
pub trait NoOutcome {
    /// Does nothing.
    fn error(&self, _: OnError<'_>) {}
}

impl<R> NoOutcome for &Probe<'_, R> {}
