//! One layer's columns, row by row: what a router can have decided, and what its numbers must be.

use moetrace_routing::{ExpertId, RoutingGeometry, RoutingPlanes};

use super::FaultKind;
use super::logits::{ScoreRounding, check_logits};
use crate::Manifest;

/// How far a sum of weights may be from what it should be. Weights may have been rounded to bf16 twice, and divided by
/// a sum in bf16: three times 2^-9. What `f16` files round, and the sum of K in f32, is far less than the rest of this.
const SUM_TOLERANCE: f32 = 1.0 / 128.0;

/// What the K weights of a token sum up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WeightSum {
    /// 1: they are divided by their sum.
    One,
    /// At most 1, and K / E at least: the K largest scores of a softmax.
    Softmax,
    /// More than 0: another tool recorded them, and does not say how they were made.
    Unknown,
}

impl WeightSum {
    pub(super) fn of(manifest: &Manifest) -> Self {
        match manifest.model.renormalised {
            Some(true) => Self::One,
            None if manifest.imported.is_some() => Self::Unknown,
            // Every family that moetrace runs has a softmax; whether it renormalises was not noted at first.
            Some(false) | None => Self::Softmax,
        }
    }

    fn range(self, geometry: &RoutingGeometry) -> (f32, f32) {
        let least = geometry.chosen() as f32 / geometry.experts() as f32;
        match self {
            Self::One => (1.0 - SUM_TOLERANCE, 1.0 + SUM_TOLERANCE),
            Self::Softmax => (least * (1.0 - SUM_TOLERANCE), 1.0 + SUM_TOLERANCE),
            Self::Unknown => (0.0, f32::INFINITY),
        }
    }
}

/// What one layer's rows are checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerRules<'a> {
    pub(super) geometry: &'a RoutingGeometry,
    pub(super) weight_sum: WeightSum,
    /// Whether the file says that weights keep ten bits of mantissa.
    pub(super) rounded: bool,
    /// Whether scores are a softmax, so that margins are at most 1.
    pub(super) is_softmax: bool,
    /// How far the scores that were compared may have been rounded.
    pub(super) scores: ScoreRounding,
}

/// Told of each fault: its kind, the row, and what is wrong.
pub(super) type Tell<'t> = dyn FnMut(FaultKind, usize, &dyn Fn() -> String) + 't;

impl LayerRules<'_> {
    /// Checks the rows of one layer; every plane has as many values as the rows ask for.
    pub(super) fn check(&self, planes: &RoutingPlanes<'_>, tell: &mut Tell<'_>) {
        let (e, k) = (self.geometry.experts(), self.geometry.chosen());
        for (row, ids) in planes.experts.chunks_exact(k).enumerate() {
            check_ids(ids, row, e, tell);
        }
        for (row, weights) in planes.weights.unwrap_or_default().chunks_exact(k).enumerate() {
            self.check_weights(weights, row, tell);
        }
        let most = if self.is_softmax { 1.0 } else { f32::INFINITY };
        within(FaultKind::Margin, "margin", planes.margins, most, tell);
        // The largest entropy of E choices, and the rounding of one f32 of its size.
        let most = (e as f32).log2() * (1.0 + f32::EPSILON);
        within(FaultKind::GateEntropy, "gate entropy", planes.gate_entropy, most, tell);
        check_certainty(planes, k, tell);
        if self.weight_sum == WeightSum::Softmax {
            self.check_softmax(planes, tell);
        }
        within(FaultKind::SharedGate, "gate of the shared expert", planes.shared_gate, 1.0, tell);
        for (row, logits) in planes.logits.unwrap_or_default().chunks_exact(e).enumerate() {
            check_logits(logits, planes, row, k, self.scores, tell);
        }
    }

    /// All scores of a softmax sum up to 1, and none that was not chosen is above the K-th less the margin. Weights that
    /// are too small for that were lost, which a sum alone does not show where the first ones are large.
    fn check_softmax(&self, planes: &RoutingPlanes<'_>, tell: &mut Tell<'_>) {
        let (Some(weights), Some(margins)) = (planes.weights, planes.margins) else { return };
        let (k, others) = (self.geometry.chosen(), (self.geometry.experts() - self.geometry.chosen()) as f32);
        let (least, _) = self.weight_sum.range(self.geometry);
        for (row, (weights, margin)) in weights.chunks_exact(k).zip(margins).enumerate() {
            let (sum, last) = (weights.iter().sum::<f32>(), weights[k - 1]);
            let rest = others * (last - margin).max(0.0);
            // Last weight and margin are rounded each by itself, to bf16 at worst, and so the difference by parts of them.
            let tolerance = 2.0 * SUM_TOLERANCE + others * last * SUM_TOLERANCE;
            // A sum or a margin that cannot be at all has been told.
            if sum >= least && (0.0..=1.0).contains(margin) && sum + rest < 1.0 - tolerance {
                tell(FaultKind::WeightSum, row, &|| {
                    format!(
                        "the weights sum up to {sum}, and all other scores to {rest} at most, expected 1 together"
                    )
                });
            }
        }
    }

    fn check_weights(&self, weights: &[f32], row: usize, tell: &mut Tell<'_>) {
        if let Some(bad) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return tell(FaultKind::Weight, row, &|| {
                format!("a weight is {bad}, expected a number of at least 0")
            });
        }
        if weights.iter().all(|&weight| weight == 0.0) {
            return tell(FaultKind::ZeroWeights, row, &|| format!("all {} weights are 0", weights.len()));
        }
        if let Some([before, found]) = weights.array_windows().find(|[before, found]| found > before) {
            tell(FaultKind::WeightOrder, row, &|| format!("weight {found} follows {before}"));
        }
        let (least, most) = self.weight_sum.range(self.geometry);
        let sum: f32 = weights.iter().sum();
        if !(least..=most).contains(&sum) {
            tell(FaultKind::WeightSum, row, &|| match self.weight_sum {
                WeightSum::One => format!("the weights sum up to {sum}, expected 1"),
                _ => format!("the weights sum up to {sum}, expected {least} to 1"),
            });
        }
        if let Some(long) = weights.iter().find(|weight| self.rounded && weight.to_bits() & 0x1FFF != 0) {
            tell(FaultKind::Rounding, row, &|| format!("weight {long} has more than ten bits of mantissa"));
        }
    }
}

fn check_ids(ids: &[ExpertId], row: usize, experts: usize, tell: &mut Tell<'_>) {
    if let Some(id) = ids.iter().find(|id| id.index() >= experts) {
        tell(FaultKind::ExpertRange, row, &|| format!("expert {id}, expected 0 to {}", experts - 1));
    }
    let twice = ids.iter().enumerate().find(|(rank, id)| ids[..*rank].contains(id));
    if let Some((_, id)) = twice {
        tell(FaultKind::ExpertTwice, row, &|| format!("expert {id} is chosen twice"));
    }
}

/// An entropy of 0 says that one expert has everything. What a second one has would be in it: a score p adds more than
/// p bits, and is not 0 in f64 where it is not 0 in f32.
fn check_certainty(planes: &RoutingPlanes<'_>, k: usize, tell: &mut Tell<'_>) {
    let (Some(weights), Some(entropies)) = (planes.weights, planes.gate_entropy) else { return };
    for (row, (weights, &bits)) in weights.chunks_exact(k).zip(entropies).enumerate() {
        if let Some(second) = weights.get(1).filter(|&&second| bits == 0.0 && second > 0.0) {
            tell(FaultKind::GateEntropy, row, &|| {
                format!("the gate entropy is 0, though the second weight is {second}")
            });
        }
    }
}

/// Numbers from 0 to `most`.
fn within(kind: FaultKind, name: &str, values: Option<&[f32]>, most: f32, tell: &mut Tell<'_>) {
    for (row, found) in values.unwrap_or_default().iter().enumerate() {
        if !(found.is_finite() && (0.0..=most).contains(found)) {
            let expected = if most.is_finite() { format!("0 to {most}") } else { "0 or more".to_owned() };
            tell(kind, row, &|| format!("the {name} is {found}, expected {expected}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use moetrace_routing::LayerIndex;

    use super::*;

    /// What is told of two tokens that chose 2 of 4 experts.
    fn told(planes: RoutingPlanes<'_>) -> Vec<(FaultKind, usize, String)> {
        let geometry = RoutingGeometry::new(4, 2, 1, vec![LayerIndex(0)]).unwrap();
        let rules = LayerRules {
            geometry: &geometry,
            weight_sum: WeightSum::Softmax,
            rounded: false,
            is_softmax: true,
            scores: ScoreRounding::None,
        };
        let ids = [1, 0, 3, 2].map(ExpertId);
        let mut faults = Vec::new();
        let planes = RoutingPlanes { experts: &ids, ..planes };
        rules.check(&planes, &mut |kind, row, what| faults.push((kind, row, what())));
        faults
    }

    #[test]
    fn certainty_leaves_nothing_for_a_second_expert() {
        let faults = told(RoutingPlanes {
            weights: Some(&[1.0, 0.0, 0.75, 0.25]),
            gate_entropy: Some(&[0.0, 0.0]),
            ..RoutingPlanes::default()
        });
        let what = "the gate entropy is 0, though the second weight is 0.25".to_owned();
        assert_eq!(faults, [(FaultKind::GateEntropy, 1, what)]);
    }

    #[test]
    fn weights_that_leave_too_little_for_a_softmax_were_lost() {
        let of = |margins| {
            let weights = Some(&[0.6, 0.0, 0.5, 0.25][..]);
            told(RoutingPlanes { weights, margins: Some(margins), ..RoutingPlanes::default() })
        };
        let what =
            "the weights sum up to 0.6, and all other scores to 0 at most, expected 1 together".to_owned();
        assert_eq!(of(&[0.0, 0.125]), [(FaultKind::WeightSum, 0, what)]);
        // With a larger margin two others cannot make up for the last quarter.
        assert_eq!(of(&[0.0, 0.2]).iter().map(|fault| fault.1).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_shared_expert_s_gate_is_behind_a_sigmoid() {
        let faults = told(RoutingPlanes { shared_gate: Some(&[1.5, f32::NAN]), ..RoutingPlanes::default() });
        let expected = |row, found: &str| {
            let what = format!("the gate of the shared expert is {found}, expected 0 to 1");
            (FaultKind::SharedGate, row, what)
        };
        assert_eq!(faults, [expected(0, "1.5"), expected(1, "NaN")]);
    }

    #[test]
    fn traces_of_other_tools_may_sum_up_to_anything_but_nothing() {
        let geometry = RoutingGeometry::new(4, 2, 1, vec![LayerIndex(0)]).unwrap();
        for (rule, sum, is_sound) in [
            (WeightSum::Unknown, 2.5, true),
            (WeightSum::Unknown, 0.01, true),
            (WeightSum::One, 1.0, true),
            // Three roundings to bf16.
            (WeightSum::One, 1.0 + 3.0 / 512.0, true),
            (WeightSum::One, 0.9, false),
            (WeightSum::Softmax, 0.5, true),
            (WeightSum::Softmax, 0.4, false),
            (WeightSum::Softmax, 1.1, false),
        ] {
            let (least, most) = rule.range(&geometry);
            assert_eq!((least..=most).contains(&sum), is_sound, "{rule:?} {sum}");
        }
    }
}
