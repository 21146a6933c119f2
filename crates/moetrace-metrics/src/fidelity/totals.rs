//! The integers that a fidelity report is computed from.

use moetrace_routing::{LayerIndex, RoutingGeometry};

use super::agreement::{Agreement, Choice};
use super::distribution;
use crate::MetricsError;
use crate::fixed_sum::{FixedSum, LARGEST_TERM};

/// Where one margin bin ends and the next begins, in units of the score: each a bit more than three times the one
/// before. A row at an edge is in the upper bin.
pub const MARGIN_EDGES: [f32; 6] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3];

/// The largest logit, of either sign: the square of the difference of two still fits a sum.
const LARGEST_LOGIT: f32 = LARGEST_TERM / 2.0;

/// The bin of a margin.
pub(super) fn margin_bin(margin: f32) -> usize {
    MARGIN_EDGES.iter().take_while(|&&edge| margin >= edge).count()
}

/// What is counted in one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerTotals {
    pub(super) layer: LayerIndex,
    /// Rows at which the reference has a tie.
    pub(super) tied: Agreement,
    /// All others by the reference's margin.
    pub(super) by_margin: Vec<Agreement>,
    pub(super) logits: LogitTotals,
}

impl LayerTotals {
    pub(super) fn new(layer: LayerIndex, chosen: usize) -> Self {
        let nothing = Agreement::new(chosen);
        Self {
            layer,
            by_margin: vec![nothing.clone(); MARGIN_EDGES.len() + 1],
            tied: nothing,
            logits: LogitTotals::default(),
        }
    }

    /// Adds a row with the reference's margin, `None` where it has a tie; says whether the sets are the same.
    pub(super) fn add(
        &mut self,
        margin: Option<f32>,
        reference: Choice<'_>,
        other: Choice<'_>,
        marks: &mut [f32],
    ) -> bool {
        let cell = match margin {
            None => &mut self.tied,
            Some(margin) => &mut self.by_margin[margin_bin(margin)],
        };
        cell.add(reference, other, marks)
    }

    /// Rows without a tie.
    pub(super) fn untied(&self) -> Agreement {
        let mut all = self.by_margin[0].clone();
        self.by_margin[1..].iter().for_each(|bin| all.merge(bin));
        all
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.tied.merge(&other.tied);
        self.by_margin.iter_mut().zip(&other.by_margin).for_each(|(a, b)| a.merge(b));
        self.logits.merge(&other.logits);
    }
}

/// What is counted where both recorded logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LogitTotals {
    pub(super) rows: u64,
    pub(super) kl_bits: FixedSum,
    /// Sum over rows of the mean over experts.
    pub(super) squares: FixedSum,
}

impl LogitTotals {
    /// Adds row `row` of a pass, `[E]` each.
    pub(super) fn add(
        &mut self,
        (layer, row): (LayerIndex, usize),
        reference: &[f32],
        other: &[f32],
    ) -> Result<(), MetricsError> {
        let fits = -LARGEST_LOGIT..=LARGEST_LOGIT;
        if let Some(&found) = reference.iter().chain(other).find(|logit| !fits.contains(*logit)) {
            let plane = "router logit";
            return Err(MetricsError::TooLarge { layer, row, plane, found, limit: LARGEST_LOGIT });
        }
        self.rows += 1;
        self.kl_bits.add_large(distribution::kl_bits(reference, other));
        self.squares.add_large(distribution::mean_square(reference, other));
        Ok(())
    }

    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.kl_bits.merge(other.kl_bits);
        self.squares.merge(other.squares);
    }
}

/// Tokens by the first layer whose sets differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DivergenceTotals {
    pub(super) tokens: u64,
    /// `[L]`.
    pub(super) first: Vec<u64>,
}

impl DivergenceTotals {
    pub(super) fn new(geometry: &RoutingGeometry) -> Self {
        Self { tokens: 0, first: vec![0; geometry.layers().len()] }
    }

    pub(super) fn add(&mut self, first: Option<usize>) {
        self.tokens += 1;
        if let Some(count) = first.and_then(|ordinal| self.first.get_mut(ordinal)) {
            *count += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.first.iter_mut().zip(&other.first).for_each(|(a, b)| *a += b);
    }
}

/// Losses where both recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LossTotals {
    pub(super) tokens: u64,
    pub(super) reference: FixedSum,
    pub(super) other: FixedSum,
}

impl LossTotals {
    /// Adds row `row` of a pass; NaN is a token without a loss.
    pub(super) fn add(
        &mut self,
        (layer, row): (LayerIndex, usize),
        reference: f32,
        other: f32,
    ) -> Result<(), MetricsError> {
        if reference.is_nan() || other.is_nan() {
            return Ok(());
        }
        if let Some(found) = [reference, other].into_iter().find(|nll| !(0.0..=LARGEST_TERM).contains(nll)) {
            let plane = "token loss";
            return Err(MetricsError::TooLarge { layer, row, plane, found, limit: LARGEST_TERM });
        }
        self.tokens += 1;
        self.reference.add(f64::from(reference));
        self.other.add(f64::from(other));
        Ok(())
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.reference.merge(other.reference);
        self.other.merge(other.other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_at_an_edge_is_in_the_upper_bin() {
        for (bin, edge) in (1..).zip(MARGIN_EDGES) {
            assert_eq!([margin_bin(edge.next_down()), margin_bin(edge)], [bin - 1, bin]);
        }
        assert_eq!([margin_bin(0.0), margin_bin(0.25), margin_bin(f32::MAX)], [0, 5, 6]);
    }

    #[test]
    fn losses_and_logits_that_no_sum_could_hold_are_refused_and_named() {
        let at = (LayerIndex(3), 5);
        let mut losses = LossTotals::default();
        losses.add(at, f32::NAN, 1.0).unwrap();
        losses.add(at, 1.0, 2.0).unwrap();
        assert_eq!((losses.tokens, losses.other.mean(1)), (1, 2.0));
        for bad in [-0.5, f32::INFINITY, 40_000.0] {
            assert!(losses.add(at, 1.0, bad).is_err());
            assert!(matches!(
                LogitTotals::default().add(at, &[0.0, bad * 1e5], &[0.0, 0.0]),
                Err(MetricsError::TooLarge { row: 5, plane: "router logit", .. })
            ));
        }
        assert!(LogitTotals::default().add(at, &[f32::NAN], &[0.0]).is_err());
        let mut most = LogitTotals::default();
        most.add(at, &[LARGEST_LOGIT, 0.0], &[-LARGEST_LOGIT, 0.0]).unwrap();
        assert_eq!(most.squares.mean(1), f64::from(LARGEST_TERM).powi(2) / 2.0);
    }
}
