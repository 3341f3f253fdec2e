//! Numbers that a seed decides.

use crate::Entropy;
use crate::sys::entropy::Random;

/// A generator. Streams of one seed are independent, so that what one part draws moves nothing elsewhere.
pub(super) struct Rng(Random);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self::stream(seed, 0)
    }

    pub(super) fn stream(seed: u64, stream: u64) -> Self {
        Self(Random::new(Entropy::new(Self::bytes(seed, stream))))
    }

    /// 32 bytes, by splitmix64.
    pub(super) fn bytes(seed: u64, stream: u64) -> [u8; 32] {
        let mut state = seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        bytes
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// True in so many of a thousand cases. Draws once, whatever the answer: without one fault the others go on as before.
    pub(super) fn happens(&mut self, per_mille: u16) -> bool {
        self.below(1_000) < u64::from(per_mille)
    }
}
