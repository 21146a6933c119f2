//! Specialisation: which experts serve which groups of tokens, a group being a data set, a label or a place in the text.

mod build;
mod equalised;
mod kept;
mod report;

use std::collections::BTreeMap;
use std::ops::Range;

use moetrace_routing::{Name, RoutingGeometry, RoutingSink, RoutingView, SinkError, Span, TokenBatch};
use serde::{Deserialize, Serialize};

use self::kept::{GroupKey, GroupTotals, KeptGroups};
use crate::{
    MetricsError, MetricsSettings,
    passes::{CountedSpan, Passes},
    sample_subset::{Kept, Place, SUBSET_TOKENS, SampleSubset},
    temporal::bucket_of,
};

pub use self::build::top_experts;
pub use self::report::{
    EqualisedLayer, EqualisedSamples, GroupLayerReport, GroupReport, GroupsReport, InformationNull,
    OverallGroups,
};

/// Labels that a report tells apart: the most frequent ones. The others of a data set are put together.
pub const MOST_LABELS: usize = 64;

/// Tokens of each data set that are kept for the comparison of equal numbers of tokens.
const EQUAL_TOKENS: u64 = 8_192;

/// What tokens are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The data set of the text.
    Dataset,
    /// Data set and label of the text; texts without a label are in no group.
    Label,
    /// The position in the text: 0, 1, 2 to 3, 4 to 7, doubling up to 32,768 and above.
    Position,
}

/// Expert counts of one sample and what it is grouped by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SampleCounts {
    label: Option<Name>,
    /// Tokens that chose each expert, `[L, E]`; empty before the first layer.
    counts: Vec<u32>,
}

impl Kept for SampleCounts {
    fn merge(&mut self, other: Self) {
        self.label = self.label.take().or(other.label);
        Kept::merge(&mut self.counts, other.counts);
    }
}

/// Folds routing into loads of groups; a [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct GroupMetrics {
    by: GroupBy,
    passes: Passes,
    groups: KeptGroups,
    /// All labels of a data set, those no longer told apart included; only where labels are grouped by.
    labelled: BTreeMap<Name, GroupTotals>,
    subset: SampleSubset<SampleCounts>,
    /// The first samples of each data set; only where data sets are grouped by.
    first_samples: BTreeMap<Name, SampleSubset<SampleCounts>>,
    segments: Vec<Segment>,
    /// Tokens of a segment that chose each expert, `[E]`.
    counts: Vec<u32>,
}

/// Rows of the open pass that are of one sample and one group.
#[derive(Debug, Clone)]
struct Segment {
    rows: Range<usize>,
    bos_excluded: u64,
    dataset: Name,
    /// Where its group stands; `None` if it was dropped.
    group: Option<usize>,
    /// Where its counts are kept; samples do not belong to one position.
    place: Option<Place>,
}

impl GroupMetrics {
    /// Nothing counted yet. The seed of the settings chooses the samples that nulls are drawn from.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings, by: GroupBy) -> Self {
        Self {
            by,
            passes: Passes::new(geometry, settings),
            groups: KeptGroups::new(geometry, by == GroupBy::Label),
            labelled: BTreeMap::new(),
            subset: SampleSubset::new(settings.seed, SUBSET_TOKENS),
            first_samples: BTreeMap::new(),
            segments: Vec::new(),
            counts: vec![0; geometry.experts()],
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], [`MetricsError::GroupMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        if self.by != other.by {
            return Err(MetricsError::GroupMismatch { found: other.by, expected: self.by });
        }
        self.passes.merge(&other.passes)?;
        self.groups.merge(&other.groups);
        for (name, theirs) in &other.labelled {
            let slots = theirs.loads.len();
            self.labelled.entry(name.clone()).or_insert_with(|| GroupTotals::new(slots)).merge(theirs);
        }
        self.subset.merge(other.subset);
        let seed = self.passes.settings().seed;
        for (name, theirs) in other.first_samples {
            self.first_samples
                .entry(name)
                .or_insert_with(|| SampleSubset::new(seed, EQUAL_TOKENS))
                .merge(theirs);
        }
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> GroupsReport {
        build::build(self)
    }

    fn slots(&self) -> usize {
        self.passes.geometry().layers().len() * self.passes.geometry().experts()
    }

    fn begin_pass(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        self.passes.begin(batch)?;
        self.segments.clear();
        let mut segments = Vec::new();
        for (span, counted) in batch.spans().iter().zip(self.passes.spans()) {
            let bos_excluded = if self.by == GroupBy::Position { 0 } else { counted.first_position as u64 };
            segments
                .extend(keys_of(self.by, span, counted).map(|(key, rows)| (key, rows, bos_excluded, span)));
        }
        // All names first: a name added later would move the index of one before it.
        for (key, ..) in &segments {
            self.groups.offer(key);
        }
        for (key, rows, bos_excluded, span) in segments {
            let place = self.keep(span, rows.len() as u64);
            let (dataset, group) = (span.dataset.clone(), self.groups.index(&key));
            self.segments.push(Segment { rows, bos_excluded, dataset, group, place });
        }
        self.subset.trim();
        self.first_samples.values_mut().for_each(SampleSubset::trim);
        Ok(())
    }

    /// Makes room for a sample of so many tokens wherever samples are kept.
    fn keep(&mut self, span: &Span, tokens: u64) -> Option<Place> {
        let (slots, seed) = (self.slots(), self.passes.settings().seed);
        match self.by {
            GroupBy::Position => return None,
            GroupBy::Label => {
                self.labelled.entry(span.dataset.clone()).or_insert_with(|| GroupTotals::new(slots));
            }
            GroupBy::Dataset if tokens > 0 => {
                let first = self.first_samples.entry(span.dataset.clone());
                let first = first.or_insert_with(|| SampleSubset::new(seed, EQUAL_TOKENS));
                first.offer(&span.dataset, span.sample, tokens);
            }
            GroupBy::Dataset => {}
        }
        // A sample that is nothing but its BOS token has nothing to permute.
        let place = (tokens > 0).then(|| self.subset.offer(&span.dataset, span.sample, tokens))?;
        if let Some(kept) = self.subset.get_mut(&place).filter(|_| self.by == GroupBy::Label) {
            kept.label.clone_from(&span.label);
        }
        Some(place)
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, k, slots) = (self.passes.layer(view)?, view.chosen(), self.slots());
        for segment in self.segments.iter().filter(|segment| !segment.rows.is_empty()) {
            self.counts.fill(0);
            for id in &view.experts()[segment.rows.start * k..segment.rows.end * k] {
                self.counts[id.index()] += 1;
            }
            if let Some(group) = segment.group.and_then(|group| self.groups.get_mut(group)) {
                group.add_loads(ordinal, &self.counts);
            }
            if let Some(all) = self.labelled.get_mut(&segment.dataset) {
                all.add_loads(ordinal, &self.counts);
            }
            let Some(place) = &segment.place else { continue };
            let first = self.first_samples.get_mut(&segment.dataset);
            for kept in [self.subset.get_mut(place), first.and_then(|first| first.get_mut(place))] {
                let Some(kept) = kept else { continue };
                kept.counts.resize(slots, 0);
                let cells = &mut kept.counts[ordinal * self.counts.len()..][..self.counts.len()];
                cells.iter_mut().zip(&self.counts).for_each(|(cell, n)| *cell += n);
            }
        }
        Ok(())
    }

    fn end_pass(&mut self) -> Result<(), MetricsError> {
        self.passes.end()?;
        for segment in self.segments.drain(..) {
            let group = segment.group.and_then(|group| self.groups.get_mut(group));
            for totals in [group, self.labelled.get_mut(&segment.dataset)].into_iter().flatten() {
                totals.samples += 1;
                totals.tokens += segment.rows.len() as u64;
                totals.bos_excluded += segment.bos_excluded;
            }
        }
        Ok(())
    }
}

/// The groups of a sample's rows.
fn keys_of(
    by: GroupBy,
    span: &Span,
    counted: &CountedSpan,
) -> impl Iterator<Item = (GroupKey, Range<usize>)> + use<> {
    let mut keys: Vec<(GroupKey, Range<usize>)> = Vec::new();
    match by {
        GroupBy::Dataset => keys.push((GroupKey::Dataset(span.dataset.clone()), counted.rows.clone())),
        GroupBy::Label => {
            let key = span.label.as_ref().map(|label| GroupKey::label(&span.dataset, label));
            keys.extend(key.map(|key| (key, counted.rows.clone())));
        }
        GroupBy::Position => {
            for (row, position) in counted.rows.clone().zip(counted.first_position..) {
                let key = GroupKey::Position(bucket_of(position));
                match keys.last_mut().filter(|(last, _)| *last == key) {
                    Some((_, rows)) => rows.end = row + 1,
                    None => keys.push((key, row..row + 1)),
                }
            }
        }
    }
    keys.into_iter()
}

impl RoutingSink for GroupMetrics {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.begin_pass(batch).map_err(SinkError::new)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.end_pass().map_err(SinkError::new)
    }
}
