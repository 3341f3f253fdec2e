//! Fork detection: tells a process from the child of its `fork()`.
//!
//! The child has the memory of all threads but runs only one of them. A lock that another thread held at the fork stays
//! locked in the child forever, and the data it guards may be half written. So the child neither takes its parent's
//! locks nor touches the data behind them.

#[cfg(feature = "std")]
use alloc::boxed::Box;
#[cfg(feature = "std")]
use forkguard::Guard;
#[cfg(feature = "std")]
use std::sync::OnceLock;

/// The process that created this value.
pub(crate) struct Fork {
    /// `None` where the operating system cannot detect forks; the process then counts as not forked.
    #[cfg(feature = "std")]
    guard: Option<Guard>,
}

/// The error that the calling process is a forked child of the one that owns the value.
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

    /// Whether the calling process is a forked child of that process. Costs one atomic load.
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

/// A value per process: created on first use, and again in a forked child, which never touches its parent's.
#[cfg(feature = "std")]
pub(crate) struct PerProcess<T>(OnceLock<Generation<T>>);

#[cfg(feature = "std")]
struct Generation<T> {
    fork: Fork,
    value: T,
    /// The next generation: that of a forked child or its descendants.
    next: OnceLock<Box<Self>>,
}

#[cfg(feature = "std")]
impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The calling process's value.
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
    fn a_process_that_was_not_forked_keeps_one_value() {
        let numbers = PerProcess::new();
        assert_eq!(*numbers.get_or_init(|| 1), 1);
        assert_eq!(*numbers.get_or_init(|| 2), 1);
        assert!(!Fork::here().is_forked());
    }
}
