//! How much of the thread's stack a computation takes: a `Debug` or a `Display` of something that contains itself recurses
//! without end, and would overflow the stack long before its text is too long.

/// A place on the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackMark {
    #[cfg(feature = "std")]
    address: usize,
}

impl StackMark {
    /// How far below the mark a text may recurse, in bytes: an eighth of what a thread of the standard library has.
    #[cfg(feature = "std")]
    const LIMIT: usize = 256 * 1024;

    /// The place of the call.
    #[inline]
    pub(crate) fn here() -> Self {
        Self {
            #[cfg(feature = "std")]
            address: address(),
        }
    }

    /// Whether the call is too far from the mark. Never without `std`, where stacks are smaller than any useful limit.
    #[inline]
    pub(crate) fn is_far(self) -> bool {
        #[cfg(feature = "std")]
        return self.address.abs_diff(address()) > Self::LIMIT;
        #[cfg(not(feature = "std"))]
        false
    }
}

/// The address of something on the stack.
#[cfg(feature = "std")]
#[inline]
fn address() -> usize {
    let here = 0_u8;
    core::ptr::from_ref(&here).addr()
}
