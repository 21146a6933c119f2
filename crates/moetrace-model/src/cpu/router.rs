//! Which experts each token goes to, in the order of arithmetic of the reference implementations.

use moetrace_routing::{ExpertId, LayerIndex};
use rayon::prelude::*;

use crate::family::{Renormalise, RouterScores};
use crate::{ComputeDtype, ModelConfig, ModelError, RouterDtype};

/// How the scores of one model are made and used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterRules {
    pub(crate) experts: usize,
    pub(crate) chosen: usize,
    /// Type of the logits.
    pub(crate) logits: ComputeDtype,
    /// Type of the scores that the top-k sees.
    pub(crate) scores: ComputeDtype,
    /// Type of the weights as multiplied.
    pub(crate) weights: ComputeDtype,
    pub(crate) renormalise: bool,
    /// Added to the sum of the K weights before dividing by it.
    pub(crate) sum_offset: f32,
}

impl RouterRules {
    pub(crate) fn new(config: &ModelConfig, compute: ComputeDtype, dtype: RouterDtype) -> Self {
        let rules = config.family().rules();
        let model = match dtype {
            RouterDtype::Model => compute,
            RouterDtype::F32 => ComputeDtype::F32,
        };
        Self {
            experts: config.experts(),
            chosen: config.chosen(),
            logits: model,
            scores: match rules.router_scores {
                RouterScores::ModelDtype => model,
                RouterScores::F32 => ComputeDtype::F32,
            },
            weights: model,
            renormalise: config.renormalises(),
            sum_offset: if rules.renormalise == Renormalise::FieldUnlessSingle { 1e-20 } else { 0.0 },
        }
    }
}

/// One layer's routing, as a `RoutingView` wants it.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// `[N, K]`, by falling score, ties to the lower id.
    pub(super) experts: Vec<ExpertId>,
    /// `[N, K]`.
    pub(super) weights: Vec<f32>,
    /// `[N]`.
    pub(super) margins: Vec<f32>,
    /// `[N]`, bits.
    pub(super) gate_entropy: Vec<f32>,
    /// `[N, E]`, as rounded.
    pub(super) logits: Vec<f32>,
    /// `[N, E]`, as rounded.
    pub(super) scores: Vec<f32>,
}

/// Routes the rows of `logits` `[N, E]`, the unrounded product of router input and router weight.
pub(super) fn route(
    mut logits: Vec<f32>,
    layer: LayerIndex,
    rules: &RouterRules,
) -> Result<Routing, ModelError> {
    let (e, k) = (rules.experts, rules.chosen);
    if let Some(place) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(ModelError::NotFinite { layer, row: place / e, found: logits[place] });
    }
    rules.logits.round_slice(&mut logits);
    let n = logits.len() / e;
    let mut routing = Routing {
        experts: vec![ExpertId::default(); n * k],
        weights: vec![0.0; n * k],
        margins: vec![0.0; n],
        gate_entropy: vec![0.0; n],
        scores: logits.clone(),
        logits,
    };
    let choices = routing.experts.par_chunks_exact_mut(k).zip(routing.weights.par_chunks_exact_mut(k));
    let figures = routing.margins.par_iter_mut().zip(&mut routing.gate_entropy);
    let rows = choices.zip(figures).zip(routing.scores.par_chunks_exact_mut(e));
    rows.with_min_len(64).for_each(|(((experts, weights), (margin, entropy)), scores)| {
        *entropy = softmax_and_entropy(scores);
        rules.scores.round_slice(scores);
        *margin = choose(scores, experts, weights);
        finish_weights(weights, rules);
    });
    Ok(routing)
}

/// Turns logits into probabilities and returns their entropy in bits:
/// H = (ln Z - sum p * (logit - max)) / ln 2, where Z is the sum of e^(logit - max).
fn softmax_and_entropy(scores: &mut [f32]) -> f32 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut sum64, mut weighted) = (0f32, 0f64, 0f64);
    for score in scores.iter_mut() {
        let shifted = *score - largest;
        *score = shifted.exp();
        sum += *score;
        sum64 += f64::from(*score);
        weighted += f64::from(*score) * f64::from(shifted);
    }
    for score in scores {
        *score /= sum;
    }
    let nats = sum64.ln() - weighted / sum64;
    (nats * std::f64::consts::LOG2_E).max(0.0) as f32
}

/// Fills ids and scores of the K largest, larger first and ties to the lower id; returns the margin to the
/// next one (or the score of rank K itself where all experts are chosen).
fn choose(scores: &[f32], experts: &mut [ExpertId], weights: &mut [f32]) -> f32 {
    let k = experts.len();
    let mut filled = 0;
    // The largest score that found no place; scores are never negative.
    let mut next = 0f32;
    for (id, &score) in scores.iter().enumerate() {
        if filled == k && score <= weights[k - 1] {
            next = next.max(score);
            continue;
        }
        if filled == k {
            next = next.max(weights[k - 1]);
        } else {
            filled += 1;
        }
        let mut place = filled - 1;
        while place > 0 && weights[place - 1] < score {
            weights[place] = weights[place - 1];
            experts[place] = experts[place - 1];
            place -= 1;
        }
        weights[place] = score;
        experts[place] = ExpertId(id as u16);
    }
    weights[k - 1] - if k < scores.len() { next } else { 0.0 }
}

fn finish_weights(weights: &mut [f32], rules: &RouterRules) {
    if rules.renormalise {
        let sum = rules.scores.round_value(weights.iter().sum());
        let sum = rules.scores.round_value(sum + rules.sum_offset);
        for weight in weights.iter_mut() {
            *weight /= sum;
        }
    }
    rules.weights.round_slice(weights);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(experts: usize, chosen: usize, compute: ComputeDtype, renormalise: bool) -> RouterRules {
        let (logits, scores, weights) = (compute, compute, compute);
        RouterRules { experts, chosen, logits, scores, weights, renormalise, sum_offset: 0.0 }
    }

    fn ids(routing: &Routing) -> Vec<u16> {
        routing.experts.iter().map(|e| e.0).collect()
    }

    #[test]
    fn ties_go_to_the_lower_id_and_have_no_margin() {
        let r =
            route(vec![1.0, 2.0, 2.0, 1.0], LayerIndex(0), &rules(4, 3, ComputeDtype::F32, false)).unwrap();
        assert_eq!(ids(&r), [1, 2, 0]);
        assert_eq!(r.margins, [0.0]);
        assert_eq!(r.weights[2].to_bits(), r.scores[3].to_bits());
    }

    #[test]
    fn equal_logits_give_log2_of_the_expert_count_in_entropy() {
        let r = route(vec![0.5; 16], LayerIndex(0), &rules(8, 2, ComputeDtype::F32, false)).unwrap();
        assert_eq!(r.gate_entropy, [3.0, 3.0]);
    }

    #[test]
    fn choosing_all_experts_leaves_the_smallest_score_as_margin() {
        let r = route(vec![0.0, 3.0], LayerIndex(0), &rules(2, 2, ComputeDtype::F32, true)).unwrap();
        assert_eq!(ids(&r), [1, 0]);
        assert!((r.margins[0] - r.scores[0]).abs() < 1e-7);
        assert!((r.weights[0] + r.weights[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn rounding_to_bf16_turns_near_ties_into_ties() {
        let logits = vec![1.000_01, 1.0, 0.0, -1.0];
        let fine = route(logits.clone(), LayerIndex(0), &rules(4, 1, ComputeDtype::F32, false)).unwrap();
        let coarse = route(logits, LayerIndex(0), &rules(4, 1, ComputeDtype::Bf16, false)).unwrap();
        assert!(fine.margins[0] > 0.0);
        assert_eq!(coarse.margins, [0.0]);
    }

    #[test]
    fn a_logit_that_is_not_a_number_names_layer_and_row() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error =
                route(vec![0.0, 1.0, bad, 1.0], LayerIndex(3), &rules(2, 1, ComputeDtype::F32, false));
            let Err(ModelError::NotFinite { layer, row, .. }) = error else { panic!("{error:?}") };
            assert_eq!((layer, row), (LayerIndex(3), 1));
        }
    }
}
