//! Loads, pairs and transitions as integers, and nothing else: for who computes on from there, at the speed of reading.

use moetrace_routing::{
    ExpertId, LayerIndex, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch,
};
use serde::{Deserialize, Serialize};

use crate::{
    MetricsError, MetricsSettings,
    joint_counts::{self, JointCounts},
    passes::Passes,
};

/// Folds routing into counts of experts, of pairs within a token and of pairs from a token to the next one; a
/// [`RoutingSink`]. It asks for nothing but the experts.
///
/// Counts of two parts [`merge`](Self::merge) into those of both, in any order. After an error the counts hold part of
/// a pass and must be dropped.
#[derive(Debug, Clone)]
pub struct ExpertCounts {
    passes: Passes,
    layers: Vec<LayerTables>,
}

/// Loads are the diagonal of the first: each expert is in a token's set with itself.
#[derive(Debug, Clone)]
struct LayerTables {
    within: JointCounts,
    next: JointCounts,
}

/// What [`ExpertCounts`] yields: E experts, K of them a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertCountsReport {
    /// E.
    pub experts: usize,
    /// K.
    pub chosen: usize,
    /// Tokens counted in each layer.
    pub tokens: u64,
    /// Texts they are of.
    pub samples: u64,
    /// Beginning-of-sequence tokens left out.
    pub bos_excluded: u64,
    /// One entry a routed layer, in their order.
    pub layers: Vec<LayerCounts>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerCounts {
    /// The model's own number of the layer.
    pub layer: u16,
    /// Tokens that chose each expert, `[E]`; their sum is tokens times K.
    pub loads: Vec<u64>,
    /// Tokens that chose both experts of each unordered pair, `[E (E - 1) / 2]` in the order of
    /// [`pair_index`](crate::pairs::pair_index).
    pub pairs: Vec<u64>,
    /// Neighbouring tokens of a text of which the first chose i and the second j, `[E, E]`, i being the row.
    pub transitions: Vec<u64>,
}

impl ExpertCounts {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// [`MetricsError::ManyExperts`] for more than 1,024: their tables would take gigabytes, and no model has as many.
    pub fn new(geometry: &RoutingGeometry, settings: &MetricsSettings) -> Result<Self, MetricsError> {
        let (found, limit) = (geometry.experts(), joint_counts::MOST_EXPERTS);
        let table = || JointCounts::new(found).ok_or(MetricsError::ManyExperts { found, limit });
        let layer = |_: &LayerIndex| Ok(LayerTables { within: table()?, next: table()? });
        let layers = geometry.layers().iter().map(layer).collect::<Result<_, MetricsError>>()?;
        Ok(Self { passes: Passes::new(geometry, settings), layers })
    }

    /// Adds the counts of another part of the run. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::SettingsMismatch`], or
    /// [`MetricsError::MergeInsidePass`] if either side has a pass open.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        self.passes.merge(&other.passes)?;
        for (ours, theirs) in self.layers.iter_mut().zip(other.layers) {
            ours.within.merge(theirs.within);
            ours.next.merge(theirs.next);
        }
        Ok(())
    }

    /// Every count, from the passes that have ended.
    pub fn report(&self) -> ExpertCountsReport {
        let geometry = self.passes.geometry();
        let layers = geometry.layers().iter().zip(&self.layers);
        ExpertCountsReport {
            experts: geometry.experts(),
            chosen: geometry.chosen(),
            tokens: self.passes.tokens(),
            samples: self.passes.samples(),
            bos_excluded: self.passes.bos_excluded(),
            layers: layers.map(|(&layer, tables)| tables.counts(layer)).collect(),
        }
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), MetricsError> {
        let ordinal = self.passes.layer(view)?;
        let (tables, k) = (&mut self.layers[ordinal], view.chosen());
        for span in self.passes.spans() {
            let chosen: &[ExpertId] = &view.experts()[span.rows.start * k..span.rows.end * k];
            tables.within.add_within(chosen, k);
            tables.next.add(chosen, chosen.get(k..).unwrap_or_default(), k);
        }
        Ok(())
    }
}

impl LayerTables {
    fn counts(&self, layer: LayerIndex) -> LayerCounts {
        let (pairs, loads) = self.within.within();
        LayerCounts { layer: layer.0, loads, pairs, transitions: self.next.counts() }
    }
}

impl RoutingSink for ExpertCounts {
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
