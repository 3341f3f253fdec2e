//! Strings: in one copy where nothing needs to be escaped.

use super::JsonError;
use super::output::{Output, is_plain};
use crate::sys::stack::StackMark;
use core::fmt::{self, Write};

impl Output<'_> {
    /// Writes a string.
    #[inline]
    pub(crate) fn put_text(&mut self, text: &str) -> Result<(), JsonError> {
        if !is_plain(text) {
            return self.put_escaped(text);
        }
        let end = self.len + text.len() + 2;
        let Some([first, middle @ .., last]) = self.bytes.get_mut(self.len..end) else {
            return Err(self.full());
        };
        *first = b'"';
        middle.copy_from_slice(text.as_bytes());
        *last = b'"';
        self.len = end;
        Ok(())
    }

    /// Writes the byte before a key, the key and the colon after it.
    #[inline]
    pub(crate) fn put_key(&mut self, before: u8, key: &str) -> Result<(), JsonError> {
        if !is_plain(key) {
            self.put(&[before])?;
            self.put_escaped(key)?;
            return self.put(b":");
        }
        let end = self.len + key.len() + 4;
        let Some([first, second, middle @ .., third, last]) = self.bytes.get_mut(self.len..end)
        else {
            return Err(self.full());
        };
        [*first, *second, *third, *last] = [before, b'"', b'"', b':'];
        middle.copy_from_slice(key.as_bytes());
        self.len = end;
        Ok(())
    }

    #[cold]
    pub(crate) fn full(&mut self) -> JsonError {
        self.overflowed = true;
        JsonError::Full
    }

    fn put_escaped(&mut self, text: &str) -> Result<(), JsonError> {
        self.put(b"\"")?;
        self.put_escaped_part(text)?;
        self.put(b"\"")
    }

    /// Writes what a value displays.
    pub(super) fn put_display(&mut self, text: &dyn fmt::Display) -> Result<(), JsonError> {
        self.put(b"\"")?;
        let mut escaping = Escaping {
            out: self,
            started: StackMark::here(),
            result: Ok(()),
        };
        let displayed = write!(escaping, "{text}");
        escaping.result?;
        if displayed.is_err() {
            return Err(JsonError::Invalid("its Display implementation failed"));
        }
        self.put(b"\"")
    }

    fn put_escaped_part(&mut self, text: &str) -> Result<(), JsonError> {
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| is_escaped(*byte))
            && let Some((plain, [escaped, after @ ..])) = rest.split_at_checked(at)
        {
            self.put(plain)?;
            rest = after;
            let letter = match escaped {
                b'\x08' => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                b'\x0c' => b'f',
                b'\r' => b'r',
                b'"' | b'\\' => *escaped,
                control => {
                    let digit = b"0123456789abcdef"[usize::from(control & 15)];
                    self.put(&[b'\\', b'u', b'0', b'0', b'0' + (control >> 4), digit])?;
                    continue;
                }
            };
            self.put(&[b'\\', letter])?;
        }
        self.put(rest)
    }
}

fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Escapes what a value displays, until the buffer is full or the value recurses too deeply.
struct Escaping<'a, 'b> {
    out: &'a mut Output<'b>,
    started: StackMark,
    result: Result<(), JsonError>,
}

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A `Display` that goes on after an error gets another.
        if self.result.is_ok() {
            self.result = if self.started.is_far() {
                Err(self.out.too_deep())
            } else {
                self.out.put_escaped_part(text)
            };
        }
        match self.result {
            Ok(()) => Ok(()),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// The string that a value serializes as.
#[cfg(feature = "std")]
pub(crate) fn captured(
    value: &(impl serde::Serialize + ?Sized),
) -> Result<alloc::string::String, JsonError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => Ok(text),
        _ => Err(JsonError::BROKEN),
    }
}
