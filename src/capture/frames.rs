//! What the captures around a capture need to know: which failures have been logged already.
//!
//! Captures nest, and a failure passes through all of them. The innermost logs it and leaves its print with the next
//! one out, which finds it again when its own block fails, also when `?` has put the error into another one meanwhile.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::error::Error;
use core::fmt;
use core::hash::Hasher as _;
use std::hash::DefaultHasher;

/// What a failure is recognized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// An error is known by its message: its address and its type change on the way.
    pub(crate) fn of_error(session: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(session, format_args!("{error}"), 0)
    }

    /// A panic's payload stays in its place.
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
        // A `Display` that fails fails at the same place the next time.
        let _ = fmt::write(&mut text, message);
        Self(text.0.finish())
    }
}

/// What every capture looks at.
struct Now {
    /// How many captures are under way on this thread.
    depth: Cell<usize>,
    /// Whether `LOGGED` holds anything: most often it does not.
    has_logged: Cell<bool>,
}

std::thread_local! {
    static NOW: Now = const {
        Now {
            depth: Cell::new(0),
            has_logged: Cell::new(false),
        }
    };
    /// What was logged inside the captures that are under way, with their depth.
    static LOGGED: RefCell<Vec<(usize, Fingerprint)>> = const { RefCell::new(Vec::new()) };
}

/// As many failures are remembered, the latest: one that is on its way was logged just now.
pub(super) const MOST: usize = 32;

/// A capture that is under way on this thread.
#[derive(Debug)]
pub(super) struct Frame {
    depth: usize,
}

impl Frame {
    #[inline]
    pub(super) fn enter() -> Self {
        NOW.with(|now| {
            let depth = now.depth.get() + 1;
            now.depth.set(depth);
            Self { depth }
        })
    }

    /// Ends it before it is dropped; gives back what was logged inside.
    pub(super) fn leave(&self) -> Vec<Fingerprint> {
        NOW.with(|now| {
            now.depth.set(self.depth - 1);
            if now.has_logged.get() {
                self.collect()
            } else {
                Vec::new()
            }
        })
    }

    #[cold]
    fn collect(&self) -> Vec<Fingerprint> {
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
        NOW.with(|now| {
            now.depth.set(self.depth - 1);
            // Nobody around is to take what was logged in here for its own.
            if now.has_logged.get() {
                drop(self.collect());
            }
        });
    }
}

/// Tells the capture that is around here, if there is one, that a failure has been logged.
pub(crate) fn mark_logged(fingerprint: Fingerprint) {
    let depth = NOW.with(|now| now.depth.get());
    if depth > 0 {
        with_logged(|all| {
            if all.len() >= MOST {
                all.remove(0);
            }
            all.push((depth, fingerprint));
        });
    }
}

fn with_logged(work: impl FnOnce(&mut Vec<(usize, Fingerprint)>)) {
    // A thread that shuts down remembers nothing.
    let _ = LOGGED.try_with(|all| {
        if let Ok(mut all) = all.try_borrow_mut() {
            work(&mut all);
            NOW.with(|now| now.has_logged.set(!all.is_empty()));
        }
    });
}
