//! Which token ids have a table: the most frequent ones, known before anything is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use moetrace_routing::{RoutingGeometry, TokenId};

/// Ids that have a table, where memory allows.
const MOST_TRACKED: usize = 4_096;

/// Cells of one table over all layers; there are four of 4 bytes each. 4,096 ids fit at 27 layers of 64 experts and at
/// 48 of 128, 697 at 94 layers of 512.
const MOST_CELLS: usize = 1 << 25;

/// Ids below this have a counter in a list; no vocabulary in use is larger.
const DENSE_IDS: usize = 1 << 20;

/// How often each token id occurs: a first, cheap look at a run's tokens, or at the texts of a plan.
///
/// Counts of two parts [`merge`](Self::merge) in any order. BOS tokens are left out by whoever adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenCounts {
    dense: Vec<u64>,
    /// Ids that only a made-up file has.
    sparse: BTreeMap<u32, u64>,
}

impl TokenCounts {
    /// Counts `tokens`.
    pub fn add(&mut self, tokens: &[TokenId]) {
        for token in tokens {
            *self.counter(token.0) += 1;
        }
    }

    fn counter(&mut self, id: u32) -> &mut u64 {
        let index = id as usize;
        if index >= DENSE_IDS {
            return self.sparse.entry(id).or_default();
        }
        if index >= self.dense.len() {
            self.dense.resize(index + 1, 0);
        }
        &mut self.dense[index]
    }

    /// Adds the counts of another part.
    pub fn merge(&mut self, other: &Self) {
        for (id, count) in other.all() {
            *self.counter(id) += count;
        }
    }

    /// Ids that occur, ascending, and how often.
    fn all(&self) -> impl Iterator<Item = (u32, u64)> {
        let dense = (0u32..).zip(self.dense.iter().copied()).filter(|&(_, count)| count > 0);
        dense.chain(self.sparse.iter().map(|(&id, &count)| (id, count)))
    }

    /// The most frequent ids, ties to the lower id: as many as tables of this geometry are made for, 4,096 at most.
    pub fn most_frequent(&self, geometry: &RoutingGeometry) -> TrackedTokens {
        let slots = geometry.layers().len() * geometry.experts();
        let mut all: Vec<(u32, u64)> = self.all().collect();
        all.sort_unstable_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
        all.truncate(MOST_TRACKED.min(MOST_CELLS / slots).max(1));
        TrackedTokens::new(all.into_iter().map(|(id, _)| TokenId(id)).collect())
    }
}

/// The token ids that have a table. Parts that are to be merged must have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedTokens(Arc<[TokenId]>);

impl TrackedTokens {
    /// These ids, in any order.
    pub fn new(mut ids: Vec<TokenId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[TokenId] {
        &self.0
    }

    /// Where an id stands; one behind the last for every id without a table.
    pub(super) fn slot(&self, id: TokenId) -> usize {
        self.0.binary_search(&id).unwrap_or(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moetrace_routing::LayerIndex;

    #[test]
    fn the_most_frequent_ids_are_tracked_and_ties_go_to_the_lower_id() {
        let geometry = |experts| RoutingGeometry::new(experts, 1, 1, vec![LayerIndex(0)]).unwrap();
        let ids = |ids: &[u32]| ids.iter().map(|&id| TokenId(id)).collect::<Vec<_>>();
        let mut counts = TokenCounts::default();
        counts.add(&ids(&[7, 3, 3, u32::MAX, 5, 7]));
        let mut other = TokenCounts::default();
        other.add(&ids(&[u32::MAX, u32::MAX, 2]));
        counts.merge(&other);
        assert_eq!(counts.most_frequent(&geometry(8)).ids(), ids(&[2, 3, 5, 7, u32::MAX]));
        let mut many = TokenCounts::default();
        many.add(&(0..5_000).chain(4_990..5_000).map(TokenId).collect::<Vec<_>>());
        let tracked = many.most_frequent(&geometry(8));
        assert_eq!(
            (tracked.ids().len(), tracked.ids()[4_085], tracked.ids()[4_086]),
            (4_096, TokenId(4_085), TokenId(4_990))
        );
        assert_eq!(many.most_frequent(&geometry(65_536)).ids().len(), 512);
        assert_eq!((tracked.slot(TokenId(1)), tracked.slot(TokenId(4_500))), (1, 4_096));
    }
}
