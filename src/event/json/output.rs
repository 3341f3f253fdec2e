//! The buffer that JSON is written to.

use super::{JsonError, Levels};

/// A byte sink over a slice. A write that does not fit is discarded and sets `overflowed`.
pub(crate) struct Output<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) len: usize,
    pub(crate) overflowed: bool,
    /// How much more the value that is being written may nest.
    pub(crate) levels: Levels,
    /// What each value starts with.
    pub(crate) max_levels: Levels,
    /// Whether a value, or the text of one, would have nested deeper.
    pub(crate) is_too_deep: bool,
    /// Whether JSON was written that this crate has not encoded itself.
    pub(crate) has_raw: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        let levels = Levels::of_depth(usize::MAX);
        Self {
            bytes,
            len: 0,
            overflowed: false,
            levels,
            max_levels: levels,
            is_too_deep: false,
            has_raw: false,
        }
    }

    /// Appends `data`, or discards it if it does not fit. Nearly all encoder output passes through here: one
    /// comparison, one copy.
    #[inline]
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), JsonError> {
        let end = self.len + data.len();
        if let Some(space) = self.bytes.get_mut(self.len..end) {
            space.copy_from_slice(data);
            self.len = end;
            Ok(())
        } else {
            Err(self.full())
        }
    }
}

/// Whether a text needs no escaping in JSON.
#[inline]
pub(super) fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    text.bytes()
        .fold(true, |so_far, byte| so_far & is_plain(byte))
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
            Err(_) => Err(std::io::ErrorKind::WriteZero.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
