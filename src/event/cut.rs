//! Texts cut to a number of bytes of JSON.

use crate::event::limits::MARK;
use crate::sys::stack::StackMark;
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
            started: StackMark::here(),
            result: Ok(()),
        };
        // It ends with an error where the text is cut. If `Display` itself fails, what it has written so far is better
        // than nothing.
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
    started: StackMark,
    /// The result of writing; an error of the text's own `Display` is ignored.
    result: fmt::Result,
}

impl Write for Cutter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A text that contains itself is cut where it recurses too deeply.
        self.is_cut |= self.started.is_far();
        if self.is_cut {
            return Err(fmt::Error);
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
        if self.is_cut {
            // What is left of the text is not even formatted.
            return Err(fmt::Error);
        }
        self.result
    }
}

/// Bytes that a text takes inside a JSON string.
pub(crate) fn json_len(text: &str) -> usize {
    text.chars().map(json_size).sum()
}

/// Bytes that a character takes inside a JSON string.
fn json_size(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use alloc::string::ToString;
    use core::cell::RefCell;

    /// How often a text writes a piece, until it is stopped.
    struct Counting<'a>(&'a Cell<u32>);

    impl fmt::Display for Counting<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for _ in 0..1_000_000 {
                self.0.set(self.0.get() + 1);
                f.write_str("0123456789")?;
            }
            Ok(())
        }
    }

    #[test]
    fn a_text_is_formatted_only_as_far_as_it_fits() {
        let pieces = Cell::new(0);
        let counting = Counting(&pieces);
        let cut = Cut::new(&counting, 64);
        let text = cut.to_string();
        assert!(text.starts_with("0123456789") && text.ends_with(MARK) && text.len() <= 64);
        assert!(cut.is_cut());
        assert!(pieces.get() <= 7, "{}", pieces.get());
    }

    struct Looped(RefCell<Option<Rc<Self>>>);

    impl fmt::Debug for Looped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("L").field(&self.0.borrow()).finish()
        }
    }

    #[test]
    fn a_text_that_contains_itself_is_cut_before_it_overflows_the_stack() {
        let looped = Rc::new(Looped(RefCell::new(None)));
        *looped.0.borrow_mut() = Some(Rc::clone(&looped));
        let text = Cut::new(&DebugOf(&looped), 64 << 20).to_string();
        assert!(text.starts_with("L(Some(L(Some(") && text.ends_with(MARK));
        looped.0.borrow_mut().take();
    }

    struct DebugOf<D>(D);

    impl<D: fmt::Debug> fmt::Display for DebugOf<D> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Debug::fmt(&self.0, f)
        }
    }
}
