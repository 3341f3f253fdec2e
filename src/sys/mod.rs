//! The platform, with `std` and without: locks, parking, forks, origins of work, own work, panics, stacks, entropy and
//! the console.

#[cfg(feature = "std")]
pub(crate) mod backtrace;
#[cfg(feature = "std")]
pub(crate) mod console;
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
