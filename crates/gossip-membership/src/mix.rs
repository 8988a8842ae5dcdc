//! A keyed hash for tables that nobody outside sees: fast, the same in each run of a seed, and not to
//! be aimed at without the key. It authenticates nothing.

/// The hash of some bytes: rounds of SplitMix64's finalizer (S. Vigna), the key between them.
pub(crate) fn mix(key: u64, bytes: &[u8]) -> u64 {
    let mut state = finalize(key ^ bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = finalize(state.rotate_left(23) ^ u64::from_le_bytes(word)) ^ key;
    }
    finalize(state)
}

const fn finalize(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_spread_and_depend_on_the_key() {
        let mut buckets = [0; 16];
        (0..16_000_u64).for_each(|n| buckets[(mix(7, &n.to_le_bytes()) % 16) as usize] += 1);
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
        assert_ne!(mix(1, b"same"), mix(2, b"same"));
        assert_ne!(mix(1, b"a"), mix(1, b"a\0"));
    }
}
