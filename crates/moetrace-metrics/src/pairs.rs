//! Unordered pairs of experts that serve the same token in the same layer.

use std::collections::BTreeMap;

use moetrace_routing::ExpertId;

use crate::joint_counts::JointCounts;

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
#[derive(Debug, Clone)]
pub(crate) struct PairCounts {
    experts: usize,
    counts: Counts,
}

#[derive(Debug, Clone)]
enum Counts {
    /// Every pair of a token's experts in the order of the token, an expert with itself included: a third of the time
    /// that it takes to sort them first.
    Dense(JointCounts),
    /// Only the pairs seen; for more experts than any model has.
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
        let counts = JointCounts::new(experts).map_or_else(|| Counts::Sparse(BTreeMap::new()), Counts::Dense);
        Self { experts, counts }
    }

    /// Counts the K (K - 1) / 2 pairs of each row of `chosen`, `[rows, K]` ids below E that are distinct within a row.
    pub(crate) fn add(&mut self, chosen: &[ExpertId], k: usize) {
        match &mut self.counts {
            Counts::Dense(counts) => counts.add_within(chosen, k),
            Counts::Sparse(counts) => {
                let rows = chosen.chunks_exact(k);
                let pairs = rows.flat_map(|row| row.iter().flat_map(|a| row.iter().map(move |b| (a.0, b.0))));
                for pair in pairs.filter(|(low, high)| low < high) {
                    *counts.entry(pair).or_default() += 1;
                }
            }
        }
    }

    /// Adds the counts of another layer or shard with as many experts.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut self.counts, &other.counts) {
            (Counts::Dense(ours), Counts::Dense(theirs)) => ours.merge(theirs.clone()),
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
            Counts::Dense(_) => crate::coverage::active(&self.dense()),
            Counts::Sparse(counts) => counts.len() as u64,
        }
    }

    /// Every pair's count, `[E (E - 1) / 2]`, in the order of [`pair_index`].
    pub(crate) fn dense(&self) -> Vec<u64> {
        match &self.counts {
            Counts::Dense(counts) => counts.within().0,
            Counts::Sparse(counts) => {
                let mut dense = vec![0; possible(self.experts) as usize];
                for (&(low, high), &n) in counts {
                    dense[pair_index(self.experts, low, high)] = n;
                }
                dense
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a table is kept of.
    const MANY: usize = 1025;

    fn ids(ids: &[u16]) -> Vec<ExpertId> {
        ids.iter().map(|&id| ExpertId(id)).collect()
    }

    fn count(pairs: &PairCounts, a: u16, b: u16) -> u64 {
        pairs.dense()[pair_index(pairs.experts, a, b)]
    }

    #[test]
    fn the_pairs_of_known_sets_are_counted_once_whatever_their_order() {
        for experts in [9, MANY] {
            let mut pairs = PairCounts::new(experts);
            pairs.add(&ids(&[5, 1, 8, 8, 5, 0]), 3);
            assert_eq!(pairs.unique(), 5);
            assert_eq!((count(&pairs, 5, 8), count(&pairs, 8, 5), count(&pairs, 0, 1)), (2, 2, 0));
        }
    }

    #[test]
    fn every_pair_has_its_own_place_in_the_triangle() {
        let mut pairs = PairCounts::new(60);
        pairs.add(&ids(&(0..60).collect::<Vec<_>>()), 60);
        assert_eq!((pairs.unique(), possible(60)), (1770, 1770));
        assert!(pairs.dense().iter().all(|&n| n == 1));
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
    fn merging_adds_in_both_forms() {
        for experts in [4, MANY] {
            let (mut a, mut b) = (PairCounts::new(experts), PairCounts::new(experts));
            a.add(&ids(&[0, 1]), 2);
            b.add(&ids(&[1, 0, 2, 3]), 2);
            a.merge(&b);
            assert_eq!((a.unique(), count(&a, 0, 1)), (2, 2));
        }
    }
}
