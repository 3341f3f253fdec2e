//! Texts cut to a number of bytes of JSON.

use crate::event::limits::MARK;
use core::cell::Cell;
use core::fmt::{self, Write};
use serde::{Serialize, Serializer};

/// Text that is cut where its JSON and a mark would exceed a limit, and then ends with the mark.
pub(crate) struct Cut<'a> {
    text: &'a dyn fmt::Display,
    limit: usize,
    is_cut: Cell<bool>,
}

impl<'a> Cut<'a> {
    /// At most `limit` bytes of JSON, quotes included.
    pub(crate) fn new(text: &'a dyn fmt::Display, limit: usize) -> Self {
        Self {
            text,
            limit,
            is_cut: Cell::new(false),
        }
    }

    /// Whether the last write cut it.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }
}

impl Serialize for Cut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self}"))
    }
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cutter = Cutter {
            out: f,
            room: self.limit.saturating_sub(2 + MARK.len()),
            is_cut: false,
            result: Ok(()),
        };
        // If `Display` fails, what it has written so far is better than nothing.
        let _ = write!(cutter, "{}", self.text);
        cutter.result?;
        if cutter.is_cut {
            self.is_cut.set(true);
            f.write_str(MARK)?;
        }
        Ok(())
    }
}

struct Cutter<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    room: usize,
    is_cut: bool,
    /// The result of writing; an error of the text's own `Display` is ignored.
    result: fmt::Result,
}

impl Write for Cutter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let mut end = 0;
        for character in text.chars() {
            let size = json_size(character);
            if size > self.room {
                self.is_cut = true;
                break;
            }
            self.room -= size;
            end += character.len_utf8();
        }
        self.result = self.result.and(self.out.write_str(&text[..end]));
        self.result
    }
}

/// Bytes that a character takes inside a JSON string.
fn json_size(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}
