//! Per-thread record of the failures that nested captures have already logged.
//!
//! A failure passes through all captures around it. The innermost logs it and leaves its fingerprint to the next one
//! out, which recognizes it when its own block fails, even if `?` has wrapped the error meanwhile.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::error::Error;
use core::fmt;
use core::hash::Hasher as _;
use std::hash::DefaultHasher;

/// A hash by which captures recognize a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// Hashes the message only: an error's address and type change on the way.
    pub(crate) fn of_error(session: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(session, format_args!("{error}"), 0)
    }

    /// Hashes the payload's address too: a panic's payload does not move.
    pub(crate) fn of_panic(session: &str, message: &str, address: usize) -> Self {
        Self::new(session, format_args!("{message}"), address)
    }

    fn new(session: &str, message: fmt::Arguments<'_>, address: usize) -> Self {
        struct Text(DefaultHasher);
        impl fmt::Write for Text {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(session.as_bytes());
        hasher.write_usize(address);
        let mut text = Text(hasher);
        // If `Display` fails, it fails at the same place next time.
        let _ = fmt::write(&mut text, message);
        Self(text.0.finish())
    }
}

/// The state that every capture reads.
struct Nesting {
    /// How many captures are running on this thread.
    depth: Cell<usize>,
    /// Whether `LOGGED` is not empty, which is rare.
    has_logged: Cell<bool>,
}

std::thread_local! {
    static NESTING: Nesting = const {
        Nesting {
            depth: Cell::new(0),
            has_logged: Cell::new(false),
        }
    };
    /// The failures logged inside the running captures, with the captures' depth.
    static LOGGED: RefCell<Vec<(usize, Fingerprint)>> = const { RefCell::new(Vec::new()) };
}

/// The maximum number of failures to remember. The latest suffice: a failure that is passing through was logged just
/// now.
pub(super) const MAX_LOGGED: usize = 32;

/// A running capture on this thread.
#[derive(Debug)]
pub(super) struct Frame {
    depth: usize,
}

impl Frame {
    #[inline]
    pub(super) fn enter() -> Self {
        NESTING.with(|nesting| {
            let depth = nesting.depth.get() + 1;
            nesting.depth.set(depth);
            Self { depth }
        })
    }

    /// Leaves the frame before it is dropped. Returns the failures logged inside.
    pub(super) fn leave(&self) -> Vec<Fingerprint> {
        NESTING.with(|nesting| {
            nesting.depth.set(self.depth - 1);
            if nesting.has_logged.get() {
                self.take_logged()
            } else {
                Vec::new()
            }
        })
    }

    #[cold]
    fn take_logged(&self) -> Vec<Fingerprint> {
        let mut logged = Vec::new();
        with_logged(|all| {
            all.retain(|&(depth, fingerprint)| {
                let is_inside = depth >= self.depth;
                if is_inside {
                    logged.push(fingerprint);
                }
                !is_inside
            });
        });
        logged
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        NESTING.with(|nesting| {
            nesting.depth.set(self.depth - 1);
            // Without this, a capture further out could mistake a failure in here for its own.
            if nesting.has_logged.get() {
                drop(self.take_logged());
            }
        });
    }
}

/// Records for the enclosing capture, if any, that a failure has been logged.
pub(crate) fn mark_logged(fingerprint: Fingerprint) {
    let depth = NESTING.with(|nesting| nesting.depth.get());
    if depth > 0 {
        with_logged(|all| {
            if all.len() >= MAX_LOGGED {
                all.remove(0);
            }
            all.push((depth, fingerprint));
        });
    }
}

fn with_logged(work: impl FnOnce(&mut Vec<(usize, Fingerprint)>)) {
    // On a thread that is shutting down, the thread-local is gone.
    let _ = LOGGED.try_with(|all| {
        if let Ok(mut all) = all.try_borrow_mut() {
            work(&mut all);
            NESTING.with(|nesting| nesting.has_logged.set(!all.is_empty()));
        }
    });
}
