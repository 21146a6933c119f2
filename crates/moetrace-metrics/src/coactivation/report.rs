//! What comes out about experts that serve a token together.

use serde::{Deserialize, Serialize};

use crate::{Spread, clustering::Clustering};

/// Co-activation of a run or of a part of it, per layer and overall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoactivationReport {
    /// E.
    pub experts: usize,
    /// K.
    pub chosen: usize,
    /// T, the tokens counted.
    pub tokens: u64,
    /// Samples of the seeded subset that common sets are counted in.
    pub subset_samples: u64,
    /// Their tokens.
    pub subset_tokens: u64,
    /// Tokens of the subset that the shuffles are drawn from.
    pub shuffled_tokens: u64,
    /// Shuffles drawn.
    pub shuffles: u32,
    /// One for each MoE layer, ascending.
    pub layers: Vec<LayerCoactivation>,
    /// All layers together.
    pub overall: OverallCoactivation,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerCoactivation {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Tokens that chose each expert, `[E]`.
    pub loads: Vec<u64>,
    /// Tokens that chose both experts of a pair: the strict upper triangle, row by row, `[E (E - 1) / 2]`; see
    /// [`pair_index`](crate::pairs::pair_index). Empty above 128 experts.
    pub pair_counts: Vec<u64>,
    /// Number of standard deviations by which each pair lies above its shuffles, in the same order and rounded to two
    /// decimals; `None` where shuffles do not vary. Empty above 128 experts.
    pub pair_z: Vec<Option<f32>>,
    /// Pairs with |z| above 3 over pairs with a z.
    pub pairs_beyond_three: f64,
    /// The pairs that most tokens chose, at most ten.
    pub common_pairs: Vec<ExpertPair>,
    /// The pairs that lie furthest above their shuffles, at most ten.
    pub bound_pairs: Vec<ExpertPair>,
    /// Distinct sets of K experts.
    pub sets: SetCount,
    /// The sets that most tokens of the subset chose, at most ten.
    pub common_sets: Vec<ExpertSet>,
    /// Experts clustered by 1 - Jaccard; absent where K = 1 or E < 3.
    pub clustering: Option<Clustering>,
}

/// Two experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertPair {
    /// Their ids, ascending.
    pub experts: [u16; 2],
    /// Tokens that chose both.
    pub count: u64,
    /// How many times as often as if they were independent.
    pub lift: f64,
    /// log2 of the lift.
    pub pmi_bits: Option<f64>,
    /// Tokens of both over tokens of either.
    pub jaccard: f64,
    /// Correlation of the two choices.
    pub phi: f64,
    /// Standard deviations above the shuffles, on the subset.
    pub z: Option<f64>,
}

/// How many distinct sets of K experts were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SetCount {
    /// Their number, or its estimate.
    pub distinct: f64,
    /// Whether every set was counted.
    pub exact: bool,
    /// Standard error of the estimate as a part of it; 0 if exact.
    pub standard_error: f64,
    /// C(E, K).
    pub possible: f64,
    /// Distinct sets to expect if every token chose K of E at random.
    pub expected: f64,
}

/// A set of K experts in the subset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertSet {
    /// Their ids, ascending, `[K]`.
    pub experts: Vec<u16>,
    /// Tokens of the subset that chose them.
    pub count: u64,
    /// The same over the subset's tokens.
    pub share: f64,
}

/// All layers together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallCoactivation {
    /// Distinct sets of the layers.
    pub distinct_sets: Spread,
    /// Pairs with |z| above 3 of the layers.
    pub pairs_beyond_three: Spread,
    /// Cophenetic correlation of the layers that have one.
    pub cophenetic_correlation: Option<Spread>,
}
