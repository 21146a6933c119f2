//! The seeded, bounded set of samples of which something is kept for nulls, resampling and examples.
//!
//! Every sample has a pseudo-random place in an order that depends on seed, data set and sample id alone. Kept
//! are the first samples of that order until their tokens reach the bound. Which samples these are does not
//! depend on how the run was cut into shards or in which order shards were merged: a part that dropped a sample
//! kept enough before it to fill the bound, so whatever is merged later, that sample stays dropped.

use std::collections::BTreeMap;

use moetrace_routing::{Name, SampleId};

use crate::random;

/// Kept are the first samples of the order that hold at least this many tokens together.
pub(crate) const SUBSET_TOKENS: u64 = 65_536;

/// A shorter sample counts for this many tokens, so that at most 2,048 samples are held (as tables of `[L, E]`
/// counts 14 MB at 27 layers of 64 experts).
const LEAST_COST: u64 = 32;

/// A sample's place in the order: its hash first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    hash: u64,
    pub(crate) dataset: Name,
    pub(crate) sample: SampleId,
}

/// What is kept of one sample: its counts, its rows, whatever a listener wants.
pub(crate) trait Kept: Default {
    /// Adds what another part kept of the same sample.
    fn merge(&mut self, other: Self);
}

/// Counts of one sample; empty before the first layer.
impl Kept for Vec<u32> {
    fn merge(&mut self, other: Self) {
        self.resize(other.len().max(self.len()), 0);
        self.iter_mut().zip(&other).for_each(|(a, b)| *a += b);
    }
}

/// One sample of the subset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptSample<T> {
    pub(crate) tokens: u64,
    cost: u64,
    /// What is kept of it.
    pub(crate) kept: T,
}

#[derive(Debug, Clone)]
pub(crate) struct SampleSubset<T> {
    seed: u64,
    bound: u64,
    kept: BTreeMap<Place, KeptSample<T>>,
}

impl<T: Kept> SampleSubset<T> {
    pub(crate) fn new(seed: u64, bound: u64) -> Self {
        Self { seed, bound, kept: BTreeMap::new() }
    }

    /// Takes a sample of `tokens` tokens in, to be dropped by [`trim`](Self::trim) if there is no room.
    pub(crate) fn offer(&mut self, dataset: &Name, sample: SampleId, tokens: u64) -> Place {
        let hash = random::hash(self.seed, dataset, sample.0);
        let place = Place { hash, dataset: dataset.clone(), sample };
        let kept = self.kept.entry(place.clone()).or_default();
        kept.tokens += tokens;
        kept.cost += tokens.max(LEAST_COST);
        place
    }

    /// Drops the samples that those before them leave no room for.
    pub(crate) fn trim(&mut self) {
        let mut before = 0;
        let first_dropped = self.kept.iter().find_map(|(place, kept)| {
            let dropped = before >= self.bound;
            before += kept.cost;
            dropped.then(|| place.clone())
        });
        if let Some(place) = first_dropped {
            self.kept.split_off(&place);
        }
    }

    /// What is kept of a sample, unless it was dropped.
    pub(crate) fn get_mut(&mut self, place: &Place) -> Option<&mut T> {
        self.kept.get_mut(place).map(|sample| &mut sample.kept)
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (place, theirs) in other.kept {
            let ours = self.kept.entry(place).or_default();
            ours.tokens += theirs.tokens;
            ours.cost += theirs.cost;
            ours.kept.merge(theirs.kept);
        }
        self.trim();
    }

    /// Every kept sample and its place, in the order.
    pub(crate) fn samples(&self) -> impl Iterator<Item = (&Place, &KeptSample<T>)> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fold(samples: &[(u32, u64)], bound: u64) -> SampleSubset<Vec<u32>> {
        let mut subset = SampleSubset::new(3, bound);
        for &(sample, tokens) in samples {
            let place = subset.offer(&"d".into(), SampleId(sample), tokens);
            subset.trim();
            if let Some(counts) = subset.get_mut(&place) {
                Kept::merge(counts, vec![tokens as u32, 1]);
            }
        }
        subset
    }

    #[test]
    fn the_first_sample_stays_even_if_it_alone_exceeds_the_bound() {
        let subset = fold(&[(0, 5000), (1, 5000), (2, 5000)], 100);
        assert_eq!(subset.samples().count(), 1);
    }

    #[test]
    fn short_samples_count_for_the_least_cost() {
        let samples: Vec<_> = (0..100).map(|id| (id, 1)).collect();
        assert_eq!(fold(&samples, 10 * LEAST_COST).samples().count(), 10);
    }

    proptest! {
        #[test]
        fn the_kept_samples_do_not_depend_on_split_or_order(
            tokens in proptest::collection::vec(1u64..300, 1..40),
            parts in proptest::collection::vec(0usize..4, 40),
            bound in 1u64..3000,
        ) {
            let samples: Vec<_> = (0u32..).zip(tokens).collect();
            let whole = fold(&samples, bound);
            let part = |p: usize| {
                let mine: Vec<_> = samples.iter().zip(&parts).rev().filter(|(_, q)| **q == p).map(|(s, _)| *s).collect();
                fold(&mine, bound)
            };
            let mut merged = part(2);
            for p in [0, 3, 1] {
                merged.merge(part(p));
            }
            prop_assert_eq!(&merged.kept, &whole.kept);
        }
    }
}
