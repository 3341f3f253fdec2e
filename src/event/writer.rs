//! The buffer that an event is encoded in: the calling thread's own, and bounded.

use crate::event::json::{Levels, Output};
use crate::sys::panics;
use crate::text::Reason;
use crate::time::{RFC3339_LEN, Rfc3339, Timestamp};
use core::fmt;
use serde::Serialize;

/// Size in bytes of the buffer on the stack, which replaces the thread-local one without `std`.
#[cfg(not(feature = "std"))]
pub(crate) const STACK: usize = 1024;

/// Why an event could not be encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    TooLarge,
    Unencodable(Reason),
}

/// An event could not be encoded. The reason is in [`EventWriter::error`], so that the success path does not pay for
/// it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// Writes one event into a buffer of fixed size.
pub(crate) struct EventWriter<'a> {
    pub(crate) output: Output<'a>,
    reason: Reason,
    is_truncated: bool,
    last_second: &'a mut Rfc3339,
}

impl<'a> EventWriter<'a> {
    fn new(bytes: &'a mut [u8], last_second: &'a mut Rfc3339) -> Self {
        Self {
            output: Output::new(bytes),
            reason: Reason::default(),
            is_truncated: false,
            last_second,
        }
    }

    /// Discards what was written.
    pub(crate) fn clear(&mut self) {
        self.output.len = 0;
        self.output.overflowed = false;
        self.output.is_too_deep = false;
        self.output.has_raw = false;
        self.reason = Reason::default();
        self.is_truncated = false;
    }

    /// Sets how deep objects and arrays in a value may nest.
    #[inline]
    pub(crate) fn set_max_depth(&mut self, depth: usize) {
        self.output.max_levels = Levels::of_depth(depth);
    }

    /// Whether encoding failed because a value nests too deeply.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.output.is_too_deep && !self.output.overflowed
    }

    /// Records whether something was left out to meet a limit.
    pub(crate) fn note_truncated(&mut self, is_truncated: bool) {
        self.is_truncated |= is_truncated;
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.output.bytes.get(..self.output.len).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.output.len
    }

    pub(crate) fn room(&self) -> usize {
        self.output.bytes.len() - self.output.len
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.output.len = len;
    }

    /// Fails if any write did not fit.
    pub(crate) fn finish(&self) -> Result<(), Failed> {
        if self.output.overflowed {
            Err(Failed)
        } else {
            Ok(())
        }
    }

    /// Why encoding failed.
    pub(crate) fn error(&mut self) -> EncodeError {
        if self.output.overflowed {
            EncodeError::TooLarge
        } else {
            EncodeError::Unencodable(core::mem::take(&mut self.reason))
        }
    }

    /// Records why the event cannot be encoded.
    #[cold]
    pub(crate) fn fail(&mut self, reason: impl fmt::Display) -> Failed {
        self.reason = Reason::new(reason);
        Failed
    }

    /// Writes bytes as they are.
    #[inline]
    pub(crate) fn raw(&mut self, data: &[u8]) {
        // `overflowed` records the failure.
        let _ = self.output.append(data);
    }

    /// Writes a timestamp between two pieces of text, with one bounds check.
    #[inline(always)]
    pub(crate) fn timestamp(&mut self, before: &str, at: Timestamp, after: &str) {
        let end = self.output.len + before.len() + RFC3339_LEN + after.len();
        if let Some(space) = self.output.bytes.get_mut(self.output.len..end)
            && let (before_space, space) = space.split_at_mut(before.len())
            && let Some((text, after_space)) = space.split_first_chunk_mut()
        {
            before_space.copy_from_slice(before.as_bytes());
            self.last_second.write(at, text);
            after_space.copy_from_slice(after.as_bytes());
            self.output.len = end;
        } else {
            self.output.overflowed = true;
        }
    }

    /// Writes a string as JSON.
    #[inline]
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failed> {
        self.output.put_text(text).map_err(|_| Failed)
    }

    /// Writes a value as JSON. With `std`, a panic in its `Serialize` makes the event unencodable.
    #[inline]
    pub(crate) fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Failed> {
        self.output.levels = self.output.max_levels;
        let output = &mut self.output;
        // Half-written output is discarded, so no broken state is observed after a panic.
        match panics::catch(|| value.serialize(output)) {
            // A `Display` may have ignored the error of a write that did not fit.
            Some(Ok(())) => self.finish(),
            Some(Err(error)) => Err(self.fail(error)),
            None => Err(self.fail("its Serialize implementation panicked")),
        }
    }

    /// Puts `head` before what was written from `start` on, and a closing brace after it.
    #[cfg(feature = "std")]
    #[cold]
    pub(crate) fn wrap(&mut self, start: usize, head: &[u8]) -> Result<(), Failed> {
        let end = self.output.len;
        self.raw(head);
        self.raw(b"}");
        self.finish()?;
        // The value and its head change places.
        if let Some(bytes) = self.output.bytes.get_mut(start..end + head.len()) {
            bytes.rotate_right(head.len());
        }
        Ok(())
    }
}

/// Runs `work` with this thread's buffer, of `limit` bytes.
///
/// Re-entrant calls (a `Serialize` that logs) and threads that are shutting down get a fresh one. Only the bytes in use
/// are touched.
#[cfg(feature = "std")]
pub(crate) fn with<R>(limit: usize, work: impl FnOnce(&mut EventWriter<'_>) -> R) -> R {
    use alloc::{boxed::Box, vec, vec::Vec};
    use core::cell::Cell;

    struct Buffer {
        bytes: Vec<u8>,
        last_second: Rfc3339,
    }
    std::thread_local! {
        static BUFFER: Cell<Option<Box<Buffer>>> = const { Cell::new(None) };
    }
    /// A buffer is freed after an event of more bytes.
    const MAX_KEPT: usize = 64 * 1024;

    let mut buffer = BUFFER
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_else(|| {
            Box::new(Buffer {
                bytes: Vec::new(),
                last_second: Rfc3339::new(),
            })
        });
    if buffer.bytes.len() < limit {
        buffer.bytes = vec![0; limit];
    }
    let Buffer { bytes, last_second } = &mut *buffer;
    let mut writer = EventWriter::new(&mut bytes[..limit], last_second);
    let result = work(&mut writer);
    if writer.len() > MAX_KEPT {
        buffer.bytes = Vec::new();
    }
    // Without the thread-local, the buffer is dropped.
    let _ = BUFFER.try_with(|slot| slot.set(Some(buffer)));
    result
}

/// Runs `work` with a buffer of `limit` bytes: on the stack up to 1 KiB, on the heap beyond; without `alloc`, of at
/// most 1 KiB.
#[cfg(not(feature = "std"))]
pub(crate) fn with<R>(limit: usize, work: impl FnOnce(&mut EventWriter<'_>) -> R) -> R {
    let mut last_second = Rfc3339::new();
    #[cfg(feature = "alloc")]
    if limit > STACK {
        let mut bytes = alloc::vec::Vec::new();
        if bytes.try_reserve_exact(limit).is_ok() {
            bytes.resize(limit, 0);
        }
        return work(&mut EventWriter::new(&mut bytes, &mut last_second));
    }
    let mut bytes = [0; STACK];
    let limit = limit.min(STACK);
    let bytes = bytes.get_mut(..limit).unwrap_or_default();
    work(&mut EventWriter::new(bytes, &mut last_second))
}

/// The bytes that `encode` writes into a buffer of `limit` bytes.
#[cfg(all(test, feature = "std"))]
pub(crate) fn encode_to_vec(
    limit: usize,
    encode: impl FnOnce(&mut EventWriter<'_>) -> Result<(), Failed>,
) -> Result<alloc::vec::Vec<u8>, EncodeError> {
    with(limit, |out| match encode(out) {
        Ok(()) => Ok(out.bytes().into()),
        Err(Failed) => Err(out.error()),
    })
}
