//! Recorded router logits against what was chosen by them.

use moetrace_routing::{ExpertId, RoutingPlanes};

use super::FaultKind;
use super::layers::Tell;
use crate::Manifest;

/// How far an entropy may be from that of the recorded logits: exponentials in f32, each off by some 2^-23.
const ENTROPY_TOLERANCE: f64 = 1e-5;

/// How far, by its size, a score may be from that of the recorded logits: an exponential, a sum of E and a quotient in
/// f32, on whatever device. Scores that are this near were ordered by their rounding.
const SCORE_TOLERANCE: f64 = 1.0 / 1_048_576.0;

/// What the scores may have been rounded to before the largest were chosen. `DeepSeek`'s gate takes the largest of a
/// softmax in the model's type: logits that differ may have one score there, and of equal scores the lower id wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScoreRounding {
    /// Nothing less than f32.
    None,
    /// bfloat16: 7 bits of mantissa.
    Bf16,
    /// IEEE half precision: 10 bits of mantissa, steps of 2^-24 at least.
    F16,
}

impl ScoreRounding {
    /// That of a run; where the router computes in f32 there is none.
    pub(super) fn of(manifest: &Manifest) -> Self {
        match (manifest.model.router_dtype.as_str(), manifest.model.compute_dtype.as_str()) {
            ("f32", _) => Self::None,
            (_, "bf16") => Self::Bf16,
            (_, "f16") => Self::F16,
            _ => Self::None,
        }
    }

    /// The step of the type at `score`: two scores that round to one value are no further apart.
    fn step(self, score: f64) -> f64 {
        let (mantissa, least) = match self {
            Self::None => return 0.0,
            Self::Bf16 => (7, -133),
            Self::F16 => (10, -24),
        };
        // Scores are at most 1; that of an expert far behind may be 0, whose exponent is not finite.
        let exponent = if score > 0.0 { score.log2().floor() as i32 } else { least };
        2f64.powi((exponent - mantissa).max(least))
    }
}

/// Whether choices and entropy are those of the logits `[E]` of one row.
pub(super) fn check_logits(
    logits: &[f32],
    planes: &RoutingPlanes<'_>,
    row: usize,
    k: usize,
    rounding: ScoreRounding,
    tell: &mut Tell<'_>,
) {
    if let Some(bad) = logits.iter().find(|logit| !logit.is_finite()) {
        return tell(FaultKind::Logits, row, &|| format!("a logit is {bad}"));
    }
    let ids = &planes.experts[row * k..][..k];
    let is_tie = planes.margins.and_then(|margins| margins.get(row)).is_none_or(|&margin| margin == 0.0);
    let rounding = if is_tie { rounding } else { ScoreRounding::None };
    if let Some((least, next)) = passed_over(logits, ids)
        && !is_explained(logits, least, next, rounding)
    {
        return tell(FaultKind::Logits, row, &|| {
            format!("an expert of logit {least} is chosen, and one of {next} is not")
        });
    }
    if let Some(&recorded) = planes.gate_entropy.and_then(|bits| bits.get(row)) {
        let own = Softmax::of(logits).entropy_bits();
        // Written so that an entropy that is no number, which is reported as such, is not reported again.
        if (own - f64::from(recorded)).abs() > ENTROPY_TOLERANCE {
            tell(FaultKind::Logits, row, &|| {
                format!("the gate entropy is {recorded}, that of the logits {own:.6}")
            });
        }
    }
}

/// The least logit that was chosen, and the largest that was not, if that is above it.
fn passed_over(logits: &[f32], ids: &[ExpertId]) -> Option<(f32, f32)> {
    let chosen = |id: usize| ids.iter().any(|chosen| chosen.index() == id);
    let least = ids.iter().filter_map(|id| logits.get(id.index())).copied().fold(f32::INFINITY, f32::min);
    let others = logits.iter().enumerate().filter(|(id, _)| !chosen(*id));
    let next = others.map(|(_, &logit)| logit).fold(f32::NEG_INFINITY, f32::max);
    (next > least).then_some((least, next))
}

/// Whether the scores of both logits may have been one value when the largest were chosen.
fn is_explained(logits: &[f32], least: f32, next: f32, rounding: ScoreRounding) -> bool {
    let softmax = Softmax::of(logits);
    let (chosen, passed) = (softmax.score(least), softmax.score(next));
    passed - chosen <= rounding.step(passed) + SCORE_TOLERANCE * passed
}

/// The softmax of some logits z: its sum Z over e^(z - max), and that sum weighted by z - max.
struct Softmax {
    largest: f32,
    sum: f64,
    weighted: f64,
}

impl Softmax {
    fn of(logits: &[f32]) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut weighted) = (0f64, 0f64);
        for logit in logits {
            let shifted = f64::from(logit - largest);
            sum += shifted.exp();
            weighted += shifted.exp() * shifted;
        }
        Self { largest, sum, weighted }
    }

    fn score(&self, logit: f32) -> f64 {
        f64::from(logit - self.largest).exp() / self.sum
    }

    fn entropy_bits(&self) -> f64 {
        (self.sum.ln() - self.weighted / self.sum) * std::f64::consts::LOG2_E
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of one token with these logits that chose experts 0 and 1.
    fn told(logits: &[f32], bits: Option<f32>, margin: f32, rounding: ScoreRounding) -> Vec<String> {
        let bits = bits.unwrap_or_else(|| Softmax::of(logits).entropy_bits() as f32);
        let ids = [ExpertId(0), ExpertId(1)];
        let planes = RoutingPlanes {
            experts: &ids,
            margins: Some(&[margin]),
            gate_entropy: Some(&[bits]),
            ..RoutingPlanes::default()
        };
        let mut faults = Vec::new();
        check_logits(logits, &planes, 0, 2, rounding, &mut |kind, row, what| {
            assert_eq!((kind, row), (FaultKind::Logits, 0));
            faults.push(what());
        });
        faults
    }

    #[test]
    fn choices_and_entropies_are_those_of_the_logits() {
        let none = ScoreRounding::None;
        assert_eq!(told(&[2.0, 1.0, 0.0, 0.0], None, 0.1, none), [""; 0]);
        let passed = told(&[2.0, 1.0, 0.0, 1.5], None, 0.1, none);
        assert_eq!(passed, ["an expert of logit 1 is chosen, and one of 1.5 is not"]);
        assert_eq!(told(&[2.0, 1.0, f32::INFINITY, 0.0], None, 0.1, none), ["a logit is inf"]);
        let [entropy] = told(&[2.0, 1.0, 0.0, 0.0], Some(1.0), 0.1, none).try_into().unwrap();
        assert!(entropy.starts_with("the gate entropy is 1, that of the logits 1.5"), "{entropy}");
    }

    /// Neighbours in bf16 near 0.7: 0.71484375 and 0.71875, scores apart by 0.4 %, where bf16 has steps of 0.4 to 0.8 %.
    #[test]
    fn scores_that_one_rounding_makes_equal_may_go_to_the_lower_id_where_the_margin_is_0() {
        let logits = [2.0, 0.714_843_75, 0.718_75, 0.0];
        let is_sound = |margin, rounding| told(&logits, None, margin, rounding).is_empty();
        assert!(is_sound(0.0, ScoreRounding::Bf16));
        assert!(!is_sound(1e-3, ScoreRounding::Bf16));
        assert!(!is_sound(0.0, ScoreRounding::F16));
        assert!(!is_sound(0.0, ScoreRounding::None));
        // Two steps are never one value.
        assert!(!told(&[2.0, 0.714_843_75, 0.730_468_75, 0.0], None, 0.0, ScoreRounding::Bf16).is_empty());
        // Half precision has steps of 2^-24 below 2^-14: scores of e^-16 and less are all alike.
        assert!(told(&[20.0, 2.0, 3.0, 0.0], None, 0.0, ScoreRounding::F16).is_empty());
        assert!(!told(&[20.0, 2.0, 3.0, 0.0], None, 0.0, ScoreRounding::Bf16).is_empty());
    }

    /// Any softmax whose scores are rounded, K largest taken, ties to the lower id, is sound.
    #[test]
    fn what_a_gate_chooses_by_rounded_scores_is_sound() {
        let mut state = 1u64;
        let mut ties = 0;
        for _ in 0..20_000 {
            let logits: Vec<f32> = (0..16)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // bf16: the upper half of an f32.
                    f32::from_bits(((state >> 40) as f32 / 16_777_216.0).to_bits() & 0xFFFF_0000)
                })
                .collect();
            let softmax = Softmax::of(&logits);
            let rounded = |logit: &f32| {
                let bits = (softmax.score(*logit) as f32).to_bits();
                f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
            };
            let scores: Vec<f32> = logits.iter().map(rounded).collect();
            let mut order: Vec<u16> = (0..16).collect();
            order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
            let ids: Vec<ExpertId> = order[..4].iter().map(|&id| ExpertId(id)).collect();
            let margin = scores[order[3] as usize] - scores[order[4] as usize];
            let planes =
                RoutingPlanes { experts: &ids, margins: Some(&[margin]), ..RoutingPlanes::default() };
            ties += u32::from(passed_over(&logits, &ids).is_some());
            let mut faults = Vec::new();
            check_logits(&logits, &planes, 0, 4, ScoreRounding::Bf16, &mut |_, _, what| faults.push(what()));
            assert!(faults.is_empty(), "{faults:?}: {logits:?}");
        }
        assert!(ties > 100, "{ties} rows were decided by rounding");
    }
}
