//! The platform, with `std` and without: locks, parking, forks, origins of work, panics and entropy.

pub(crate) mod entropy;
pub(crate) mod fork;
pub(crate) mod lock;
#[cfg(feature = "std")]
pub(crate) mod origin;
pub(crate) mod panics;
#[cfg(feature = "std")]
pub(crate) mod park;
pub(crate) mod stack;
