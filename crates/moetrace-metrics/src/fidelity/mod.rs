//! Routing fidelity: how often another router chose what the reference chose, over the same tokens.
//!
//! The same numbers are router saturation where the two are checkpoints of one training run (`OLMoE`,
//! arXiv 2409.02060), and the price of a precision where they are one model computed twice.

mod agreement;
mod build;
mod distribution;
mod report;
mod totals;

use std::ops::Range;

use moetrace_routing::{RoutingGeometry, RoutingView, TokenBatch};

use self::agreement::{Choice, NOT_CHOSEN};
use self::totals::{DivergenceTotals, LayerTotals, LossTotals};
use crate::MetricsError;
use crate::fixed_sum::LARGEST_TERM;
use crate::pass_order::{PassOrder, check_geometry, counted_rows};

pub use self::distribution::{kl_bits, mean_square};
pub use self::report::{
    AgreementReport, AgreementSpread, DivergenceReport, FidelityReport, FirstDivergence, LayerFidelity,
    LogitFidelity, LossFidelity, MarginBin, OverallFidelity,
};
pub use self::totals::MARGIN_EDGES;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FidelitySettings {
    /// Whether beginning-of-sequence rows count; by default they don't, as in
    /// [`MetricsSettings`](crate::MetricsSettings).
    pub include_bos: bool,
}

/// Folds pairs of views, a reference and another, into totals.
///
/// Whoever has two producers of the same passes calls [`begin`](Self::begin), [`record`](Self::record) for each MoE
/// layer in ascending order, and [`end`](Self::end). Totals of two parts [`merge`](Self::merge) into those of both;
/// any split, merged in any order, gives the same [`report`](Self::report) to the last bit. After an error the
/// totals hold part of a pass and must be dropped.
#[derive(Debug, Clone)]
pub struct RoutingFidelity {
    geometry: RoutingGeometry,
    settings: FidelitySettings,
    order: PassOrder,
    samples: u64,
    bos_excluded: u64,
    layers: Vec<LayerTotals>,
    /// Tokens with a tie of the reference in some layer, and those without.
    tied: DivergenceTotals,
    untied: DivergenceTotals,
    losses: LossTotals,
    /// Weights of one row's experts, `[E]`; below 0 where not chosen.
    marks: Vec<f32>,
    pass: Pass,
}

/// The pass between `begin` and `end`.
#[derive(Debug, Clone, Default)]
struct Pass {
    samples: u64,
    bos_excluded: u64,
    counted: Vec<Range<usize>>,
    /// The first layer in which sets differ, `[N]`.
    first: Vec<Option<usize>>,
    /// Whether the reference has a tie in some layer, `[N]`.
    tied: Vec<bool>,
}

impl RoutingFidelity {
    /// Nothing counted yet. Both runs have this geometry.
    pub fn new(geometry: &RoutingGeometry, settings: FidelitySettings) -> Self {
        let layers = geometry.layers().iter().map(|&layer| LayerTotals::new(layer, geometry.chosen()));
        Self {
            geometry: geometry.clone(),
            settings,
            order: PassOrder::new(geometry),
            samples: 0,
            bos_excluded: 0,
            layers: layers.collect(),
            tied: DivergenceTotals::new(geometry),
            untied: DivergenceTotals::new(geometry),
            losses: LossTotals::default(),
            marks: vec![NOT_CHOSEN; geometry.experts()],
            pass: Pass::default(),
        }
    }

    /// A pass begins; `batch` is what both runs have.
    ///
    /// # Errors
    /// [`MetricsError::PassStillOpen`].
    pub fn begin(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        self.order.begin(batch.len())?;
        let spans = batch.spans().iter().map(|span| counted_rows(span, self.settings.include_bos));
        let (counted, left_out): (Vec<Range<usize>>, Vec<u64>) = spans.unzip();
        self.pass = Pass {
            samples: batch.spans().len() as u64,
            bos_excluded: left_out.iter().sum(),
            counted,
            first: vec![None; batch.len()],
            tied: vec![false; batch.len()],
        };
        Ok(())
    }

    /// One MoE layer of the pass as both routers decided it.
    ///
    /// # Errors
    /// [`MetricsError::OutsidePass`], [`MetricsError::LayerOrder`], [`MetricsError::LayerPair`],
    /// [`MetricsError::ViewShape`], [`MetricsError::ExpertRange`], [`MetricsError::NotRecorded`] without weights, or
    /// without margins of the reference, and [`MetricsError::TooLarge`] for a number that no sum could hold.
    pub fn record(
        &mut self,
        reference: &RoutingView<'_>,
        other: &RoutingView<'_>,
    ) -> Result<(), MetricsError> {
        let ordinal = self.order.pair(reference, other)?;
        let (layer, experts) = (reference.layer(), self.geometry.experts());
        let pair = Pair {
            margins: reference.margins().ok_or(MetricsError::NotRecorded { layer, plane: "margins" })?,
            // Where all experts are chosen there is no boundary that two of them could tie at.
            boundary: self.geometry.chosen() < experts,
            views: [reference, other],
            weights: [check_planes(reference, experts)?, check_planes(other, experts)?],
        };
        self.pass.count((ordinal, &mut self.layers[ordinal]), &pair, &mut self.marks)?;
        if let (Some(a), Some(b)) = (reference.nll(), other.nll()) {
            for row in self.pass.counted.iter().cloned().flatten() {
                self.losses.add((layer, row), a[row], b[row])?;
            }
        }
        Ok(())
    }

    /// The pass is complete.
    ///
    /// # Errors
    /// [`MetricsError::EndWithoutBegin`], [`MetricsError::LayersMissing`].
    pub fn end(&mut self) -> Result<(), MetricsError> {
        self.order.end()?;
        let pass = std::mem::take(&mut self.pass);
        for row in pass.counted.into_iter().flatten() {
            let totals = if pass.tied[row] { &mut self.tied } else { &mut self.untied };
            totals.add(pass.first[row]);
        }
        self.samples += pass.samples;
        self.bos_excluded += pass.bos_excluded;
        Ok(())
    }

    /// Adds the totals of another part. On an error nothing has been added.
    ///
    /// # Errors
    /// [`MetricsError::GeometryMismatch`], [`MetricsError::BosMismatch`], or [`MetricsError::MergeInsidePass`] if
    /// either side has a pass open.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        check_geometry(&other.geometry, &self.geometry)?;
        if self.settings != other.settings {
            let (found, expected) = (other.settings.include_bos, self.settings.include_bos);
            return Err(MetricsError::BosMismatch { found, expected });
        }
        self.order.check_merge(&other.order)?;
        self.samples += other.samples;
        self.bos_excluded += other.bos_excluded;
        self.layers.iter_mut().zip(&other.layers).for_each(|(ours, theirs)| ours.merge(theirs));
        self.tied.merge(&other.tied);
        self.untied.merge(&other.untied);
        self.losses.merge(&other.losses);
        Ok(())
    }

    /// Every number, from the passes that have ended.
    pub fn report(&self) -> FidelityReport {
        build::build(self)
    }
}

/// One layer as both routers decided it; the reference comes first.
struct Pair<'a> {
    views: [&'a RoutingView<'a>; 2],
    /// `[N, K]` each.
    weights: [&'a [f32]; 2],
    /// The reference's, `[N]`.
    margins: &'a [f32],
    /// Whether two experts can tie at rank K.
    boundary: bool,
}

impl Pass {
    /// Counts every row of one layer, given its ordinal.
    fn count(
        &mut self,
        (ordinal, totals): (usize, &mut LayerTotals),
        pair: &Pair<'_>,
        marks: &mut [f32],
    ) -> Result<(), MetricsError> {
        let [reference, other] = pair.views;
        let (e, logits) = (marks.len(), reference.logits().zip(other.logits()));
        for row in self.counted.iter().cloned().flatten() {
            let margin = pair.margins[row];
            let tie = pair.boundary && margin == 0.0;
            let same = totals.add(
                (!tie).then_some(margin),
                Choice::of(reference, pair.weights[0], row),
                Choice::of(other, pair.weights[1], row),
                marks,
            );
            if !same {
                self.first[row] = self.first[row].or(Some(ordinal));
            }
            self.tied[row] |= tie;
            if let Some((a, b)) = logits {
                totals.logits.add((totals.layer, row), &a[row * e..][..e], &b[row * e..][..e])?;
            }
        }
        Ok(())
    }
}

/// The weights of a view whose numbers can be counted.
fn check_planes<'a>(view: &RoutingView<'a>, experts: usize) -> Result<&'a [f32], MetricsError> {
    let (layer, k) = (view.layer(), view.chosen());
    let all = view.weights().ok_or(MetricsError::NotRecorded { layer, plane: "weights" })?;
    // Weights do not rise with the rank: the first stands for all.
    let highest = all.chunks_exact(k).map(|weights| weights[0]).enumerate();
    if let Some((row, found)) = highest.into_iter().find(|&(_, weight)| weight > LARGEST_TERM) {
        return Err(MetricsError::TooLarge { layer, row, plane: "weight", found, limit: LARGEST_TERM });
    }
    if let Some(logits) = view.logits().filter(|logits| logits.len() != view.rows() * experts) {
        let (found, expected) = (logits.len() / view.rows().max(1), view.rows());
        return Err(MetricsError::ViewShape { layer, found, chosen: k, expected, k });
    }
    Ok(all)
}
