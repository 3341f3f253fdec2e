//! Texts cut to a number of bytes.

use super::MARK;
use crate::sys::stack::StackMark;
use crate::text::Text;
use core::fmt::{self, Write};

/// A text cut to a limit, including the mark.
pub(super) struct CutText<D> {
    pub(super) text: D,
    pub(super) limit: usize,
    /// The position of a key, which keeps keys distinct that are cut to the same text.
    pub(super) key_index: Option<usize>,
}

impl<D: fmt::Display> fmt::Display for CutText<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.key_index {
            None => Text::<32>::new(MARK),
            Some(index) => Text::new(format_args!("… (cut {index})")),
        };
        let room = self.limit.saturating_sub(mark.as_str().len());
        let mut head = Head {
            out: f,
            room,
            started: StackMark::here(),
        };
        // The write ends with an error once the room is used up.
        let _ = write!(head, "{}", self.text);
        f.write_str(mark.as_str())
    }
}

/// Passes on the beginning of a text, as far as there is room.
struct Head<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    room: usize,
    started: StackMark,
}

impl Write for Head<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.started.is_far() {
            self.room = 0;
        }
        let mut end = self.room.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.out.write_str(&text[..end])?;
        self.room -= end;
        if end == text.len() {
            return Ok(());
        }
        self.room = 0;
        Err(fmt::Error)
    }
}

/// Whether a text is longer than `limit` bytes, or recurses too deeply; it is only counted, not stored.
pub(super) fn is_longer(text: &impl fmt::Display, limit: usize) -> bool {
    struct Count {
        room: usize,
        is_over: bool,
        started: StackMark,
    }
    impl Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            match self.room.checked_sub(text.len()) {
                Some(room) if !self.started.is_far() => self.room = room,
                _ => self.is_over = true,
            }
            if self.is_over {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }
    let mut count = Count {
        room: limit,
        is_over: false,
        started: StackMark::here(),
    };
    let _ = write!(count, "{text}");
    count.is_over
}
