//! The two expert scores of ESFT (Wang et al., arXiv 2407.01906), `[E]` for one layer.
//!
//! Pooled over tokens, as in the summaries that its authors published:
//! token ratio = (tokens that chose the expert) / (K T), gate score = (sum of its weights) / T, T tokens in all.
//! Per sample, as in the paper: the same of each sample, then the mean over the samples, so that a long text
//! counts no more than a short one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fixed_sum::FixedSum;

/// Pooled token ratio of every expert, `[E]`: count / (K T). Sums to 1; 0 everywhere if `tokens` is 0.
pub fn token_ratio(loads: &[u64], chosen: usize, tokens: u64) -> Vec<f64> {
    let slots = (chosen as u64 * tokens).max(1) as f64;
    loads.iter().map(|&n| n as f64 / slots).collect()
}

/// The fewest experts whose scores, divided by the sum of all, reach `threshold`: in descending order of score, ties to
/// the lower id. Every expert with a score if they do not reach it; none if no score is above 0.
///
/// The paper takes 0.1 for gate scores and 0.2 for token ratios.
pub fn select(scores: &[f64], threshold: f64) -> Vec<u16> {
    let total: f64 = scores.iter().sum();
    let mut order: Vec<u16> = (0..scores.len() as u16).filter(|&e| scores[usize::from(e)] > 0.0).collect();
    order.sort_by(|&a, &b| scores[usize::from(b)].total_cmp(&scores[usize::from(a)]).then(a.cmp(&b)));
    let mut reached = 0.0;
    let below = |&expert: &u16| {
        let was_below = reached < threshold * total;
        reached += scores[usize::from(expert)];
        was_below
    };
    order.into_iter().take_while(below).collect()
}

/// Which parts of a model ESFT trains: the file that its training code reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertConfig {
    /// The chosen experts of each layer, by the model's own number of the layer; JSON writes it as a string.
    pub experts: BTreeMap<u16, Vec<u16>>,
    /// Whether shared experts are trained.
    pub shared_experts: bool,
    /// Whether everything that is no expert is trained.
    pub non_expert_modules: bool,
}

impl ExpertConfig {
    /// The experts that [`select`] takes of each layer's scores; neither shared experts nor anything else is trained.
    pub fn new<'a>(layers: impl IntoIterator<Item = (u16, &'a [f64])>, threshold: f64) -> Self {
        let experts = layers.into_iter().map(|(layer, scores)| (layer, select(scores, threshold))).collect();
        Self { experts, shared_experts: false, non_expert_modules: false }
    }
}

/// Weights summed over tokens, and both scores summed over samples, of every expert of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScoreSums {
    weights: Vec<FixedSum>,
    sample_token_ratios: Vec<FixedSum>,
    sample_gate_scores: Vec<FixedSum>,
    samples: u64,
}

impl ScoreSums {
    pub(crate) fn new(experts: usize) -> Self {
        let zeros = vec![FixedSum::default(); experts];
        Self {
            weights: zeros.clone(),
            sample_token_ratios: zeros.clone(),
            sample_gate_scores: zeros,
            samples: 0,
        }
    }

    /// Adds a sample of `tokens` tokens, K `chosen` for each: `counts` and `weights` of every expert, `[E]`.
    pub(crate) fn add_sample(&mut self, counts: &[u32], weights: &[FixedSum], chosen: usize, tokens: u64) {
        self.samples += 1;
        for (expert, (&count, &weight)) in counts.iter().zip(weights).enumerate() {
            if count > 0 {
                self.weights[expert].merge(weight);
                self.sample_token_ratios[expert].add_ratio(u64::from(count), chosen as u64 * tokens);
                self.sample_gate_scores[expert].merge(weight.divided_by(tokens));
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        for (ours, theirs) in [
            (&mut self.weights, &other.weights),
            (&mut self.sample_token_ratios, &other.sample_token_ratios),
            (&mut self.sample_gate_scores, &other.sample_gate_scores),
        ] {
            ours.iter_mut().zip(theirs).for_each(|(a, &b)| a.merge(b));
        }
    }

    /// Sum of weights / T, `[E]`.
    pub(crate) fn gate_score(&self, tokens: u64) -> Vec<f64> {
        self.weights.iter().map(|sum| sum.mean(tokens)).collect()
    }

    /// Mean over samples of each sample's token ratio, `[E]`.
    pub(crate) fn sample_token_ratio(&self) -> Vec<f64> {
        self.sample_token_ratios.iter().map(|sum| sum.mean(self.samples)).collect()
    }

    /// Mean over samples of each sample's gate score, `[E]`.
    pub(crate) fn sample_gate_score(&self) -> Vec<f64> {
        self.sample_gate_scores.iter().map(|sum| sum.mean(self.samples)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(values: [f64; 2]) -> [FixedSum; 2] {
        values.map(|value| {
            let mut sum = FixedSum::default();
            sum.add(value);
            sum
        })
    }

    #[test]
    fn pooled_scores_weigh_tokens_and_sample_scores_weigh_texts() {
        // K = 1: a text of 3 tokens all to expert 0, and one of 1 token to expert 1.
        let mut sums = ScoreSums::new(2);
        sums.add_sample(&[3, 0], &weights([1.5, 0.0]), 1, 3);
        sums.add_sample(&[0, 1], &weights([0.0, 0.25]), 1, 1);
        assert_eq!(token_ratio(&[3, 1], 1, 4), [0.75, 0.25]);
        assert_eq!(sums.gate_score(4), [0.375, 0.0625]);
        assert_eq!(sums.sample_token_ratio(), [0.5, 0.5]);
        assert_eq!(sums.sample_gate_score(), [0.25, 0.125]);
    }

    #[test]
    fn the_fewest_experts_that_reach_the_threshold_are_taken_best_first() {
        let scores = [0.1, 0.4, 0.1, 0.2];
        assert_eq!(select(&scores, 0.5), [1]);
        assert_eq!(select(&scores, 0.6), [1, 3]);
        assert_eq!(select(&scores, 0.8), [1, 3, 0]);
        assert_eq!((select(&scores, 2.0), select(&[0.0, 0.0], 0.2)), (vec![1, 3, 0, 2], vec![]));
    }

    #[test]
    fn the_file_is_the_one_that_the_training_code_reads() {
        let config = ExpertConfig::new([(1, &[0.2, 0.8][..]), (10, &[1.0, 0.0])], 0.2);
        let json = r#"{"experts":{"1":[1],"10":[0]},"shared_experts":false,"non_expert_modules":false}"#;
        assert_eq!(serde_json::to_string(&config).unwrap(), json);
        assert_eq!(serde_json::from_str::<ExpertConfig>(json).unwrap(), config);
    }

    #[test]
    fn no_tokens_give_no_scores() {
        assert_eq!(token_ratio(&[0, 0], 2, 0), [0.0, 0.0]);
        assert_eq!(ScoreSums::new(2).gate_score(0), [0.0, 0.0]);
        assert_eq!(ScoreSums::new(2).sample_gate_score(), [0.0, 0.0]);
    }
}
