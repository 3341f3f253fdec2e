//! What the benchmarks of the send path share.

pub(crate) mod cpu;
pub(crate) mod event;
pub(crate) mod figures;
pub(crate) mod minimal;
pub(crate) mod ours;
pub(crate) mod sink;
