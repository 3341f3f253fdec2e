//! Texts of bounded length.

use super::MARK;
use crate::text::Text;
use core::fmt::{self, Write};

/// A text that is cut to the limit, mark included.
pub(super) struct CutText<D> {
    pub(super) text: D,
    pub(super) limit: usize,
    /// For a key, its place: what keys were cut to must differ.
    pub(super) place: Option<usize>,
}

impl<D: fmt::Display> fmt::Display for CutText<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.place {
            None => Text::<32>::new(MARK),
            Some(place) => Text::new(format_args!("… (cut {place})")),
        };
        let room = self.limit.saturating_sub(mark.as_str().len());
        let mut head = Head { out: f, room };
        // It stops with an error where there is no more room.
        let _ = write!(head, "{}", self.text);
        f.write_str(mark.as_str())
    }
}

/// Takes the beginning of a text, and no more than there is room for.
struct Head<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    room: usize,
}

impl Write for Head<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
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

/// Whether a text is longer than so many bytes, without writing it anywhere.
pub(super) fn is_longer(text: &impl fmt::Display, limit: usize) -> bool {
    struct Count {
        room: usize,
        is_over: bool,
    }
    impl Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            match self.room.checked_sub(text.len()) {
                Some(room) => self.room = room,
                None => self.is_over = true,
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
    };
    let _ = write!(count, "{text}");
    count.is_over
}
