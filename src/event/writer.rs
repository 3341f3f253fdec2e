//! The buffer that an event is encoded in: the calling thread's own, and bounded.

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

/// A byte sink over a slice. A write that does not fit is discarded and sets `overflowed`.
pub(crate) struct Output<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) len: usize,
    pub(crate) overflowed: bool,
}

/// The buffer is full.
#[derive(Debug)]
pub(crate) struct Full;

impl<'a> Output<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            len: 0,
            overflowed: false,
        }
    }

    /// Appends `data`, or discards it if it does not fit. All encoder output passes through here: one comparison, one
    /// copy.
    #[inline]
    fn append(&mut self, data: &[u8]) -> Result<(), Full> {
        let end = self.len + data.len();
        if let Some(space) = self.bytes.get_mut(self.len..end) {
            space.copy_from_slice(data);
            self.len = end;
            Ok(())
        } else {
            self.overflowed = true;
            Err(Full)
        }
    }
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
        self.reason = Reason::default();
        self.is_truncated = false;
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
        if !is_plain(text) {
            return self.value(text);
        }
        let end = self.output.len + text.len() + 2;
        if let Some([first, middle @ .., last]) = self.output.bytes.get_mut(self.output.len..end) {
            *first = b'"';
            middle.copy_from_slice(text.as_bytes());
            *last = b'"';
            self.output.len = end;
            Ok(())
        } else {
            self.output.overflowed = true;
            Err(Failed)
        }
    }

    /// Writes a value as JSON. With `std`, a panic in its `Serialize` makes the event unencodable.
    #[inline]
    pub(crate) fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Failed> {
        let written = write_json(&mut self.output, value);
        self.written(written)
    }

    /// [`value`](Self::value), as separate machine code: a second caller would keep `value` from being inlined.
    pub(crate) fn value_outlined(
        &mut self,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Failed> {
        let written = write_json(Outlined(&mut self.output), value);
        self.written(written)
    }

    #[inline]
    fn written<E: fmt::Display, P>(
        &mut self,
        written: Result<Result<(), E>, P>,
    ) -> Result<(), Failed> {
        match written {
            // A `Serialize` may have ignored the error of a write that did not fit.
            Ok(Ok(())) => self.finish(),
            Ok(Err(error)) => Err(self.fail(error)),
            Err(_) => Err(self.fail("its Serialize implementation panicked")),
        }
    }
}

/// Whether a text needs no escaping in JSON.
#[inline]
pub(crate) fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    text.bytes()
        .fold(true, |so_far, byte| so_far & is_plain(byte))
}

/// The same output as a distinct type, so that serializers over it are compiled separately.
struct Outlined<'a, 'b>(&'a mut Output<'b>);

#[cfg(feature = "std")]
#[inline]
fn write_json(
    out: impl std::io::Write,
    value: &(impl Serialize + ?Sized),
) -> std::thread::Result<serde_json::Result<()>> {
    let encode = || serde_json::to_writer(out, value);
    // Half-written output is discarded, so no broken state is observed afterwards.
    crate::sys::panics::try_catch(encode)
}

#[cfg(not(feature = "std"))]
fn write_json(
    out: impl ser_write_json::SerWrite<Error = Full>,
    value: &(impl Serialize + ?Sized),
) -> Result<Result<(), ser_write_json::ser::Error<Full>>, core::convert::Infallible> {
    Ok(ser_write_json::to_writer(out, value))
}

#[cfg(feature = "std")]
impl std::io::Write for Outlined<'_, '_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.write(data)
    }

    fn write_all(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.0.write_all(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "std"))]
impl ser_write_json::SerWrite for Outlined<'_, '_> {
    type Error = Full;

    fn write(&mut self, data: &[u8]) -> Result<(), Full> {
        self.0.append(data)
    }
}

#[cfg(feature = "std")]
impl std::io::Write for Output<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.write_all(data).map(|()| data.len())
    }

    #[inline]
    fn write_all(&mut self, data: &[u8]) -> std::io::Result<()> {
        match self.append(data) {
            Ok(()) => Ok(()),
            Err(Full) => Err(std::io::ErrorKind::WriteZero.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "std"))]
impl ser_write_json::SerWrite for Output<'_> {
    type Error = Full;

    fn write(&mut self, data: &[u8]) -> Result<(), Full> {
        self.append(data)
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is full")
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
