//! How many distinct sets of experts there are, from the least hashes of those seen.
//!
//! A bottom-k sketch (Bar-Yossef et al., "Counting distinct elements in a data stream", 2002; Beyer et al., "On
//! synopses for distinct-value estimation under multiset operations", 2007): with h the k-th least of the hashes as a
//! part of their range, (k - 1) / h is an unbiased estimate of their number with a standard error of 1 / sqrt(k - 2).
//! The k least hashes of two parts are those of both together, so that merging loses nothing. A set's hash is the
//! exclusive or of a random number for each expert, so that no order of its experts shows.

use moetrace_routing::ExpertId;

use crate::random::SplitMix64;

/// k: a standard error of 3.1 %.
pub const SKETCH_HASHES: usize = 1024;

/// Decides the experts' random numbers; no setting, so that two runs' estimates differ by their sets alone.
const KEYS: u64 = 0x5E75;

/// Places of the table: it is emptied down to k hashes when it holds 2 k.
const PLACES: usize = 4 * SKETCH_HASHES;

/// A hash for every set of experts.
#[derive(Debug, Clone)]
pub(crate) struct SetHash(Vec<u64>);

impl SetHash {
    pub(crate) fn new(experts: usize) -> Self {
        let mut random = SplitMix64::new(KEYS);
        Self((0..experts).map(|_| random.next_u64()).collect())
    }

    /// Of ids below E; never 0.
    #[inline]
    pub(crate) fn of(&self, set: &[ExpertId]) -> u64 {
        let folded = set.iter().fold(0, |hash, id| hash ^ self.0[id.index()]);
        SplitMix64::new(folded).next_u64().max(1)
    }
}

/// The least hashes, in a table with open addressing.
#[derive(Debug, Clone)]
pub(crate) struct DistinctSets {
    /// 0 is a free place.
    places: Vec<u64>,
    held: usize,
    /// Hashes from here on are not among the k least.
    limit: u64,
}

impl DistinctSets {
    pub(crate) fn new() -> Self {
        Self { places: vec![0; PLACES], held: 0, limit: u64::MAX }
    }

    #[inline]
    pub(crate) fn add(&mut self, hash: u64) {
        if hash < self.limit {
            self.insert(hash);
        }
    }

    fn insert(&mut self, hash: u64) {
        let mut place = hash as usize % PLACES;
        while self.places[place] != 0 {
            if self.places[place] == hash {
                return;
            }
            place = (place + 1) % PLACES;
        }
        self.places[place] = hash;
        self.held += 1;
        if self.held == 2 * SKETCH_HASHES {
            let least = self.least();
            *self = Self { limit: least[SKETCH_HASHES - 1].saturating_add(1), ..Self::new() };
            for hash in least {
                self.insert(hash);
            }
        }
    }

    /// At most k hashes, ascending.
    fn least(&self) -> Vec<u64> {
        let mut hashes: Vec<u64> = self.places.iter().copied().filter(|&hash| hash != 0).collect();
        hashes.sort_unstable();
        hashes.truncate(SKETCH_HASHES);
        hashes
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for hash in other.least() {
            self.add(hash);
        }
    }

    /// The number of distinct sets, and whether it is exact.
    pub(crate) fn estimate(&self) -> (f64, bool) {
        let least = self.least();
        if least.len() < SKETCH_HASHES {
            return (least.len() as f64, true);
        }
        let part = least[SKETCH_HASHES - 1] as f64 / u64::MAX as f64;
        ((SKETCH_HASHES - 1) as f64 / part, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch(hashes: impl Iterator<Item = u64>) -> DistinctSets {
        let mut sketch = DistinctSets::new();
        hashes.for_each(|hash| sketch.add(hash));
        sketch
    }

    #[test]
    fn few_sets_are_counted_exactly_however_often_they_come() {
        let hash = SetHash::new(64);
        let sets = (0u16..1000).map(|i| hash.of(&[ExpertId(i % 20), ExpertId(20 + i % 25)]));
        assert_eq!(sketch(sets).estimate(), (100.0, true));
    }

    #[test]
    fn many_sets_are_estimated_within_four_standard_errors() {
        let hash = SetHash::new(300);
        for most in [60u16, 150, 300] {
            let sets = (0..most).flat_map(|i| (0..i).map(move |j| [ExpertId(j), ExpertId(i)]));
            let truth = f64::from(most) * f64::from(most - 1) / 2.0;
            let (estimate, exact) = sketch(sets.map(|set| hash.of(&set))).estimate();
            assert!(!exact && (estimate / truth - 1.0).abs() < 4.0 / ((SKETCH_HASHES - 2) as f64).sqrt());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn merging_parts_in_any_order_gives_the_sketch_of_the_whole(
            seed in any::<u64>(), count in 1usize..6000, parts in 1usize..5,
        ) {
            let mut random = SplitMix64::new(seed);
            let hashes: Vec<u64> = (0..count).map(|_| random.next_u64() >> (seed % 50) | 1).collect();
            let mut merged = DistinctSets::new();
            for part in (0..parts).rev() {
                merged.merge(&sketch(hashes.iter().copied().skip(part).step_by(parts)));
            }
            prop_assert_eq!(merged.least(), sketch(hashes.into_iter()).least());
        }
    }
}
