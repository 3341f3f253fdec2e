//! Random numbers that the seed decides.

use crate::sys::entropy::{Entropy, Random};

/// One of a seed's streams, which do not affect each other.
pub(crate) struct Rng(Random);

impl Rng {
    pub(crate) fn stream(seed: u64, stream: u64) -> Self {
        Self(generator(seed, stream))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// True in `per_mille` of 1000 cases. Always draws once.
    pub(crate) fn happens(&mut self, per_mille: u16) -> bool {
        self.below(1_000) < u64::from(per_mille)
    }

    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A generator for a part of the spool.
    #[cfg(test)]
    pub(crate) fn seeded(&mut self) -> Random {
        generator(self.below(u64::MAX), self.below(u64::MAX))
    }
}

fn generator(seed: u64, stream: u64) -> Random {
    let mut state = seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut bytes = [0; 32];
    for part in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    Random::new(Entropy::new(bytes))
}
