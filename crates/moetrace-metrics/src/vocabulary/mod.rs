//! Vocabulary specialisation: which experts serve which token ids, and which ids an expert stands out by.

mod build;
mod formulas;
mod report;
mod tables;
mod tracked;

use moetrace_routing::{RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};

use self::tables::Table;
use crate::{MetricsError, MetricsSettings, passes::Passes};

pub use self::formulas::{TokenInExpert, above_chance, expected_highest_share, log_odds_z};
pub use self::report::{
    Keyword, OverallVocabulary, SpecialisationScore, TokenSpecialisation, VocabularyLayer, VocabularyReport,
};
pub use self::tracked::{TokenCounts, TrackedTokens};

/// An id is looked at if it occurs at least this often, as in `OLMoE`'s analysis.
pub const LEAST_COUNT: u64 = 10;

/// Tokens that each expert stands out by, at most.
pub const KEYWORDS: usize = 8;

/// Folds routing into counts of token ids by expert; a [`RoutingSink`].
///
/// It needs the ids of a run's tokens: there is nothing to count where they are not recorded. Totals of two parts with
/// the same tracked ids [`merge`](Self::merge) into those of both; any split of the same samples, merged in any order,
/// gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and must be
/// dropped.
#[derive(Debug, Clone)]
pub struct VocabularyMetrics {
    passes: Passes,
    tracked: TrackedTokens,
    input: Totals,
    next: Totals,
    /// Where each token of the open pass stands among the tracked ids, `[N]`.
    slots: Vec<usize>,
}

/// Counts by one token id: of a token itself, or of the one after it.
#[derive(Debug, Clone)]
struct Totals {
    /// Tokens by id, `[V + 1]`, the last being all ids that are not tracked.
    counts: Vec<u64>,
    /// `[L]`.
    layers: Vec<Table>,
}

impl Totals {
    fn new(slots: usize, geometry: &RoutingGeometry) -> Self {
        let layers = geometry.layers().iter().map(|_| Table::new(slots, geometry.experts()));
        Self { counts: vec![0; slots], layers: layers.collect() }
    }

    fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.layers.iter_mut().zip(&other.layers) {
            ours.merge(theirs, &other.counts);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
}

impl VocabularyMetrics {
    /// Nothing counted yet. The seed of the settings has no part in it.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings, tracked: &TrackedTokens) -> Self {
        let slots = tracked.ids().len() + 1;
        Self {
            passes: Passes::new(geometry, settings),
            tracked: tracked.clone(),
            input: Totals::new(slots, geometry),
            next: Totals::new(slots, geometry),
            slots: Vec::new(),
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], [`MetricsError::TrackedMismatch`],
    /// [`MetricsError::TooManyTokens`], or [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if self.tracked != other.tracked {
            let (found, expected) = (other.tracked.ids().len(), self.tracked.ids().len());
            return Err(MetricsError::TrackedMismatch { found, expected });
        }
        self.check_room(other.passes.tokens())?;
        self.passes.merge(&other.passes)?;
        self.input.merge(&other.input);
        self.next.merge(&other.next);
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> VocabularyReport {
        build::build(self)
    }

    /// Whether counters of 32 bits can hold as many tokens more.
    fn check_room(&self, tokens: u64) -> Result<(), MetricsError> {
        let (found, limit) = (self.passes.tokens() + tokens, u64::from(u32::MAX));
        if found <= limit { Ok(()) } else { Err(MetricsError::TooManyTokens { found, limit }) }
    }

    fn begin_pass(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        self.check_room(batch.len() as u64)?;
        self.passes.begin(batch)?;
        self.slots.clear();
        self.slots.extend(batch.token_ids().iter().map(|&id| self.tracked.slot(id)));
        Ok(())
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, k) = (self.passes.layer(view)?, view.chosen());
        let (input, next) = (&mut self.input.layers[ordinal], &mut self.next.layers[ordinal]);
        for span in self.passes.spans() {
            let rows = view.experts()[span.rows.start * k..span.rows.end * k].chunks_exact(k);
            let slots = &self.slots[span.rows.clone()];
            for (ids, &slot) in rows.clone().zip(slots) {
                input.add(slot, ids);
            }
            // The last token of a sample has none after it.
            for (ids, &slot) in rows.zip(slots.iter().skip(1)) {
                next.add(slot, ids);
            }
        }
        Ok(())
    }

    fn end_pass(&mut self) -> Result<(), MetricsError> {
        for span in self.passes.spans() {
            let slots = &self.slots[span.rows.clone()];
            for &slot in slots {
                self.input.counts[slot] += 1;
            }
            for &slot in slots.iter().skip(1) {
                self.next.counts[slot] += 1;
            }
        }
        self.passes.end()
    }
}

impl RoutingSink for VocabularyMetrics {
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
