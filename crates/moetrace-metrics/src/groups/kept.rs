//! Groups by name, as many as memory is given for, whatever the order they come in.

use moetrace_routing::{Name, RoutingGeometry};

use crate::random;

/// Bytes of load tables that labels may take: 1,213 labels at 27 layers of 64 experts.
const LABEL_BYTES: usize = 1 << 24;

/// What tokens are counted apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupKey {
    Dataset(Name),
    /// Labels of several data sets are not the same label. In the order of a hash: where there are too many, those
    /// kept are a sample of all.
    Label {
        hash: u64,
        dataset: Name,
        label: Name,
    },
    /// Bucket of positions in the sample.
    Position(usize),
}

impl GroupKey {
    pub(super) fn label(dataset: &Name, label: &Name) -> Self {
        let hash = random::hash(random::hash(0, dataset, 0), label, 0);
        Self::Label { hash, dataset: dataset.clone(), label: label.clone() }
    }
}

/// What is counted for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupTotals {
    /// Samples with a token in it, and those without any token that counts.
    pub(super) samples: u64,
    pub(super) tokens: u64,
    pub(super) bos_excluded: u64,
    /// Tokens that chose each expert, `[L, E]`.
    pub(super) loads: Vec<u64>,
}

impl GroupTotals {
    pub(super) fn new(slots: usize) -> Self {
        Self { samples: 0, tokens: 0, bos_excluded: 0, loads: vec![0; slots] }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.tokens += other.tokens;
        self.bos_excluded += other.bos_excluded;
        self.loads.iter_mut().zip(&other.loads).for_each(|(a, b)| *a += b);
    }

    /// Takes away what is a part of this.
    pub(super) fn subtract(&mut self, part: &Self) {
        self.samples -= part.samples;
        self.tokens -= part.tokens;
        self.bos_excluded -= part.bos_excluded;
        self.loads.iter_mut().zip(&part.loads).for_each(|(a, b)| *a -= b);
    }

    pub(super) fn add_loads(&mut self, ordinal: usize, counts: &[u32]) {
        let loads = &mut self.loads[ordinal * counts.len()..][..counts.len()];
        loads.iter_mut().zip(counts).for_each(|(load, &n)| *load += u64::from(n));
    }
}

/// The groups with the least keys, at most `bound` of them.
///
/// A group that one part dropped has `bound` groups before it, so it stays dropped whatever is merged later; and one
/// that is kept was never dropped by any part, so that its totals are whole.
#[derive(Debug, Clone)]
pub(super) struct KeptGroups {
    bound: usize,
    slots: usize,
    /// Ascending by key.
    groups: Vec<(GroupKey, GroupTotals)>,
    /// Whether any group was ever dropped.
    dropped: bool,
}

impl KeptGroups {
    /// Room for all groups, or for as many labels as [`LABEL_BYTES`] hold, 64 at least.
    pub(super) fn new(geometry: &RoutingGeometry, labels: bool) -> Self {
        let slots = geometry.layers().len() * geometry.experts();
        let bound = (LABEL_BYTES / (slots * size_of::<u64>())).max(super::MOST_LABELS);
        Self { bound: if labels { bound } else { usize::MAX }, slots, groups: Vec::new(), dropped: false }
    }

    /// Makes room for a group; [`index`](Self::index) says after the last one where it stands.
    pub(super) fn offer(&mut self, key: &GroupKey) {
        if let Err(at) = self.groups.binary_search_by(|(k, _)| k.cmp(key)) {
            if at >= self.bound {
                self.dropped = true;
                return;
            }
            self.groups.insert(at, (key.clone(), GroupTotals::new(self.slots)));
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.dropped |= self.groups.len() > self.bound;
        self.groups.truncate(self.bound);
    }

    /// Where a group stands, unless it was dropped.
    pub(super) fn index(&self, key: &GroupKey) -> Option<usize> {
        self.groups.binary_search_by(|(k, _)| k.cmp(key)).ok()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut GroupTotals> {
        self.groups.get_mut(index).map(|(_, totals)| totals)
    }

    pub(super) fn all(&self) -> &[(GroupKey, GroupTotals)] {
        &self.groups
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.dropped |= other.dropped;
        for (key, theirs) in &other.groups {
            self.offer(key);
            if let Some(ours) = self.index(key).and_then(|index| self.get_mut(index)) {
                ours.merge(theirs);
            }
        }
    }

    /// How many groups there were, and whether that is an estimate: where B of a hash's 2^64 values are kept and the
    /// highest is h, (B - 1) 2^64 / h are to be expected (Bar-Yossef et al., *Counting distinct elements in a data
    /// stream*, 2002).
    pub(super) fn distinct(&self) -> (u64, bool) {
        match self.groups.last() {
            Some((GroupKey::Label { hash, .. }, _)) if self.dropped => {
                let fraction = *hash as f64 / 2f64.powi(64);
                (((self.bound - 1) as f64 / fraction).round() as u64, true)
            }
            _ => (self.groups.len() as u64, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moetrace_routing::LayerIndex;

    fn fold(labels: std::ops::Range<u32>) -> KeptGroups {
        // 2^24 bytes over 8 * 32,768 slots: the least bound, 64.
        let geometry = RoutingGeometry::new(32_768, 1, 1, vec![LayerIndex(0)]).unwrap();
        let mut groups = KeptGroups::new(&geometry, true);
        for label in labels {
            let key = GroupKey::label(&"d".into(), &label.to_string().as_str().into());
            groups.offer(&key);
            if let Some(totals) = groups.index(&key).and_then(|index| groups.get_mut(index)) {
                totals.tokens += 1 + u64::from(label);
            }
        }
        groups
    }

    #[test]
    fn the_kept_labels_do_not_depend_on_order_and_their_number_is_estimated() {
        let whole = fold(0..5000);
        for parts in [[0..1700, 1700..3000, 3000..5000], [3000..5000, 0..1700, 1700..3000]] {
            let mut merged = fold(0..0);
            for part in parts {
                merged.merge(&fold(part));
            }
            assert_eq!(merged.groups, whole.groups);
            assert_eq!(merged.distinct(), whole.distinct());
        }
        let (distinct, is_estimate) = whole.distinct();
        // Of 64 kept values the standard error is 1 / sqrt(62) = 13 %: three of them.
        assert!(is_estimate && (distinct as f64 / 5000.0 - 1.0).abs() < 0.39, "{distinct}");
        assert_eq!(fold(0..64).distinct(), (64, false));
    }
}
