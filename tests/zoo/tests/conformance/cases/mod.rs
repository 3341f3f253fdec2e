//! What is asked of every pair.

pub(crate) mod delivery;
pub(crate) mod ends;
pub(crate) mod faults;
