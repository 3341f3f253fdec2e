//! Where an event is encoded: a buffer of the calling thread's, and JSON values written into it, never beyond a limit.

use crate::text::Why;
#[cfg(feature = "std")]
use crate::time;
use crate::time::{RFC3339_LEN, Rfc3339, Timestamp};
use core::fmt;
use serde::Serialize;

/// What fits into a buffer on the stack, where there is no thread-local one.
#[cfg(not(feature = "std"))]
pub(crate) const STACK: usize = 1024;

/// Why something could not be encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    TooLarge,
    Unencodable(Why),
}

/// Something could not be encoded; [`Scratch::error`] says why, so that this path costs the usual one nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// What is written so far, and the room that is left.
pub(crate) struct Scratch<'a> {
    out: Output<'a>,
    why: Why,
    is_truncated: bool,
    last_second: &'a mut Rfc3339,
}

/// Bytes up to the length of a slice. What does not fit is not written and leaves a mark.
struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

/// There is no room.
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

    /// One comparison and one copy: everything an encoder writes passes here.
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

impl<'a> Scratch<'a> {
    fn new(bytes: &'a mut [u8], last_second: &'a mut Rfc3339) -> Self {
        Self {
            out: Output::new(bytes),
            why: Why::default(),
            is_truncated: false,
            last_second,
        }
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.out.len = 0;
        self.out.overflowed = false;
        self.why = Why::default();
        self.is_truncated = false;
    }

    /// Notes that something was left out to keep a limit.
    pub(crate) fn note_truncated(&mut self, is_truncated: bool) {
        self.is_truncated |= is_truncated;
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.out.bytes.get(..self.out.len).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len
    }

    pub(crate) fn room(&self) -> usize {
        self.out.bytes.len() - self.out.len
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.out.len = len;
    }

    /// Whether everything that was written is there.
    pub(crate) fn finish(&self) -> Result<(), Failed> {
        if self.out.overflowed {
            Err(Failed)
        } else {
            Ok(())
        }
    }

    /// What has failed.
    pub(crate) fn error(&mut self) -> EncodeError {
        if self.out.overflowed {
            EncodeError::TooLarge
        } else {
            EncodeError::Unencodable(core::mem::take(&mut self.why))
        }
    }

    /// What was written cannot be sent, for this reason.
    #[cold]
    pub(crate) fn fail(&mut self, why: impl fmt::Display) -> Failed {
        self.why = Why::new(why);
        Failed
    }

    /// Writes bytes as they are.
    #[inline]
    pub(crate) fn raw(&mut self, data: &[u8]) {
        // It leaves its mark.
        let _ = self.out.append(data);
    }

    /// Writes a timestamp between two pieces of text, in one step.
    #[inline(always)]
    pub(crate) fn timestamp(&mut self, before: &str, at: Timestamp, after: &str) {
        let end = self.out.len + before.len() + RFC3339_LEN + after.len();
        if let Some(space) = self.out.bytes.get_mut(self.out.len..end)
            && let (before_space, space) = space.split_at_mut(before.len())
            && let Some((text, after_space)) = space.split_first_chunk_mut()
        {
            before_space.copy_from_slice(before.as_bytes());
            self.last_second.write(at, text);
            after_space.copy_from_slice(after.as_bytes());
            self.out.len = end;
        } else {
            self.out.overflowed = true;
        }
    }

    /// Writes a string as JSON.
    #[inline]
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failed> {
        if !is_plain(text) {
            return self.value(text);
        }
        let end = self.out.len + text.len() + 2;
        if let Some([first, middle @ .., last]) = self.out.bytes.get_mut(self.out.len..end) {
            *first = b'"';
            middle.copy_from_slice(text.as_bytes());
            *last = b'"';
            self.out.len = end;
            Ok(())
        } else {
            self.out.overflowed = true;
            Err(Failed)
        }
    }

    /// Writes a number in decimal.
    #[cfg(feature = "std")]
    #[allow(dead_code, reason = "for adapters")]
    #[inline]
    pub(crate) fn number(&mut self, value: u64) {
        let mut text = [0; 20];
        let len = value.checked_ilog10().unwrap_or(0) as usize + 1;
        let text = &mut text[..len];
        time::digits(text, value);
        self.raw(text);
    }

    /// Writes a key of an object behind what stands before it, in one step.
    #[cfg(feature = "std")]
    #[allow(dead_code, reason = "for adapters")]
    #[inline]
    pub(crate) fn key(&mut self, before: u8, key: &str) -> Result<(), Failed> {
        if !is_plain(key) {
            self.raw(&[before]);
            self.value(key)?;
            self.raw(b":");
            return Ok(());
        }
        let end = self.out.len + key.len() + 4;
        if let Some([first, second, middle @ .., third, last]) =
            self.out.bytes.get_mut(self.out.len..end)
        {
            [*first, *second, *third, *last] = [before, b'"', b'"', b':'];
            middle.copy_from_slice(key.as_bytes());
            self.out.len = end;
            Ok(())
        } else {
            self.out.overflowed = true;
            Err(Failed)
        }
    }

    /// Writes a value as JSON. A value that panics while it is serialized is unencodable (with `std`).
    #[inline]
    pub(crate) fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Failed> {
        let written = write_json(&mut self.out, value);
        self.written(written)
    }

    /// [`value`](Self::value), with machine code of its own: what is shared with it cannot be inlined there.
    pub(crate) fn value_apart(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Failed> {
        let written = write_json(Apart(&mut self.out), value);
        self.written(written)
    }

    #[inline]
    fn written<E: fmt::Display, P>(
        &mut self,
        written: Result<Result<(), E>, P>,
    ) -> Result<(), Failed> {
        match written {
            // A `Serialize` may have passed over the error of a write that found no room.
            Ok(Ok(())) => self.finish(),
            Ok(Err(error)) => Err(self.fail(error)),
            Err(_) => Err(self.fail("its Serialize implementation panicked")),
        }
    }
}

/// Whether a text is its own JSON, but for the quotes.
#[inline]
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    text.bytes()
        .fold(true, |so_far, byte| so_far & is_plain(byte))
}

/// Another name for the same output.
struct Apart<'a, 'b>(&'a mut Output<'b>);

#[cfg(feature = "std")]
#[inline]
fn write_json(
    out: impl std::io::Write,
    value: &(impl Serialize + ?Sized),
) -> std::thread::Result<serde_json::Result<()>> {
    let encode = || serde_json::to_writer(out, value);
    // What is half written is thrown away, so nothing broken is seen afterwards.
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(encode))
}

#[cfg(not(feature = "std"))]
fn write_json(
    out: impl ser_write_json::SerWrite<Error = Full>,
    value: &(impl Serialize + ?Sized),
) -> Result<Result<(), ser_write_json::ser::Error<Full>>, core::convert::Infallible> {
    Ok(ser_write_json::to_writer(out, value))
}

#[cfg(feature = "std")]
impl std::io::Write for Apart<'_, '_> {
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
impl ser_write_json::SerWrite for Apart<'_, '_> {
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

/// Runs `work` with a buffer of `limit` bytes, this thread's own.
///
/// Re-entry (a `Serialize` that logs) and a thread that is shutting down get a fresh one. Its memory is only touched as
/// far as it is used.
#[cfg(feature = "std")]
pub(crate) fn with<R>(limit: usize, work: impl FnOnce(&mut Scratch<'_>) -> R) -> R {
    use alloc::{boxed::Box, vec, vec::Vec};
    use core::cell::Cell;

    struct Kept {
        bytes: Vec<u8>,
        last_second: Rfc3339,
    }
    std::thread_local! {
        static KEPT: Cell<Option<Box<Kept>>> = const { Cell::new(None) };
    }
    /// A buffer in which more than this was written is not kept.
    const KEEP: usize = 64 * 1024;

    let mut kept = KEPT.try_with(Cell::take).ok().flatten().unwrap_or_else(|| {
        Box::new(Kept {
            bytes: Vec::new(),
            last_second: Rfc3339::new(),
        })
    });
    if kept.bytes.len() < limit {
        kept.bytes = vec![0; limit];
    }
    let Kept { bytes, last_second } = &mut *kept;
    let mut scratch = Scratch::new(&mut bytes[..limit], last_second);
    let result = work(&mut scratch);
    if scratch.len() > KEEP {
        kept.bytes = Vec::new();
    }
    // Where the thread-local is gone, the buffer just goes with it.
    let _ = KEPT.try_with(|slot| slot.set(Some(kept)));
    result
}

/// Runs `work` with a buffer of `limit` bytes: on the stack up to 1 KiB, on the heap beyond.
#[cfg(not(feature = "std"))]
pub(crate) fn with<R>(limit: usize, work: impl FnOnce(&mut Scratch<'_>) -> R) -> R {
    let mut last_second = Rfc3339::new();
    #[cfg(feature = "alloc")]
    if limit > STACK {
        let mut bytes = alloc::vec::Vec::new();
        if bytes.try_reserve_exact(limit).is_ok() {
            bytes.resize(limit, 0);
        }
        return work(&mut Scratch::new(&mut bytes, &mut last_second));
    }
    let mut bytes = [0; STACK];
    let limit = limit.min(STACK);
    let bytes = bytes.get_mut(..limit).unwrap_or_default();
    work(&mut Scratch::new(bytes, &mut last_second))
}

/// What `encode` writes, within a limit.
#[cfg(all(test, feature = "std"))]
pub(crate) fn encoded(
    limit: usize,
    encode: impl FnOnce(&mut Scratch<'_>) -> Result<(), Failed>,
) -> Result<alloc::vec::Vec<u8>, EncodeError> {
    with(limit, |out| match encode(out) {
        Ok(()) => Ok(out.bytes().into()),
        Err(Failed) => Err(out.error()),
    })
}
