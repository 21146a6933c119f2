//! Affinity across layers: what a token's experts in one layer tell about its experts in a later one.
//!
//! Counted for layers next to each other (`ExFlow`, arXiv 2401.08383) and for those two and three apart, which is what a
//! prefetch that starts earlier has to work with.

mod build;
mod null;
mod report;

use moetrace_routing::{ExpertId, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};

use crate::{MetricsError, MetricsSettings, joint_counts::JointCounts, kept_rows::KeptRows, passes::Passes};

pub use self::report::{
    CrossLayerReport, DistanceReport, DistantLink, LayerLink, OverallCrossLayer, RotationNull,
};

/// Layers whose experts are compared are at most this far apart, counted in layers that have a router.
pub const FARTHEST: usize = 3;

/// Folds routing into totals of affinity across layers; a [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct CrossLayerMetrics {
    passes: Passes,
    /// For 1, 2, ... layers apart, one table for each layer that has another so far behind it.
    tables: Vec<Vec<JointCounts>>,
    /// The experts of the last layers of the pass, `[N, K]` each: layer l is at l modulo their number.
    recent: [Vec<ExpertId>; FARTHEST],
    kept: KeptRows,
}

impl CrossLayerMetrics {
    /// Nothing counted yet. The seed chooses the samples of the null, and its draws.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let layers = geometry.layers().len();
        let tables_of = |apart: usize| {
            (apart..layers).filter_map(|_| JointCounts::new(geometry.experts())).collect::<Vec<_>>()
        };
        Self {
            passes: Passes::new(geometry, settings),
            tables: (1..=FARTHEST).map(tables_of).collect(),
            recent: [const { Vec::new() }; FARTHEST],
            kept: KeptRows::new(settings.seed),
        }
    }

    /// Adds the totals of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        self.passes.merge(&other.passes)?;
        let theirs = other.tables.into_iter().flatten();
        self.tables.iter_mut().flatten().zip(theirs).for_each(|(ours, theirs)| ours.merge(theirs));
        self.kept.merge(other.kept);
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> CrossLayerReport {
        build::build(&self.passes, &self.tables, &self.kept)
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, k) = (self.passes.layer(view)?, view.chosen());
        self.kept.record(self.passes.spans(), view);
        for (apart, tables) in (1..).zip(&mut self.tables) {
            let Some(first) = ordinal.checked_sub(apart) else { break };
            let Some(table) = tables.get_mut(first) else { break };
            let before = &self.recent[first % FARTHEST];
            for span in self.passes.spans() {
                let rows = span.rows.start * k..span.rows.end * k;
                table.add(&before[rows.clone()], &view.experts()[rows], k);
            }
        }
        let now = &mut self.recent[ordinal % FARTHEST];
        now.clear();
        now.extend_from_slice(view.experts());
        Ok(())
    }
}

impl RoutingSink for CrossLayerMetrics {
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
