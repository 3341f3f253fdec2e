//! The buffer an event is encoded into, and JSON values written into it, never beyond its limit.

use crate::text::Why;
use serde::Serialize;

#[cfg(feature = "std")]
use alloc::vec::Vec;

/// What fits into a scratch buffer on the stack, where there is no thread-local one.
#[cfg(not(feature = "std"))]
pub(crate) const STACK: usize = 1024;

/// Why something could not be encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    TooLarge,
    Unencodable(Why),
}

/// Bytes up to a limit. What does not fit is not written and leaves a mark.
pub(crate) struct Scratch {
    bytes: Bytes,
    limit: usize,
    overflowed: bool,
}

#[cfg(feature = "std")]
type Bytes = Vec<u8>;

#[cfg(not(feature = "std"))]
type Bytes = stack::Bytes;

impl Scratch {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Bytes::new(),
            limit: 0,
            overflowed: false,
        }
    }

    /// Empties the buffer and sets its limit.
    pub(crate) fn reset(&mut self, limit: usize) {
        self.bytes.clear();
        self.limit = limit;
        self.overflowed = false;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Whether everything that was written is there.
    pub(crate) fn finish(&self) -> Result<(), EncodeError> {
        if self.overflowed {
            Err(EncodeError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Writes bytes as they are.
    #[inline]
    pub(crate) fn raw(&mut self, data: &[u8]) {
        let _ = self.append(data);
    }

    #[inline]
    fn append(&mut self, data: &[u8]) -> Result<(), Full> {
        let result = if data.len() > self.room() {
            Err(Full)
        } else {
            extend(&mut self.bytes, data)
        };
        self.overflowed |= result.is_err();
        result
    }

    /// Writes a value as JSON. A value that panics while it is serialized is unencodable (with `std`).
    pub(crate) fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), EncodeError> {
        match self.write_json(value) {
            Ok(()) => self.finish(),
            Err(_) if self.overflowed => Err(EncodeError::TooLarge),
            Err(why) => Err(EncodeError::Unencodable(why)),
        }
    }

    #[cfg(feature = "std")]
    fn write_json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Why> {
        let mut encode = || serde_json::to_writer(&mut *self, value);
        // A half-written buffer is thrown away, so nothing broken is seen afterwards.
        match std::panic::catch_unwind(core::panic::AssertUnwindSafe(&mut encode)) {
            Ok(result) => result.map_err(Why::new),
            Err(_) => Err(Why::new("its Serialize implementation panicked")),
        }
    }

    #[cfg(not(feature = "std"))]
    fn write_json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Why> {
        ser_write_json::to_writer(&mut *self, value).map_err(Why::new)
    }

    /// Lets go of a buffer that one large event has left behind.
    #[cfg(feature = "std")]
    fn trim(&mut self) {
        const KEEP: usize = 64 * 1024;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }
}

/// The limit is reached.
#[derive(Debug)]
pub(crate) struct Full;

#[cfg(feature = "std")]
#[inline]
fn extend(bytes: &mut Bytes, data: &[u8]) -> Result<(), Full> {
    bytes.extend_from_slice(data);
    Ok(())
}

#[cfg(not(feature = "std"))]
fn extend(bytes: &mut Bytes, data: &[u8]) -> Result<(), Full> {
    bytes.extend_from_slice(data)
}

#[cfg(feature = "std")]
impl std::io::Write for Scratch {
    #[inline]
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.write_all(data).map(|()| data.len())
    }

    #[inline]
    fn write_all(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.append(data)
            .map_err(|Full| std::io::ErrorKind::WriteZero.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `work` with this thread's scratch buffer.
///
/// Re-entry (a `Serialize` that logs) and a thread that is shutting down get a fresh buffer.
#[cfg(feature = "std")]
pub(crate) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    use alloc::boxed::Box;
    use core::cell::Cell;
    std::thread_local! {
        static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    }
    let mut scratch = SCRATCH
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_else(|| Box::new(Scratch::new()));
    let result = work(&mut scratch);
    scratch.trim();
    // Where the thread-local is gone, the buffer just goes with it.
    let _ = SCRATCH.try_with(|slot| slot.set(Some(scratch)));
    result
}

/// Runs `work` with a scratch buffer on the stack.
#[cfg(not(feature = "std"))]
pub(crate) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    work(&mut Scratch::new())
}

#[cfg(not(feature = "std"))]
mod stack {
    //! Bytes on the stack that move to the heap, where there is one, when they outgrow it.

    use super::{Full, STACK, Scratch};
    use core::fmt;
    use core::ops::Deref;

    pub(crate) struct Bytes {
        inline: heapless::Vec<u8, STACK>,
        #[cfg(feature = "alloc")]
        spilled: alloc::vec::Vec<u8>,
    }

    impl Bytes {
        pub(crate) const fn new() -> Self {
            Self {
                inline: heapless::Vec::new(),
                #[cfg(feature = "alloc")]
                spilled: alloc::vec::Vec::new(),
            }
        }

        pub(crate) fn clear(&mut self) {
            self.truncate(0);
        }

        pub(crate) fn truncate(&mut self, len: usize) {
            #[cfg(feature = "alloc")]
            if !self.spilled.is_empty() {
                self.spilled.truncate(len);
                return;
            }
            self.inline.truncate(len);
        }

        #[cfg(feature = "alloc")]
        pub(crate) fn extend_from_slice(&mut self, data: &[u8]) -> Result<(), Full> {
            if self.spilled.is_empty() {
                if self.inline.extend_from_slice(data).is_ok() {
                    return Ok(());
                }
                let needed = self.inline.len() + data.len();
                self.spilled
                    .try_reserve(needed.max(4 * STACK))
                    .map_err(|_| Full)?;
                self.spilled.extend_from_slice(&self.inline);
                self.inline.clear();
            }
            self.spilled.try_reserve(data.len()).map_err(|_| Full)?;
            self.spilled.extend_from_slice(data);
            Ok(())
        }

        #[cfg(not(feature = "alloc"))]
        pub(crate) fn extend_from_slice(&mut self, data: &[u8]) -> Result<(), Full> {
            self.inline.extend_from_slice(data).map_err(|_| Full)
        }
    }

    impl Deref for Bytes {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            #[cfg(feature = "alloc")]
            if !self.spilled.is_empty() {
                return &self.spilled;
            }
            &self.inline
        }
    }

    impl fmt::Display for Full {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the buffer is full")
        }
    }

    impl ser_write_json::SerWrite for Scratch {
        type Error = Full;

        fn write(&mut self, data: &[u8]) -> Result<(), Full> {
            self.append(data)
        }
    }
}
