//! Support code of the send path benchmark.

pub(crate) mod cpu;
pub(crate) mod event;
pub(crate) mod figures;
pub(crate) mod minimal;
pub(crate) mod ours;
pub(crate) mod sink;
