//! The cases that every pair must pass.

pub(crate) mod collectors;
pub(crate) mod delivery;
pub(crate) mod ends;
pub(crate) mod faults;
