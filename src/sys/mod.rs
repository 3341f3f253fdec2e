//! The platform, with `std` and without: locks, parking, forks, origins of work, own work, panics, stacks and entropy.

#[cfg(feature = "std")]
pub(crate) mod backtrace;
pub(crate) mod entropy;
pub(crate) mod fork;
pub(crate) mod lock;
#[cfg(feature = "std")]
pub(crate) mod origin;
#[cfg(feature = "std")]
pub(crate) mod own_work;
pub(crate) mod panics;
#[cfg(feature = "std")]
pub(crate) mod park;
pub(crate) mod stack;
