//! The memory of a ring: of a fixed size, or growing up to a limit, where sessions are shared.

#[cfg(not(has_arc))]
pub(crate) use fixed::Storage;
#[cfg(all(test, has_arc))]
pub(crate) use growing::INITIAL;
#[cfg(has_arc)]
pub(crate) use growing::Storage;

/// The record does not fit: the limit is reached, or memory to grow cannot be allocated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

#[cfg(has_arc)]
mod growing {
    use super::NoRoom;
    use alloc::vec::Vec;

    /// The first allocation of growing storage in bytes, unless its limit is lower.
    pub(crate) const INITIAL: usize = 64 * 1024;

    pub(crate) enum Storage {
        /// The program's memory, of fixed size.
        Static(&'static mut [u8]),
        /// Starts empty and doubles up to its limit. Bytes beyond `len` were never touched, so they cost no memory.
        Boxed { bytes: Vec<u8>, limit: usize },
    }

    impl Storage {
        pub(crate) const fn fixed(bytes: &'static mut [u8]) -> Self {
            Self::Static(bytes)
        }

        pub(crate) const fn growing(limit: usize) -> Self {
            Self::Boxed {
                bytes: Vec::new(),
                limit,
            }
        }

        /// Adds `reserve` bytes to the limit. Fixed storage includes them already.
        pub(crate) fn with_reserve(mut self, reserve: usize) -> Self {
            if let Self::Boxed { limit, .. } = &mut self {
                *limit += reserve;
            }
            self
        }

        pub(in crate::engine) const fn is_fixed(&self) -> bool {
            matches!(self, Self::Static(_))
        }

        pub(in crate::engine) const fn capacity(&self) -> usize {
            match self {
                Self::Static(bytes) => bytes.len(),
                Self::Boxed { bytes, .. } => bytes.capacity(),
            }
        }

        pub(in crate::engine) fn bytes(&self) -> &[u8] {
            match self {
                Self::Static(bytes) => bytes,
                Self::Boxed { bytes, .. } => bytes,
            }
        }

        /// These bytes, if they were all touched before and do not wrap around.
        #[cfg(any(test, feature = "std"))]
        #[inline]
        pub(in crate::engine) fn touched(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
            match self {
                Self::Static(bytes) => bytes.get_mut(at..at + len),
                Self::Boxed { bytes, .. } => bytes.get_mut(at..at + len),
            }
        }

        /// Touches bytes within the capacity; `at` is at most one past those touched so far.
        pub(in crate::engine) fn touch(&mut self, at: usize, len: usize) {
            if let Self::Boxed { bytes, .. } = self {
                let end = (at + len).min(bytes.capacity());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
            }
        }

        /// Writes within the capacity; `at` is at most one past the bytes touched so far.
        pub(in crate::engine) fn write(&mut self, at: usize, data: &[u8]) {
            match self {
                Self::Static(bytes) => super::write(bytes, at, data),
                Self::Boxed { bytes, .. } => {
                    let over = (bytes.len() - at).min(data.len());
                    bytes[at..at + over].copy_from_slice(&data[..over]);
                    bytes.extend_from_slice(&data[over..]);
                }
            }
        }

        /// Doubles the capacity until `needed` bytes fit, and moves the `used` bytes from `head` on to the beginning.
        /// Returns the new capacity.
        pub(in crate::engine) fn grow(
            &mut self,
            head: usize,
            used: usize,
            needed: usize,
        ) -> Result<usize, NoRoom> {
            let Self::Boxed { bytes, limit } = self else {
                return Err(NoRoom);
            };
            if needed > *limit {
                return Err(NoRoom);
            }
            let capacity = needed
                .checked_next_power_of_two()
                .unwrap_or(*limit)
                .max(bytes.capacity().saturating_mul(2))
                .max(INITIAL)
                .min(*limit);
            let mut larger = Vec::new();
            larger.try_reserve_exact(capacity).map_err(|_| NoRoom)?;
            let before_end = (bytes.capacity() - head).min(used);
            larger.extend_from_slice(&bytes[head..head + before_end]);
            larger.extend_from_slice(&bytes[..used - before_end]);
            *bytes = larger;
            Ok(bytes.capacity())
        }

        /// Whether [`shrink`](Self::shrink) would return memory.
        pub(in crate::engine) fn is_oversized(&self) -> bool {
            match self {
                Self::Static(_) => false,
                Self::Boxed { bytes, .. } => bytes.capacity() > INITIAL,
            }
        }

        /// Frees the memory of storage that holds nothing. Returns the new capacity.
        pub(in crate::engine) fn shrink(&mut self) -> usize {
            if let Self::Boxed { bytes, .. } = self {
                *bytes = Vec::new();
            }
            self.capacity()
        }
    }
}

#[cfg(not(has_arc))]
mod fixed {
    use super::NoRoom;

    pub(crate) struct Storage(&'static mut [u8]);

    impl Storage {
        pub(crate) const fn fixed(bytes: &'static mut [u8]) -> Self {
            Self(bytes)
        }

        /// The program's memory includes the reserve.
        pub(crate) fn with_reserve(self, _reserve: usize) -> Self {
            self
        }

        #[expect(clippy::unused_self, reason = "the size is fixed")]
        pub(in crate::engine) const fn is_fixed(&self) -> bool {
            true
        }

        pub(in crate::engine) const fn capacity(&self) -> usize {
            self.0.len()
        }

        pub(in crate::engine) fn bytes(&self) -> &[u8] {
            self.0
        }

        pub(in crate::engine) fn touch(&mut self, _at: usize, _len: usize) {}

        pub(in crate::engine) fn write(&mut self, at: usize, data: &[u8]) {
            super::write(self.0, at, data);
        }

        #[expect(clippy::unused_self, reason = "the size is fixed")]
        pub(in crate::engine) fn grow(
            &mut self,
            _head: usize,
            _used: usize,
            _needed: usize,
        ) -> Result<usize, NoRoom> {
            Err(NoRoom)
        }
    }
}

fn write(bytes: &mut [u8], at: usize, data: &[u8]) {
    if let Some(space) = bytes.get_mut(at..at + data.len()) {
        space.copy_from_slice(data);
    } else {
        debug_assert!(false, "written beyond the capacity");
    }
}
