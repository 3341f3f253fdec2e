//! Text: strings passed by the program, and reasons of bounded length for diagnostics.

pub(crate) mod near;

use core::error::Error;
use core::fmt::{self, Write};
use core::ops::Deref;

#[cfg(feature = "alloc")]
use alloc::{borrow::Cow, string::String};

/// A string passed by the program: any string with `alloc`, a `&'static str` without.
///
/// Create one with `into()`, or with [`new`](Self::new) in a constant. Derefs to `str`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(Inner);

#[cfg(feature = "alloc")]
type Inner = Cow<'static, str>;
#[cfg(not(feature = "alloc"))]
type Inner = &'static str;

impl Str {
    /// Wraps a static string without allocating.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        #[cfg(feature = "alloc")]
        return Self(Cow::Borrowed(text));
        #[cfg(not(feature = "alloc"))]
        return Self(text);
    }

    /// Returns the string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        #[cfg(feature = "alloc")]
        return &self.0;
        #[cfg(not(feature = "alloc"))]
        return self.0;
    }
}

impl From<&'static str> for Str {
    fn from(text: &'static str) -> Self {
        Self::new(text)
    }
}

#[cfg(feature = "alloc")]
impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

#[cfg(feature = "alloc")]
impl From<Cow<'static, str>> for Str {
    fn from(text: Cow<'static, str>) -> Self {
        Self(text)
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// At most `N` bytes of UTF-8; longer text is cut at a character boundary.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Text<const N: usize>(heapless::String<N, u16>);

/// The reason in an error or a diagnostic: at most 160 bytes, 64 where memory is scarce.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Reason(ReasonText);

/// Reasons occur only on failure, so with `alloc` they are on the heap to keep errors small.
#[cfg(feature = "alloc")]
type ReasonText = alloc::string::String;
#[cfg(not(feature = "alloc"))]
type ReasonText = Text<64>;

impl Reason {
    pub(crate) fn new(value: impl fmt::Display) -> Self {
        let value = OneLine(value);
        #[cfg(feature = "alloc")]
        return Self(Text::<160>::new(value).as_str().into());
        #[cfg(not(feature = "alloc"))]
        return Self(Text::new(value));
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// An error and its causes on one line, bounded: what `Debug` of this crate's errors shows, because it is what a `main`
/// that returns one prints.
pub(crate) struct WithCauses<'a>(pub(crate) &'a dyn Error);

impl WithCauses<'_> {
    /// The causes shown at most: a chain may be a loop.
    const MAX_CAUSES: usize = 8;
}

/// The bytes shown at most of an error, and of each of its causes.
const MAX_ERROR_BYTES: usize = if cfg!(feature = "alloc") { 400 } else { 96 };

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = Some(self.0);
        let mut separator = "";
        for _ in 0..=Self::MAX_CAUSES {
            let Some(error) = next else { break };
            let text = Text::<MAX_ERROR_BYTES>::new(OneLine(error));
            write!(f, "{separator}{text}")?;
            separator = ", caused by: ";
            next = error.source();
        }
        Ok(())
    }
}

/// The precision with which `Debug` is asked for the name of an error's type. Errors of this crate whose `Debug` writes
/// something else first answer with the name, since behind a trait object nothing else tells it.
pub(crate) const ASKS_FOR_TYPE: usize = 0xE770;

/// Implements `Debug` of errors by [`WithCauses`].
macro_rules! debug_with_causes {
    ($($error:ident),+ $(,)?) => {$(
        impl ::core::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                if f.precision() == Some($crate::text::ASKS_FOR_TYPE) {
                    return f.write_str(stringify!($error));
                }
                ::core::fmt::Display::fmt(&$crate::text::WithCauses(self), f)
            }
        }
    )+};
}
pub(crate) use debug_with_causes;

/// Displays control characters as spaces, and characters that cannot be seen or that reorder those around them as
/// escapes: reasons are arbitrary text and end up in logs, where they must not pass for something else.
struct OneLine<D>(D);

impl<D: fmt::Display> fmt::Display for OneLine<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Spaces<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Spaces<'_, '_> {
            /// Spaces alone, where code size matters.
            #[cfg(not(feature = "std"))]
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|character| {
                    let is_shown = !is_unprintable(character);
                    self.0.write_char(if is_shown { character } else { ' ' })
                })
            }

            #[cfg(feature = "std")]
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for piece in text.split_inclusive(is_unprintable) {
                    let mut characters = piece.chars();
                    match characters.next_back() {
                        Some(last) if is_unprintable(last) => {
                            self.0.write_str(characters.as_str())?;
                            if last.is_control() {
                                self.0.write_str(" ")?;
                            } else {
                                write!(self.0, "{}", last.escape_unicode())?;
                            }
                        }
                        _ => self.0.write_str(piece)?,
                    }
                }
                Ok(())
            }
        }
        write!(Spaces(f), "{}", self.0)
    }
}

/// Whether a character is a control character, or one of the most common that are invisible or change the direction of
/// text.
#[cfg(not(feature = "std"))]
fn is_unprintable(character: char) -> bool {
    matches!(character, '\0'..' ' | '\u{7f}'..'\u{a0}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{206f}' | '\u{feff}')
}

/// Whether a character is a control character, is invisible, or changes the direction of text.
#[cfg(feature = "std")]
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

impl<const N: usize> Text<N> {
    pub(crate) fn new(value: impl fmt::Display) -> Self {
        let mut text = Self::default();
        // An error means that the text is full or that the value's `Display` failed: what was written so far stays.
        let _ = write!(text, "{value}");
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let available = N - self.0.len();
        let mut fits = available.min(piece.len());
        while !piece.is_char_boundary(fits) {
            fits -= 1;
        }
        let _ = self.0.push_str(&piece[..fits]);
        if fits == piece.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(Reason::new("a\r\nb\u{1b}[2J").as_str(), "a  b [2J");
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_reason_shows_what_cannot_be_seen() {
        assert_eq!(
            Reason::new("a\u{202e}b\u{200b}\u{feff}é\u{e0041}").as_str(),
            "a\\u{202e}b\\u{200b}\\u{feff}é\\u{e0041}"
        );
        assert_eq!(Reason::new("2066 \u{2066}").as_str(), "2066 \\u{2066}");
    }

    struct Chained(&'static str, Option<&'static Chained>);

    impl fmt::Display for Chained {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Chained {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            match self.1 {
                Some(source) => Some(source),
                None if self.0 == "itself" => {
                    static ITSELF: Chained = Chained("itself", None);
                    Some(&ITSELF)
                }
                None => None,
            }
        }
    }

    debug_with_causes!(Chained);

    #[cfg(feature = "alloc")]
    #[test]
    fn debug_of_an_error_is_one_line_with_its_causes_and_bounded() {
        static INNER: Chained = Chained("in\nner", None);
        static MIDDLE: Chained = Chained("middle", Some(&INNER));
        let shown = alloc::format!("{:?}", Chained("outer", Some(&MIDDLE)));
        assert_eq!(shown, "outer, caused by: middle, caused by: in ner");
        assert_eq!(
            alloc::format!("{:#?}", Chained("outer", Some(&MIDDLE))),
            shown
        );
        let shown = alloc::format!("{:?}", Chained("itself", None));
        assert_eq!(shown.matches("itself").count(), 9);
        let long: &'static str = alloc::string::String::leak("x".repeat(100_000));
        assert_eq!(alloc::format!("{:?}", Chained(long, None)).len(), 400);
    }

    #[test]
    fn long_text_is_cut_at_a_character_boundary() {
        assert_eq!(Text::<4>::new("abc").as_str(), "abc");
        assert_eq!(Text::<4>::new("abcé").as_str(), "abc");
        assert_eq!(Text::<5>::new("abcéx").as_str(), "abcé");
    }
}
