//! How much of unfinished requests is held at once, over all connections.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of all bodies that are being received or handled.
pub(super) struct Bodies {
    bytes: AtomicUsize,
    max: usize,
}

/// The part of one body, given back when dropped.
pub(super) struct Share {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Bodies {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            max,
        })
    }

    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share {
            bodies: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Share {
    /// Whether there is room for this many bytes more. They count in any case, until the share is dropped.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bodies.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bodies.max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bodies.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_their_room_and_give_it_back() {
        let bodies = Bodies::new(100);
        let (mut one, mut other) = (bodies.share(), bodies.share());
        assert!(one.grow(60) && other.grow(40));
        assert!(!one.grow(1));
        drop(one);
        assert!(other.grow(60));
        assert!(!other.grow(1));
    }
}
