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
    samples: u64,
    bos_excluded: u64,
    layers: Vec<LayerTotals>,
    /// Tokens with a tie of the reference in some layer, and those without.
    tied: DivergenceTotals,
    untied: DivergenceTotals,
    losses: LossTotals,
    /// Weights of one row's experts, `[E]`; below 0 where not chosen.
    marks: Vec<f32>,
    pass: Option<Pass>,
}

/// The pass between `begin` and `end`.
#[derive(Debug, Clone)]
struct Pass {
    rows: usize,
    samples: u64,
    bos_excluded: u64,
    counted: Vec<Range<usize>>,
    /// The first layer in which sets differ, `[N]`.
    first: Vec<Option<usize>>,
    /// Whether the reference has a tie in some layer, `[N]`.
    tied: Vec<bool>,
    recorded: usize,
}

impl RoutingFidelity {
    /// Nothing counted yet. Both runs have this geometry.
    pub fn new(geometry: &RoutingGeometry, settings: FidelitySettings) -> Self {
        let layers = geometry.layers().iter().map(|&layer| LayerTotals::new(layer, geometry.chosen()));
        Self {
            geometry: geometry.clone(),
            settings,
            samples: 0,
            bos_excluded: 0,
            layers: layers.collect(),
            tied: DivergenceTotals::new(geometry),
            untied: DivergenceTotals::new(geometry),
            losses: LossTotals::default(),
            marks: vec![NOT_CHOSEN; geometry.experts()],
            pass: None,
        }
    }

    /// A pass begins; `batch` is what both runs have.
    ///
    /// # Errors
    /// [`MetricsError::PassStillOpen`].
    pub fn begin(&mut self, batch: &TokenBatch) -> Result<(), MetricsError> {
        if let Some(open) = &self.pass {
            return Err(MetricsError::PassStillOpen { found: open.recorded, expected: self.layers.len() });
        }
        let left_out = |bos: bool| usize::from(bos && !self.settings.include_bos);
        let counted = batch.spans().iter().map(|s| s.start + left_out(s.begins_with_bos)..s.start + s.len);
        self.pass = Some(Pass {
            rows: batch.len(),
            samples: batch.spans().len() as u64,
            bos_excluded: batch.spans().iter().map(|s| left_out(s.begins_with_bos) as u64).sum(),
            counted: counted.collect(),
            first: vec![None; batch.len()],
            tied: vec![false; batch.len()],
            recorded: 0,
        });
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
        let (layer, k) = (reference.layer(), self.geometry.chosen());
        let Some(pass) = &mut self.pass else {
            return Err(MetricsError::OutsidePass { found: reference.ordinal() });
        };
        if reference.ordinal() != other.ordinal() {
            let (found, expected) = (other.ordinal(), reference.ordinal());
            return Err(MetricsError::LayerPair { layer, found, expected });
        }
        let ordinal = reference.ordinal().index();
        let Some(totals) = self.layers.get_mut(ordinal).filter(|_| ordinal == pass.recorded) else {
            return Err(MetricsError::LayerOrder { found: reference.ordinal(), expected: pass.recorded });
        };
        for view in [reference, other] {
            if view.rows() != pass.rows || view.chosen() != k {
                let (found, chosen, expected) = (view.rows(), view.chosen(), pass.rows);
                return Err(MetricsError::ViewShape { layer, found, chosen, expected, k });
            }
        }
        let pair = Pair {
            margins: reference.margins().ok_or(MetricsError::NotRecorded { layer, plane: "margins" })?,
            // Where all experts are chosen there is no boundary that two of them could tie at.
            boundary: k < self.geometry.experts(),
            views: [reference, other],
            weights: [
                check_rows(reference, self.geometry.experts())?,
                check_rows(other, self.geometry.experts())?,
            ],
        };
        pass.count(totals, &pair, &mut self.marks)?;
        if let (Some(a), Some(b)) = (reference.nll(), other.nll()) {
            for row in pass.counted.iter().cloned().flatten() {
                self.losses.add((layer, row), a[row], b[row])?;
            }
        }
        pass.recorded += 1;
        Ok(())
    }

    /// The pass is complete.
    ///
    /// # Errors
    /// [`MetricsError::EndWithoutBegin`], [`MetricsError::LayersMissing`].
    pub fn end(&mut self) -> Result<(), MetricsError> {
        let Some(pass) = self.pass.take() else { return Err(MetricsError::EndWithoutBegin) };
        if pass.recorded != self.layers.len() {
            return Err(MetricsError::LayersMissing { found: pass.recorded, expected: self.layers.len() });
        }
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
        let shape = |g: &RoutingGeometry| (g.experts(), g.chosen(), g.layers().to_vec());
        if shape(&self.geometry) != shape(&other.geometry) {
            return Err(MetricsError::geometry(&other.geometry, &self.geometry));
        }
        if self.settings != other.settings {
            let (found, expected) = (other.settings.include_bos, self.settings.include_bos);
            return Err(MetricsError::BosMismatch { found, expected });
        }
        if let Some(pass) = self.pass.as_ref().or(other.pass.as_ref()) {
            return Err(MetricsError::MergeInsidePass { found: pass.recorded, expected: self.layers.len() });
        }
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
    /// Counts every row of one layer.
    fn count(
        &mut self,
        totals: &mut LayerTotals,
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
                self.first[row] = self.first[row].or(Some(self.recorded));
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
fn check_rows<'a>(view: &RoutingView<'a>, experts: usize) -> Result<&'a [f32], MetricsError> {
    let (layer, k) = (view.layer(), view.chosen());
    let all = view.weights().ok_or(MetricsError::NotRecorded { layer, plane: "weights" })?;
    for (row, (ids, weights)) in view.experts().chunks_exact(k).zip(all.chunks_exact(k)).enumerate() {
        if let Some(id) = ids.iter().find(|id| id.index() >= experts) {
            return Err(MetricsError::ExpertRange { layer, row, found: id.0, experts });
        }
        // Weights do not rise with the rank: the first stands for all.
        if weights[0] > LARGEST_TERM {
            let (plane, found) = ("weight", weights[0]);
            return Err(MetricsError::TooLarge { layer, row, plane, found, limit: LARGEST_TERM });
        }
    }
    if let Some(logits) = view.logits().filter(|logits| logits.len() != view.rows() * experts) {
        let (found, expected) = (logits.len() / view.rows().max(1), view.rows());
        return Err(MetricsError::ViewShape { layer, found, chosen: k, expected, k });
    }
    Ok(all)
}
