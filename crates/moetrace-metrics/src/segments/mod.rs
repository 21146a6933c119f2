//! Predictability of segments: how well one fixed group of experts, or one cache, serves a stretch of tokens.
//!
//! Two scores of Liang et al., *Not all models suit expert offloading* (arXiv 2505.16056): segment routing best
//! performance (SRP) and segment cache best hit rate (SCH). Both know the segment they serve: they say what routing
//! allows, not what a predictor reaches. SCH is that of the paper's first version, a cache that does not change
//! within a segment; the third version has one that changes and looks ahead.

mod build;
mod formulas;
mod report;
mod resample;
mod windows;

use moetrace_routing::{LayerIndex, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};

use self::windows::{SegmentTotals, SlidingSegments};
use crate::{MetricsError, MetricsSettings, kept_rows::KeptRows, passes::Passes};

pub use self::formulas::{
    BestGroup, above_chance, best_group, best_group_of_counts, best_hit_rate, expected_best_group,
};
pub use self::report::{
    Interval, LayerSegments, OverallCache, OverallSegments, SegmentCache, SegmentReport, SegmentScores,
};

/// Tokens in a segment.
pub const SEGMENT_LENGTHS: [usize; 4] = [4, 16, 64, 256];

/// Sizes of caches over K.
pub const CACHE_RATIOS: [f64; 5] = [1.0, 1.5, 2.0, 3.0, 4.0];

/// Folds routing into totals of segments; a [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct SegmentMetrics {
    passes: Passes,
    layers: Vec<LayerTotals>,
    kept: KeptRows,
    segments: SlidingSegments,
}

/// What is counted in one layer.
#[derive(Debug, Clone)]
struct LayerTotals {
    layer: LayerIndex,
    /// Tokens that chose each expert, `[E]`.
    loads: Vec<u64>,
    /// One for each of [`SEGMENT_LENGTHS`].
    lengths: Vec<SegmentTotals>,
}

impl LayerTotals {
    fn new(layer: LayerIndex, experts: usize) -> Self {
        Self { layer, loads: vec![0; experts], lengths: SegmentTotals::of_all_lengths(experts) }
    }

    fn merge(&mut self, other: &Self) {
        self.loads.iter_mut().zip(&other.loads).for_each(|(a, b)| *a += b);
        self.lengths.iter_mut().zip(&other.lengths).for_each(|(a, b)| a.merge(b));
    }
}

impl SegmentMetrics {
    /// Nothing counted yet. The seed chooses the samples that intervals and nulls are drawn from, and the draws.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let experts = geometry.experts();
        Self {
            passes: Passes::new(geometry, settings),
            layers: geometry.layers().iter().map(|&layer| LayerTotals::new(layer, experts)).collect(),
            kept: KeptRows::new(settings.seed),
            segments: SlidingSegments::new(experts),
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        self.passes.merge(&other.passes)?;
        self.layers.iter_mut().zip(&other.layers).for_each(|(ours, theirs)| ours.merge(theirs));
        self.kept.merge(other.kept);
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> SegmentReport {
        build::build(&self.passes, &self.layers, &self.kept)
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, k) = (self.passes.layer(view)?, view.chosen());
        self.kept.record(self.passes.spans(), view);
        let totals = &mut self.layers[ordinal];
        for span in self.passes.spans() {
            let chosen = &view.experts()[span.rows.start * k..span.rows.end * k];
            for id in chosen {
                totals.loads[id.index()] += 1;
            }
            self.segments.count(chosen, k, &mut totals.lengths);
        }
        Ok(())
    }
}

impl RoutingSink for SegmentMetrics {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.passes.begin(batch).map_err(SinkError::new)?;
        self.kept.begin(&self.passes);
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.passes.end().map_err(SinkError::new)
    }
}
