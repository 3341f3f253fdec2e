//! The platform: locks, parking, forks, panics and entropy, with `std` and without.

pub(crate) mod entropy;
pub(crate) mod fork;
pub(crate) mod lock;
#[cfg(feature = "std")]
pub(crate) mod origin;
pub(crate) mod panics;
#[cfg(feature = "std")]
pub(crate) mod park;
