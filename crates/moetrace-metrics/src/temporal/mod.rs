//! Temporal locality: how much a token's choice tells about those after it in the same layer of the same sample.
//!
//! Reuse by the next token and by tokens up to 64 apart, runs, working sets, least-recently-used caches of every
//! size, transitions. Everything is counted in one walk over a sample; what is not (working sets of every window,
//! caches of every size) follows from histograms of absences and of stack distances.

mod build;
mod formulas;
mod lags;
mod recency;
mod report;
mod sequence;
mod totals;

use moetrace_routing::{RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};

pub(crate) use self::totals::{bucket_of, bucket_start};
use self::{sequence::Sequence, totals::LayerTotals};
use crate::{MetricsError, MetricsSettings, passes::Passes};

pub use self::formulas::{
    expected_first_two, expected_reuse, expected_reuse_of_loads, expected_run, expected_working_set,
    lru_hit_rate, static_hit_rate, working_set,
};
pub use self::lags::LAGS;
pub use self::report::{
    CacheHitRate, ExpectedLocality, LayerTemporal, LruCaches, OverallTemporal, PositionReport, RunLengths,
    TemporalReport, WorkingSet,
};

/// Lengths in tokens of the windows that distinct experts are counted in.
pub const WORKING_SET_WINDOWS: [usize; 5] = [1, 4, 16, 64, 256];

/// Folds routing into totals of temporal locality; a [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct TemporalMetrics {
    passes: Passes,
    layers: Vec<LayerTotals>,
    sequence: Sequence,
}

impl TemporalMetrics {
    /// Nothing counted yet. The seed of the settings has no part in it.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let experts = geometry.experts();
        Self {
            passes: Passes::new(geometry, settings),
            layers: geometry.layers().iter().map(|&layer| LayerTotals::new(layer, experts)).collect(),
            sequence: Sequence::new(experts),
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        self.passes.merge(&other.passes)?;
        self.layers.iter_mut().zip(other.layers).for_each(|(ours, theirs)| ours.merge(theirs));
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> TemporalReport {
        build::build(&self.passes, &self.layers)
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, k) = (self.passes.layer(view)?, view.chosen());
        let totals = &mut self.layers[ordinal];
        for span in self.passes.spans() {
            let chosen = &view.experts()[span.rows.start * k..span.rows.end * k];
            self.sequence.count(chosen, k, span.first_position, totals);
            if let (Some(transitions), Some(next)) = (&mut totals.transitions, chosen.get(k..)) {
                transitions.add(chosen, next, k);
            }
        }
        self.sequence.end_layer(totals);
        Ok(())
    }
}

impl RoutingSink for TemporalMetrics {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.passes.begin(batch).map_err(SinkError::new)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.passes.end().map_err(SinkError::new)
    }
}
