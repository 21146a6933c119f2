//! Unordered pairs of experts that serve the same token in the same layer.

use std::collections::BTreeMap;

use moetrace_routing::ExpertId;

/// Up to this many experts every pair has its own counter (4 MiB a layer at 1024); above, only the pairs seen.
const DENSE_EXPERTS: usize = 1024;

/// Number of unordered pairs of `experts` experts: E (E - 1) / 2.
pub fn possible(experts: usize) -> u64 {
    let e = experts as u64;
    e * e.saturating_sub(1) / 2
}

/// How often each unordered pair {i, j} was chosen together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PairCounts {
    experts: usize,
    counts: Counts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Counts {
    /// The strict upper triangle, row by row: `[E (E - 1) / 2]`.
    Dense(Vec<u64>),
    Sparse(BTreeMap<(u16, u16), u64>),
}

/// Where (low, high) stands in the triangle: the rows before `low`, then `high`'s place in its row.
#[inline]
fn triangle_index(experts: usize, low: usize, high: usize) -> usize {
    low * (2 * experts - low - 1) / 2 + (high - low - 1)
}

impl PairCounts {
    /// No pair yet among `experts` experts.
    pub(crate) fn new(experts: usize) -> Self {
        let counts = if experts <= DENSE_EXPERTS {
            Counts::Dense(vec![0; possible(experts) as usize])
        } else {
            Counts::Sparse(BTreeMap::new())
        };
        Self { experts, counts }
    }

    /// Counts the K (K - 1) / 2 pairs of one token; `chosen` holds K distinct ids below E.
    #[inline]
    pub(crate) fn add(&mut self, chosen: &[ExpertId]) {
        for (rank, first) in chosen.iter().enumerate() {
            for second in &chosen[rank + 1..] {
                let (low, high) = (first.0.min(second.0), first.0.max(second.0));
                match &mut self.counts {
                    Counts::Dense(counts) => {
                        counts[triangle_index(self.experts, usize::from(low), usize::from(high))] += 1;
                    }
                    Counts::Sparse(counts) => *counts.entry((low, high)).or_default() += 1,
                }
            }
        }
    }

    /// Adds the counts of another layer or shard with as many experts.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut self.counts, &other.counts) {
            (Counts::Dense(ours), Counts::Dense(theirs)) => {
                ours.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
            }
            (Counts::Sparse(ours), Counts::Sparse(theirs)) => {
                for (&pair, n) in theirs {
                    *ours.entry(pair).or_default() += n;
                }
            }
            // The same number of experts chooses the same form.
            _ => debug_assert_eq!(self.experts, other.experts),
        }
    }

    /// Number of pairs seen at least once.
    pub(crate) fn unique(&self) -> u64 {
        match &self.counts {
            Counts::Dense(counts) => crate::coverage::active(counts),
            Counts::Sparse(counts) => counts.len() as u64,
        }
    }

    /// How often experts `a` and `b` served the same token; 0 for an expert with itself.
    #[cfg(test)]
    pub(crate) fn count(&self, a: ExpertId, b: ExpertId) -> u64 {
        let (low, high) = (a.0.min(b.0), a.0.max(b.0));
        if low == high || usize::from(high) >= self.experts {
            return 0;
        }
        match &self.counts {
            Counts::Dense(counts) => {
                counts[triangle_index(self.experts, usize::from(low), usize::from(high))]
            }
            Counts::Sparse(counts) => counts.get(&(low, high)).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u16]) -> Vec<ExpertId> {
        ids.iter().map(|&id| ExpertId(id)).collect()
    }

    #[test]
    fn the_pairs_of_a_known_set_are_counted_once_whatever_their_order() {
        for experts in [9, DENSE_EXPERTS + 1] {
            let mut pairs = PairCounts::new(experts);
            pairs.add(&ids(&[5, 1, 8]));
            pairs.add(&ids(&[8, 5, 0]));
            assert_eq!(pairs.unique(), 5);
            assert_eq!(pairs.count(ExpertId(5), ExpertId(8)), 2);
            assert_eq!(pairs.count(ExpertId(8), ExpertId(5)), 2);
            assert_eq!(pairs.count(ExpertId(0), ExpertId(1)), 0);
            assert_eq!(pairs.count(ExpertId(5), ExpertId(5)), 0);
        }
    }

    #[test]
    fn every_pair_has_its_own_place_in_the_triangle() {
        let mut pairs = PairCounts::new(60);
        pairs.add(&ids(&(0..60).collect::<Vec<_>>()));
        assert_eq!((pairs.unique(), possible(60)), (1770, 1770));
        assert!(matches!(&pairs.counts, Counts::Dense(counts) if counts.iter().all(|&n| n == 1)));
    }

    #[test]
    fn the_models_of_the_field_have_the_published_pair_counts() {
        assert_eq!(
            (possible(64), possible(60), possible(8), possible(1), possible(0)),
            (2016, 1770, 28, 0, 0)
        );
    }

    #[test]
    fn merging_adds_in_both_forms() {
        for experts in [4, DENSE_EXPERTS + 1] {
            let (mut a, mut b) = (PairCounts::new(experts), PairCounts::new(experts));
            a.add(&ids(&[0, 1]));
            b.add(&ids(&[1, 0]));
            b.add(&ids(&[2, 3]));
            a.merge(&b);
            assert_eq!((a.unique(), a.count(ExpertId(0), ExpertId(1))), (2, 2));
        }
    }
}
