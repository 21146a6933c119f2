//! What comes out of [`SegmentMetrics`](super::SegmentMetrics).

use serde::{Deserialize, Serialize};

use super::BestGroup;
use crate::Spread;

/// How well one group of experts, or one cache, serves a stretch of tokens. Segments lie within a sample and slide by
/// one token; a sample shorter than a segment has none. Ratios of nothing to nothing are 0: look at `segments` first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentReport {
    /// E, routed experts in each layer.
    pub experts: usize,
    /// K, experts chosen for each token.
    pub chosen: usize,
    /// T, the tokens counted.
    pub tokens: u64,
    /// Texts.
    pub samples: u64,
    /// Beginning-of-sequence rows left out.
    pub bos_excluded: u64,
    /// Samples in the seeded subset that intervals and the shuffled null are drawn from.
    pub subset_samples: u64,
    /// Tokens of these samples.
    pub subset_tokens: u64,
    /// All layers together, one for each of [`SEGMENT_LENGTHS`](super::SEGMENT_LENGTHS).
    pub overall: Vec<OverallSegments>,
    /// One for each MoE layer, ascending.
    pub layers: Vec<LayerSegments>,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSegments {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// One for each of [`SEGMENT_LENGTHS`](super::SEGMENT_LENGTHS).
    pub lengths: Vec<SegmentScores>,
}

/// Segments of one length in one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentScores {
    /// m, tokens in a segment.
    pub length: usize,
    /// Segments counted.
    pub segments: u64,
    /// SRP, its threshold and the size of its groups.
    pub best: BestGroup,
    /// SRP of independent tokens with this layer's loads.
    pub expected_of_loads: f64,
    /// SRP with the tokens of the subset shuffled; absent where no sample has a segment.
    pub shuffled: Option<f64>,
    /// SRP over the subset and its interval; absent as above.
    pub interval: Option<Interval>,
    /// SCH of some caches, ascending by size.
    pub caches: Vec<SegmentCache>,
}

/// A number over the seeded samples, and the middle 95 % of 1,000 draws of as many samples with replacement; of those
/// draws that have a segment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Over the samples as they are.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Draws left out: no sample in them is as long as a segment, so that they have no number.
    #[serde(default)]
    pub empty_draws: u32,
}

/// A cache that holds the experts which a segment chooses most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SegmentCache {
    /// Experts it holds.
    pub size: usize,
    /// SCH: its hits over all choices.
    pub hit_rate: f64,
    /// SCH with the tokens of the subset shuffled; absent where no sample has a segment.
    pub shuffled: Option<f64>,
}

/// Segments of one length over all layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallSegments {
    /// m, tokens in a segment.
    pub length: usize,
    /// Segments counted in each layer.
    pub segments: u64,
    /// SRP of the layers, each with its own threshold.
    pub srp: Spread,
    /// SRP with one threshold for all layers.
    pub pooled: BestGroup,
    /// Its value over the subset and its interval; absent where no sample has a segment.
    pub pooled_interval: Option<Interval>,
    /// SRP of independent random choices of K of E.
    pub expected: f64,
    /// (pooled - expected) / (1 - expected): to compare models of different E and K.
    pub above_chance: f64,
    /// SRP of independent tokens with each layer's loads.
    pub expected_of_loads: Spread,
    /// SRP with the tokens of the subset shuffled; absent where no sample has a segment.
    pub shuffled: Option<Spread>,
    /// SCH of some caches, ascending by size.
    pub caches: Vec<OverallCache>,
}

/// Caches of one size in every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallCache {
    /// Experts that each layer's cache holds.
    pub size: usize,
    /// The size over K.
    pub ratio: f64,
    /// SCH of the layers.
    pub hit_rate: Spread,
    /// SCH of independent random choices of K of E, from 16,384 such tokens.
    pub expected: f64,
    /// SCH with the tokens of the subset shuffled; absent where no sample has a segment.
    pub shuffled: Option<Spread>,
}
