//! How often each tracked token chose each expert.

use moetrace_routing::ExpertId;

/// Counts over tokens by a token id of theirs: their own, or that of the token after them.
///
/// The last row, behind those of the V tracked ids, is of all other ids: column sums are loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    experts: usize,
    /// Tokens of each id that chose each expert, `[V + 1, E]`.
    chosen: Vec<u32>,
    /// Those of them whose first expert it was, `[V + 1, E]`.
    first: Vec<u32>,
}

/// Which experts are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranks {
    /// The one of rank 1.
    First,
    /// All K.
    All,
}

impl Table {
    /// Nothing counted yet of `slots` rows.
    pub(super) fn new(slots: usize, experts: usize) -> Self {
        Self { experts, chosen: vec![0; slots * experts], first: vec![0; slots * experts] }
    }

    /// Counts a token whose id stands at `slot`; `ids` are its K experts in rank order, below E.
    #[inline]
    pub(super) fn add(&mut self, slot: usize, ids: &[ExpertId]) {
        let row = slot * self.experts;
        let chosen = &mut self.chosen[row..row + self.experts];
        for id in ids {
            chosen[id.index()] += 1;
        }
        self.first[row + ids[0].index()] += 1;
    }

    /// Adds the rows that `counts`, `[V + 1]`, says hold something.
    pub(super) fn merge(&mut self, other: &Self, counts: &[u64]) {
        let e = self.experts;
        for slot in (0..counts.len()).filter(|&slot| counts[slot] > 0) {
            let row = slot * e..(slot + 1) * e;
            for (ours, theirs) in [(&mut self.chosen, &other.chosen), (&mut self.first, &other.first)] {
                ours[row.clone()].iter_mut().zip(&theirs[row.clone()]).for_each(|(a, b)| *a += b);
            }
        }
    }

    /// The counts of one id, `[E]`.
    pub(super) fn row(&self, slot: usize, ranks: Ranks) -> &[u32] {
        let table = match ranks {
            Ranks::First => &self.first,
            Ranks::All => &self.chosen,
        };
        &table[slot * self.experts..][..self.experts]
    }

    /// Tokens that chose each expert, `[E]`.
    pub(super) fn loads(&self, ranks: Ranks) -> Vec<u64> {
        let mut loads = vec![0u64; self.experts];
        for slot in 0..self.chosen.len() / self.experts {
            loads.iter_mut().zip(self.row(slot, ranks)).for_each(|(load, &n)| *load += u64::from(n));
        }
        loads
    }
}
