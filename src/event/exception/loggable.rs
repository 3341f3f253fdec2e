//! What can be logged as an error, beyond what implements [`Error`].

#[cfg(feature = "alloc")]
use super::DynamicError;
use super::{AnyError, Blame, Stack, sealed};
#[cfg(feature = "alloc")]
use alloc::{boxed::Box, string::String};
use core::error::Error;
#[cfg(feature = "alloc")]
use core::fmt;

/// What [`log_exception`](crate::Handle::log_exception) and capture take for an error: every [`AnyError`], a boxed
/// `dyn Error`, a text, which becomes the message (both need `alloc`), and, with their features, an `anyhow::Error`, an `eyre::Report` and a
/// `surf::Error`.
///
/// `By` keeps these implementations apart; the compiler infers it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be logged as an error",
    label = "not an `Error`, a boxed one, a text, or a report whose feature is on",
    note = "implement `core::error::Error` for it, or log its text: `&error.to_string()`",
    note = "an error of anyhow, eyre or surf needs the feature of that name"
)]
pub trait Loggable<By> {
    /// The error, as a session takes it.
    #[doc(hidden)]
    type Any<'a>: AnyError
    where
        Self: 'a;

    #[doc(hidden)]
    fn any(&self) -> Self::Any<'_>;
}

/// Marks the [`Loggable`] of errors that implement [`Error`].
#[derive(Debug)]
pub enum ByError {}

impl<E: AnyError + ?Sized> Loggable<ByError> for E {
    type Any<'a>
        = Borrowed<'a, E>
    where
        E: 'a;

    #[inline]
    fn any(&self) -> Borrowed<'_, E> {
        Borrowed(self)
    }
}

/// A reference to an error. Not every one is an error itself: that of a trait object is none.
pub struct Borrowed<'a, E: ?Sized>(&'a E);

impl<E: ?Sized> sealed::Sealed for Borrowed<'_, E> {}

impl<E: AnyError + ?Sized> AnyError for Borrowed<'_, E> {
    #[inline]
    fn as_error(&self) -> &(dyn Error + 'static) {
        self.0.as_error()
    }

    #[inline]
    fn type_name(&self) -> Option<&'static str> {
        self.0.type_name()
    }

    #[inline]
    fn blame(&self) -> Option<Blame<'_>> {
        self.0.blame()
    }

    #[inline]
    fn stack(&self) -> Stack<'_> {
        self.0.stack()
    }

    #[inline]
    fn is_classified(&self) -> bool {
        self.0.is_classified()
    }
}

/// Marks the [`Loggable`] of boxed errors.
#[derive(Debug)]
pub enum ByBox {}

macro_rules! loggable_boxes {
    ($($object:ty),*) => {$(
        #[cfg(feature = "alloc")]
        impl Loggable<ByBox> for Box<$object> {
            type Any<'a> = DynamicError<'a>;

            fn any(&self) -> DynamicError<'_> {
                DynamicError::new(&**self)
            }
        }
    )*};
}

loggable_boxes!(
    dyn Error + 'static,
    dyn Error + Send + 'static,
    dyn Error + Send + Sync + 'static
);

/// Marks the [`Loggable`] of texts.
#[derive(Debug)]
pub enum ByText {}

#[cfg(feature = "alloc")]
macro_rules! loggable_texts {
    ($($text:ty: $name:literal),*) => {$(
        impl Loggable<ByText> for $text {
            type Any<'a>
                = TextError
            where
                Self: 'a;

            fn any(&self) -> TextError {
                TextError {
                    message: Message(String::from(AsRef::<str>::as_ref(self))),
                    type_name: $name,
                }
            }
        }
    )*};
}

#[cfg(feature = "alloc")]
loggable_texts!(String: "alloc::string::String", str: "str", &str: "&str");

/// A text as an error, with the type of the text.
#[cfg(feature = "alloc")]
pub struct TextError {
    message: Message,
    type_name: &'static str,
}

#[cfg(feature = "alloc")]
impl sealed::Sealed for TextError {}

#[cfg(feature = "alloc")]
impl AnyError for TextError {
    fn as_error(&self) -> &(dyn Error + 'static) {
        &self.message
    }

    fn type_name(&self) -> Option<&'static str> {
        Some(self.type_name)
    }
}

#[cfg(feature = "alloc")]
struct Message(String);

#[cfg(feature = "alloc")]
crate::text::debug_with_causes!(Message);

#[cfg(feature = "alloc")]
impl Error for Message {}

#[cfg(feature = "alloc")]
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
