//! The tokens with the highest weights of one expert, no two of one sample, whatever the order they come in.

use std::cmp::Reverse;

use moetrace_routing::{Name, SampleId, TokenId};

/// A weight's bits, which rise with the weight since none is negative, and a hash that decides between equal weights.
/// The highest weight is first, of equal ones the least hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    weight: Reverse<u32>,
    hash: u64,
}

impl Rank {
    pub(super) fn new(weight: f32, hash: u64) -> Self {
        Self { weight: Reverse(bits(weight)), hash }
    }
}

/// The bits of a weight, which a comparison of integers orders as the weights are.
#[inline]
pub(super) fn bits(weight: f32) -> u32 {
    // -0 becomes 0.
    (weight + 0.0).to_bits()
}

/// A token, and those around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) dataset: Name,
    pub(super) sample: SampleId,
    /// Where the token stands in its sample.
    pub(super) position: u32,
    /// Tokens of the sample from before to after it.
    pub(super) tokens: Vec<TokenId>,
    /// Where it stands among these.
    pub(super) at: usize,
}

impl Entry {
    pub(super) fn weight(&self) -> f32 {
        f32::from_bits(self.rank.weight.0)
    }

    fn key(&self) -> (Rank, &Name, SampleId, u32) {
        (self.rank, &self.dataset, self.sample, self.position)
    }
}

/// At most `most` entries, the first of a total order over entries, and of each sample the first only.
///
/// An entry that one part dropped has `most` samples before it, so it stays dropped whatever is merged later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Best {
    most: usize,
    /// In the order.
    entries: Vec<Entry>,
}

impl Best {
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Vec::new() }
    }

    /// In the order: highest weight first.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bits of a weight below which nothing is taken in.
    pub(super) fn floor(&self) -> u32 {
        self.entries.get(self.most - 1).map_or(0, |last| last.rank.weight.0)
    }

    /// Whether an entry of this rank may be taken in.
    pub(super) fn takes(&self, rank: Rank) -> bool {
        self.entries.get(self.most - 1).is_none_or(|last| rank <= last.rank)
    }

    pub(super) fn add(&mut self, entry: Entry) {
        let same = |other: &Entry| other.sample == entry.sample && other.dataset == entry.dataset;
        if let Some(at) = self.entries.iter().position(same) {
            if self.entries[at].key() <= entry.key() {
                return;
            }
            self.entries.remove(at);
        }
        let at = self.entries.partition_point(|other| other.key() < entry.key());
        self.entries.insert(at, entry);
        self.entries.truncate(self.most);
    }

    pub(super) fn merge(&mut self, other: Self) {
        other.entries.into_iter().for_each(|entry| self.add(entry));
    }
}
