//! What `std` has and bare metal has not, behind one face: locks, parking, forks, panics, entropy.

pub(crate) mod entropy;
pub(crate) mod fork;
pub(crate) mod lock;
#[cfg(feature = "std")]
pub(crate) mod origin;
pub(crate) mod panics;
#[cfg(feature = "std")]
pub(crate) mod park;
