//! Telling a process from the child of its `fork()`, which has the memory of all threads and only one of the threads.
//!
//! What another thread held locked at that moment stays locked in the child for ever, and what it was writing may be
//! there by half. So the child neither takes its parent's locks nor changes what is behind them.

#[cfg(feature = "std")]
use alloc::boxed::Box;
#[cfg(feature = "std")]
use forkguard::Guard;
#[cfg(feature = "std")]
use std::sync::OnceLock;

/// The process it was made in.
pub(crate) struct Fork {
    /// `None` where the operating system cannot tell: never forked, as far as anybody knows.
    #[cfg(feature = "std")]
    guard: Option<Guard>,
}

/// The calling process is a child of the one that something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forked;

impl Fork {
    /// The calling process.
    pub(crate) fn here() -> Self {
        Self {
            #[cfg(feature = "std")]
            guard: Guard::try_new().ok(),
        }
    }

    /// Whether the calling process is another one. It costs the load of one word.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        #[cfg(feature = "std")]
        let is_forked = self
            .guard
            .as_ref()
            .is_some_and(|guard| guard.clone().detected_fork());
        #[cfg(not(feature = "std"))]
        let is_forked = false;
        is_forked
    }
}

/// What each process has one of: it is made at first use, and in a fork's child anew. A parent's is never touched there.
#[cfg(feature = "std")]
pub(crate) struct PerProcess<T>(OnceLock<Generation<T>>);

#[cfg(feature = "std")]
struct Generation<T> {
    fork: Fork,
    value: T,
    /// The child's, or that of a child's child.
    next: OnceLock<Box<Self>>,
}

#[cfg(feature = "std")]
impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The calling process's own.
    pub(crate) fn get_or_init(&self, mut make: impl FnMut() -> T) -> &T {
        let mut make = || Generation {
            fork: Fork::here(),
            value: make(),
            next: OnceLock::new(),
        };
        let mut generation = self.0.get_or_init(&mut make);
        while generation.fork.is_forked() {
            generation = generation.next.get_or_init(|| Box::new(make()));
        }
        &generation.value
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_not_forked_has_one_value_and_keeps_it() {
        let numbers = PerProcess::new();
        assert_eq!(*numbers.get_or_init(|| 1), 1);
        assert_eq!(*numbers.get_or_init(|| 2), 1);
        assert!(!Fork::here().is_forked());
    }
}
