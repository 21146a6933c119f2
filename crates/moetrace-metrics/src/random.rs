//! The seeded numbers behind the sample subset and the permutations: a few lines, so that the same seed gives the
//! same null for ever, whatever a crate's next version does.

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: `SplitMix64`.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound` (Lemire's multiplication; its bias is below `bound` / 2^64).
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// One number for a seed, a name and an index: FNV-1a over the bytes, mixed.
pub(crate) fn hash(seed: u64, name: &str, index: u32) -> u64 {
    const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const FNV_PRIME: u64 = 0x0100_0000_01B3;
    let bytes = name.bytes().chain(index.to_le_bytes());
    let folded = bytes.fold(FNV_OFFSET, |h, b| (h ^ u64::from(b)).wrapping_mul(FNV_PRIME));
    SplitMix64::new(SplitMix64::new(seed).next_u64() ^ folded).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // First outputs for seed 1234567, as listed with the reference C code of SplitMix64.
        let mut numbers = SplitMix64::new(1_234_567);
        assert_eq!(numbers.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(numbers.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_numbers_stay_below_their_bound() {
        let mut numbers = SplitMix64::new(5);
        assert!((0..1000).all(|i| numbers.below(i % 7 + 1) <= i % 7));
        let mut items: Vec<u32> = (0..100).collect();
        numbers.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn seed_name_and_index_each_change_the_hash() {
        let base = hash(0, "a", 0);
        assert!([hash(1, "a", 0), hash(0, "b", 0), hash(0, "a", 1)].iter().all(|&h| h != base));
    }
}
