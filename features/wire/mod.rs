//! The checker: whether a request's body conforms to the wire format.
//!
//! The collector and the simulated server check every request with it; any test backend can do the same.

#![cfg_attr(
    not(feature = "collector"),
    allow(
        dead_code,
        reason = "only the collector reads the records of a checked body"
    )
)]

pub(crate) mod calls;
pub(crate) mod check;
pub(crate) mod checked;
pub(crate) mod form;
pub(crate) mod json;
pub(crate) mod losses;
#[cfg(all(test, feature = "collector"))]
mod properties;
pub(crate) mod record;
mod split;
pub(crate) mod violation;

pub use check::{Mode, check};
pub use checked::{Checked, CheckedEvent, EventKind};
pub use record::EventRecord;
pub use violation::Violation;
