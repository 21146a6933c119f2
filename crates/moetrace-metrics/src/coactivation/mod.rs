//! Experts that serve the same token: pairs of them, sets of them, and clusters by how often they meet.

mod build;
mod formulas;
mod report;
mod shuffle;
mod sketch;

use moetrace_routing::{LayerIndex, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};

use self::sketch::{DistinctSets, SetHash};
use crate::{MetricsError, MetricsSettings, kept_rows::KeptRows, pairs::PairCounts, passes::Passes};

pub use self::formulas::{conditional, jaccard, lift, phi, pmi_bits};
pub use self::report::{
    CoactivationReport, ExpertPair, ExpertSet, LayerCoactivation, OverallCoactivation, SetCount,
};
pub use self::shuffle::SHUFFLE_DRAWS;
pub use self::sketch::SKETCH_HASHES;

/// Folds routing into pairs and sets of experts; a [`RoutingSink`].
///
/// Totals of two parts [`merge`](Self::merge) into those of both; any split of the same samples, merged in any
/// order, gives the same [`report`](Self::report) to the last bit. After an error the totals hold part of a pass and
/// must be dropped.
#[derive(Debug, Clone)]
pub struct CoactivationMetrics {
    passes: Passes,
    hash: SetHash,
    layers: Vec<LayerTotals>,
    kept: KeptRows,
}

#[derive(Debug, Clone)]
struct LayerTotals {
    layer: LayerIndex,
    /// `[E]`.
    loads: Vec<u64>,
    pairs: PairCounts,
    sets: DistinctSets,
}

impl CoactivationMetrics {
    /// Nothing counted yet.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Self {
        let experts = geometry.experts();
        let totals = |&layer| LayerTotals {
            layer,
            loads: vec![0; experts],
            pairs: PairCounts::new(experts),
            sets: DistinctSets::new(),
        };
        Self {
            passes: Passes::new(geometry, settings),
            hash: SetHash::new(experts),
            layers: geometry.layers().iter().map(totals).collect(),
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
        for (ours, theirs) in self.layers.iter_mut().zip(&other.layers) {
            ours.loads.iter_mut().zip(&theirs.loads).for_each(|(a, b)| *a += b);
            ours.pairs.merge(&theirs.pairs);
            ours.sets.merge(&theirs.sets);
        }
        self.kept.merge(other.kept);
        Ok(())
    }

    /// Every number, from the passes that have ended. Draws the shuffles, which take a second for some ten layers.
    pub fn report(&self) -> CoactivationReport {
        build::build(&self.passes, &self.layers, &self.kept)
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let (ordinal, k) = (self.passes.layer(view)?, view.chosen());
        let totals = &mut self.layers[ordinal];
        for span in self.passes.spans() {
            let chosen = &view.experts()[span.rows.start * k..span.rows.end * k];
            for id in chosen {
                totals.loads[id.index()] += 1;
            }
            totals.pairs.add(chosen, k);
            chosen.chunks_exact(k).for_each(|set| totals.sets.add(self.hash.of(set)));
        }
        self.kept.record(self.passes.spans(), view);
        Ok(())
    }
}

impl RoutingSink for CoactivationMetrics {
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
