//! Randomness: 32 bytes given once, and the generator they feed.

use core::fmt;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use uuid::Uuid;

/// The 32 random bytes a session is born with. Event ids, idempotency keys and jitter come from them.
///
/// With `std` the builder takes them from the operating system. Without, the program gives them
/// ([`Builder::entropy`](crate::Builder::entropy)): two sessions with the same bytes give the same ids, and the backend
/// would take the events of one for repeats of the other's.
#[derive(Clone)]
pub struct Entropy([u8; 32]);

impl Entropy {
    /// Entropy from 32 bytes, which should come from a true random source.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 32 bytes from the operating system.
    ///
    /// # Errors
    /// When the operating system has none to give.
    #[cfg(feature = "std")]
    pub(crate) fn from_os() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(..)")
    }
}

/// The generator in the engine: 256 bits of state, far more than the backend's removal of duplicates by id needs.
#[derive(Debug)]
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(crate) fn new(entropy: Entropy) -> Self {
        Self(Xoshiro256PlusPlus::from_seed(entropy.0))
    }

    /// A random (version 4) UUID.
    pub(crate) fn uuid(&mut self) -> Uuid {
        let (high, low) = (self.0.next_u64(), self.0.next_u64());
        let bytes = Uuid::from_u64_pair(high, low).into_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A number below `bound`, or zero when `bound` is; the bias of 2⁻⁶⁴ × `bound` does not matter to jitter.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}
