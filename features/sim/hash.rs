//! Hashes over traces, events and bodies: fast, and the same on every machine.

#[inline]
pub(super) const fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

#[inline]
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let word = |hash, word: &[u8; 8]| mix(hash, u64::from_le_bytes(*word));
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, word);
    match bytes.last_chunk() {
        _ if rest.is_empty() => hash,
        // Overlaps bytes that are already hashed.
        Some(last) => word(hash, last),
        None => rest
            .iter()
            .fold(hash, |hash, byte| mix(hash, u64::from(*byte))),
    }
}
