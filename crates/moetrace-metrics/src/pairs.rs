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

/// Where the pair of two different experts stands in a table of all pairs, which is the strict upper triangle row by
/// row: (0, 1), (0, 2) and so on to (E - 2, E - 1).
pub fn pair_index(experts: usize, a: u16, b: u16) -> usize {
    triangle_index(experts, usize::from(a.min(b)), usize::from(a.max(b)))
}

/// Number of sets of `chosen` of `experts` experts: C(E, K), in floating point, since it passes 2^64.
pub fn possible_sets(experts: usize, chosen: usize) -> f64 {
    (0..chosen).fold(1.0, |sets, i| sets * (experts - i) as f64 / (i + 1) as f64).round()
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
pub(crate) fn triangle_index(experts: usize, low: usize, high: usize) -> usize {
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

    /// Every pair's count, `[E (E - 1) / 2]`, in the order of [`pair_index`].
    pub(crate) fn dense(&self) -> Vec<u64> {
        match &self.counts {
            Counts::Dense(counts) => counts.clone(),
            Counts::Sparse(counts) => {
                let mut dense = vec![0; possible(self.experts) as usize];
                for (&(low, high), &n) in counts {
                    dense[pair_index(self.experts, low, high)] = n;
                }
                dense
            }
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
    fn sets_are_counted_as_binomials() {
        let sets = [possible_sets(8, 2), possible_sets(60, 4), possible_sets(64, 6), possible_sets(5, 5)];
        assert_eq!(sets, [28.0, 487_635.0, 74_974_368.0, 1.0]);
    }

    #[test]
    fn the_dense_table_is_the_same_in_both_forms() {
        let mut sparse = PairCounts { experts: 4, counts: Counts::Sparse(BTreeMap::new()) };
        let mut dense = PairCounts::new(4);
        for row in [[3, 1], [1, 2], [1, 3]] {
            sparse.add(&ids(&row));
            dense.add(&ids(&row));
        }
        assert_eq!(sparse.dense(), dense.dense());
        assert_eq!(dense.dense()[pair_index(4, 3, 1)], 2);
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
