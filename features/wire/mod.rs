//! The checker: whether a request's body is what the wire promises.
//!
//! The collector and the simulated server hold every request to it, and so may any backend for tests.

#![cfg_attr(
    not(feature = "collector"),
    allow(dead_code, reason = "the collector looks at more than one body")
)]

pub(crate) mod check;
pub(crate) mod checked;
pub(crate) mod form;
pub(crate) mod json;
pub(crate) mod violation;

pub use check::{Mode, check};
pub use checked::{Checked, CheckedEvent, EventKind};
pub use violation::Violation;
