//! What comes out: plain numbers with serde, no totals.

use serde::{Deserialize, Serialize};

use crate::Spread;

/// How often another router chose what the reference chose. Ratios of nothing to nothing are 0: look at `tokens` and
/// `rows` first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FidelityReport {
    /// E, routed experts in each layer.
    pub experts: usize,
    /// K, experts chosen for each token.
    pub chosen: usize,
    /// T, the tokens counted: each once, not once a layer.
    pub tokens: u64,
    /// Texts; those of which no token counts included.
    pub samples: u64,
    /// Whether beginning-of-sequence rows were asked for.
    pub include_bos: bool,
    /// Beginning-of-sequence rows left out.
    pub bos_excluded: u64,
    /// Tokens at which the reference has a tie at rank K in at least one layer.
    pub tokens_with_tie: u64,
    /// All layers together.
    pub overall: OverallFidelity,
    /// One for each MoE layer, ascending.
    pub layers: Vec<LayerFidelity>,
    /// Where tokens part, all tokens.
    pub divergence: DivergenceReport,
    /// Where tokens part, of those at which the reference has a tie in no layer.
    pub untied_divergence: DivergenceReport,
    /// Losses; absent unless both runs recorded some.
    pub nll: Option<LossFidelity>,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFidelity {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// All rows.
    pub all: AgreementReport,
    /// Rows at which the reference has a tie at rank K: which expert it chose there is an accident.
    pub tied: AgreementReport,
    /// All other rows.
    pub untied: AgreementReport,
    /// The rows without a tie by the reference's margin, ascending; empty where K = E, since there is no boundary.
    pub margin_bins: Vec<MarginBin>,
    /// Full distributions; absent unless both runs recorded router logits.
    pub logits: Option<LogitFidelity>,
}

/// How far two routers agree over some rows of one layer. A and B are their sets of K experts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AgreementReport {
    /// Rows.
    pub rows: u64,
    /// Mean of |A ∩ B| / K.
    pub set_overlap: f64,
    /// Mean of |A ∩ B| / |A ∪ B|.
    pub jaccard: f64,
    /// Rows with A = B.
    pub exact_sets: u64,
    /// The same over rows.
    pub exact_set_rate: f64,
    /// Part of the rows whose first experts are the same.
    pub rank_1_agreement: f64,
    /// Mean of the sum over A ∩ B of the lesser weight.
    pub weight_overlap: f64,
    /// Mean of the reference's weights' sum.
    pub reference_weight: f64,
    /// Mean of the other one's weights' sum.
    pub other_weight: f64,
    /// Weight overlap over the mean of these two: 1 if sets and weights are the same.
    pub weight_overlap_share: f64,
}

/// Rows whose margin in the reference is at least `from` and less than `below`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MarginBin {
    /// The least margin; 0 stands for all above 0.
    pub from: f32,
    /// Where the next bin begins; absent at the last.
    pub below: Option<f32>,
    /// How far the two agree there.
    #[serde(flatten)]
    pub agreement: AgreementReport,
}

/// The full distributions of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogitFidelity {
    /// Rows with logits.
    pub rows: u64,
    /// Mean divergence of the other distribution from the reference's, in bits.
    pub kl_bits: f64,
    /// Root of the mean squared difference of two logits.
    pub rmse: f64,
}

/// Losses of the tokens that have one in both runs, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossFidelity {
    /// Tokens with a loss in both.
    pub tokens: u64,
    /// Mean loss of the reference.
    pub reference: f64,
    /// Mean loss of the other.
    pub other: f64,
    /// Other less reference: above 0 if the other predicts worse.
    pub delta: f64,
}

/// Where tokens part for the first time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DivergenceReport {
    /// Tokens.
    pub tokens: u64,
    /// Tokens whose sets differ in some layer.
    pub differing: u64,
    /// The same over tokens.
    pub differing_rate: f64,
    /// Differing tokens by the first layer that differs, every layer.
    pub first_layer: Vec<FirstDivergence>,
}

/// Tokens that part in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstDivergence {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Tokens whose sets differ in this layer and in none before it.
    pub tokens: u64,
}

/// All layers together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallFidelity {
    /// Set overlap to expect if the other chose K of E at random: K / E.
    pub expected_set_overlap: f64,
    /// Ties of the reference, over all layers.
    pub ties: u64,
    /// All rows, over layers.
    pub all: AgreementSpread,
    /// Rows without a tie, over layers.
    pub untied: AgreementSpread,
    /// The rows of all layers without a tie, by margin.
    pub margin_bins: Vec<MarginBin>,
    /// Divergence in bits, over layers; absent unless every layer has one.
    pub kl_bits: Option<Spread>,
    /// Error of logits, over layers.
    pub logit_rmse: Option<Spread>,
}

/// Each rate over layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AgreementSpread {
    /// Mean of |A ∩ B| / K.
    pub set_overlap: Spread,
    /// Mean of |A ∩ B| / |A ∪ B|.
    pub jaccard: Spread,
    /// Part of the rows with A = B.
    pub exact_set_rate: Spread,
    /// Part of the rows whose first experts are the same.
    pub rank_1_agreement: Spread,
    /// Weight overlap over the mean weight.
    pub weight_overlap_share: Spread,
}
