//! Text: what programs give, and what diagnostics say in bounded length.

use core::fmt::{self, Write};
use core::ops::Deref;

#[cfg(feature = "alloc")]
use alloc::{borrow::Cow, string::String};

/// A string that the program gives: any string with `alloc`, a `&'static str` without.
///
/// It is made with `into()`, or with [`new`](Self::new) in a constant, and derefs to `str`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(Inner);

#[cfg(feature = "alloc")]
type Inner = Cow<'static, str>;
#[cfg(not(feature = "alloc"))]
type Inner = &'static str;

impl Str {
    /// A string that is part of the program. Allocates nothing.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        #[cfg(feature = "alloc")]
        return Self(Cow::Borrowed(text));
        #[cfg(not(feature = "alloc"))]
        return Self(text);
    }

    /// The string.
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

/// At most `N` bytes of UTF-8; what does not fit is cut off at a character boundary.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Text<const N: usize>(heapless::String<N, u16>);

/// The reason in an error or a diagnostic: at most 160 bytes, 64 where memory is scarce.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Why(Reason);

/// Reasons only come up when something has gone wrong, so with `alloc` they keep errors small.
#[cfg(feature = "alloc")]
type Reason = alloc::string::String;
#[cfg(not(feature = "alloc"))]
type Reason = Text<64>;

impl Why {
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

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Text whose control characters are blanks: reasons come from anywhere and go into logs.
struct OneLine<D>(D);

impl<D: fmt::Display> fmt::Display for OneLine<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Blanks<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Blanks<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for piece in text.split_inclusive(char::is_control) {
                    match piece.strip_suffix(char::is_control) {
                        Some(plain) => write!(self.0, "{plain} ")?,
                        None => self.0.write_str(piece)?,
                    }
                }
                Ok(())
            }
        }
        write!(Blanks(f), "{}", self.0)
    }
}

impl<const N: usize> Text<N> {
    pub(crate) fn new(value: impl fmt::Display) -> Self {
        let mut text = Self::default();
        // An error means that the text is full, or that the value's own `Display` failed: what was written stays.
        let _ = write!(text, "{value}");
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = N - self.0.len();
        let mut fits = room.min(piece.len());
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
        assert_eq!(Why::new("a\r\nb\u{1b}[2J").as_str(), "a  b [2J");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(Text::<4>::new("abc").as_str(), "abc");
        assert_eq!(Text::<4>::new("abcé").as_str(), "abc");
        assert_eq!(Text::<5>::new("abcéx").as_str(), "abcé");
    }
}
