//! What comes out: plain numbers with serde, no totals.

mod build;
mod glance;

use serde::{Deserialize, Serialize};

pub(crate) use build::{Totals, build, spread};
pub use glance::Glance;
pub(crate) use glance::glance;

/// All metrics of a run or of a part of it. Entropies are in bits. Ratios of nothing to nothing are 0: look at
/// `tokens` first. What needs weights, margins or gate entropies is absent unless all tokens have them: traces that
/// other tools recorded may lack them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsReport {
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
    /// Tokens that have a tie at rank K in at least one layer.
    pub rows_with_tie: Option<u64>,
    /// One for each MoE layer, ascending.
    pub layers: Vec<LayerReport>,
    /// All layers together.
    pub overall: OverallReport,
    /// The guide's block.
    pub guide: GuideView,
    /// One for each data set, ascending by name.
    pub datasets: Vec<DatasetReport>,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Experts chosen at least once.
    pub active_experts: u64,
    /// Active experts over E.
    pub coverage: f64,
    /// Active experts to expect if every token chose K of E at random.
    pub expected_active_experts: f64,
    /// Tokens that chose each expert, `[E]`; they sum to K T.
    pub loads: Vec<u64>,
    /// The least load.
    pub min: u64,
    /// The highest load.
    pub max: u64,
    /// Entropy of the loads.
    pub load_entropy_bits: f64,
    /// The same over log2 E.
    pub load_entropy_normalised: f64,
    /// Mean over tokens of the entropy of the router's full softmax.
    pub gate_entropy_bits: Option<f64>,
    /// The same over log2 E.
    pub gate_entropy_normalised: Option<f64>,
    /// Mean over tokens of the entropy of the K weights divided by their sum.
    pub chosen_entropy_bits: Option<f64>,
    /// The same over log2 K.
    pub chosen_entropy_normalised: Option<f64>,
    /// Tokens without a chosen entropy since all their weights are 0.
    pub weightless_tokens: Option<u64>,
    /// 2 to the load entropy.
    pub effective_experts: f64,
    /// Unordered pairs of experts chosen together at least once.
    pub unique_pairs: u64,
    /// E (E - 1) / 2.
    pub possible_pairs: u64,
    /// Unique pairs to expect if every token chose K of E at random.
    pub expected_unique_pairs: f64,
    /// Highest load over mean load, minus 1.
    pub max_vio: f64,
    /// Standard deviation of the loads over their mean.
    pub cv: f64,
    /// Gini coefficient of the loads.
    pub gini: f64,
    /// What the load entropy is too low by, to first order (Miller and Madow).
    pub load_entropy_bias_bits: f64,
    /// How the loads are distributed.
    pub load_shape: LoadShape,
    /// Experts chosen by at least 1, 10, 100 and 1,000 tokens.
    pub experts_at_least: Vec<ExpertsAtLeast>,
    /// Experts to expect among fewer tokens, drawn one by one or as whole texts.
    pub coverage_curve: CoverageCurve,
    /// Tokens whose scores of rank K and K + 1 are equal.
    pub ties: Option<u64>,
    /// Expert scores as ESFT defines them.
    pub esft: EsftScores,
    /// How much experts tell about the data set; absent if fewer than two data sets have tokens.
    pub specialisation: Option<Specialisation>,
}

/// The distribution of the loads of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoadShape {
    /// 5 % of the experts have at most this load.
    pub percentile_5: f64,
    /// 25 %.
    pub percentile_25: f64,
    /// 50 %.
    pub median: f64,
    /// 75 %.
    pub percentile_75: f64,
    /// 95 %.
    pub percentile_95: f64,
    /// Skewness; above 0 where few experts have high loads.
    pub skewness: f64,
    /// Kurtosis less 3.
    pub excess_kurtosis: f64,
    /// Part of all slots that the K busiest experts serve; K / E if all are alike.
    pub busiest_share: f64,
}

/// Experts with no fewer tokens than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertsAtLeast {
    /// The least load.
    pub tokens: u64,
    /// Experts that have it.
    pub experts: u64,
}

/// Distinct experts of one layer to expect in a part of the run (rarefaction).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageCurve {
    /// Among tokens drawn one by one.
    pub tokens: Vec<CurvePoint>,
    /// Among whole texts: below the other where a text's tokens are alike.
    pub samples: Vec<CurvePoint>,
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Tokens or texts drawn at random.
    pub drawn: u64,
    /// Experts to expect among them.
    pub experts: f64,
}

/// Scores of each expert of one layer, `[E]` each (arXiv 2407.01906).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EsftScores {
    /// Tokens that chose the expert over K T.
    pub token_ratio: Vec<f64>,
    /// Sum of the expert's weights over T.
    pub gate_score: Option<Vec<f64>>,
    /// The token ratio of each sample, averaged over samples.
    pub sample_token_ratio: Vec<f64>,
    /// The gate score of each sample, averaged over samples.
    pub sample_gate_score: Option<Vec<f64>>,
}

/// Mutual information between expert and data set in one layer, with its permutation null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Specialisation {
    /// I(expert; data set) over all tokens.
    pub mutual_information_bits: f64,
    /// Entropy of the data sets by tokens: the most that an expert could tell.
    pub dataset_entropy_bits: f64,
    /// Samples in the seeded subset that the null is drawn from.
    pub subset_samples: u64,
    /// Tokens of these samples.
    pub subset_tokens: u64,
    /// I(expert; data set) over the subset: what the null is to be compared with.
    pub subset_mutual_information_bits: f64,
    /// Permutations of the samples' data sets.
    pub null_draws: u32,
    /// Mean over the permutations.
    pub null_mean_bits: f64,
    /// 95th percentile of the permutations.
    pub null_95th_percentile_bits: f64,
    /// Largest of the permutations.
    pub null_max_bits: f64,
    /// (subset - mean) / standard deviation of the null; absent if the permutations do not vary.
    pub z: Option<f64>,
}

/// A number of every layer, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean over layers.
    pub mean: f64,
    /// Least of the layers.
    pub min: f64,
    /// Highest of the layers.
    pub max: f64,
}

/// All layers together; ids of different layers are never merged here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallReport {
    /// (layer, expert) slots used at least once.
    pub active_slots: u64,
    /// L E.
    pub slots: u64,
    /// Active slots over slots.
    pub coverage: f64,
    /// Unique pairs, summed over layers.
    pub unique_pairs: u64,
    /// Possible pairs, summed over layers.
    pub possible_pairs: u64,
    /// Ties, summed over layers.
    pub ties: Option<u64>,
    /// Coverage of the layers.
    pub layer_coverage: Spread,
    /// Unique pairs of the layers.
    pub layer_unique_pairs: Spread,
    /// Load entropy of the layers.
    pub load_entropy_bits: Spread,
    /// The same over log2 E.
    pub load_entropy_normalised: Spread,
    /// Gate entropy of the layers.
    pub gate_entropy_bits: Option<Spread>,
    /// The same over log2 E.
    pub gate_entropy_normalised: Option<Spread>,
    /// Chosen entropy of the layers.
    pub chosen_entropy_bits: Option<Spread>,
    /// The same over log2 K.
    pub chosen_entropy_normalised: Option<Spread>,
    /// Effective experts of the layers.
    pub effective_experts: Spread,
    /// `MaxVio` of the layers.
    pub max_vio: Spread,
    /// Coefficient of variation of the layers.
    pub cv: Spread,
    /// Gini coefficient of the layers.
    pub gini: Spread,
    /// Mutual information with the data set, over all tokens; absent if fewer than two data sets have tokens.
    pub mutual_information_bits: Option<Spread>,
    /// Mean of the null of each layer; absent as above.
    pub null_mean_bits: Option<Spread>,
}

/// The Python guide's block: expert ids of all layers merged, as if expert 3 of layer 1 were expert 3 of layer 2.
/// For comparison with its figures only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuideView {
    /// Ids chosen in at least one layer.
    pub active_experts: u64,
    /// E.
    pub experts: u64,
    /// Active over E.
    pub coverage: f64,
    /// Unordered pairs chosen together in at least one layer.
    pub unique_pairs: u64,
    /// E (E - 1) / 2.
    pub possible_pairs: u64,
    /// Entropy of the loads summed over layers.
    pub entropy_bits: f64,
    /// Texts.
    pub traces: u64,
}

/// One data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetReport {
    /// Its name.
    pub name: String,
    /// Texts.
    pub samples: u64,
    /// Tokens counted.
    pub tokens: u64,
    /// Beginning-of-sequence rows left out.
    pub bos_excluded: u64,
    /// One for each MoE layer, ascending.
    pub layers: Vec<DatasetLayerReport>,
}

/// One data set in one MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetLayerReport {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Tokens of the data set that chose each expert, `[E]`.
    pub loads: Vec<u64>,
    /// The experts that the data set prefers most, by ratio, at most five.
    pub top_experts: Vec<ExpertShare>,
}

/// How much a data set uses an expert.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExpertShare {
    /// The expert.
    pub expert: u16,
    /// Part of the data set's tokens that chose it; K / E if the expert were one of E alike (`OLMoE`'s domain
    /// specialisation).
    pub share: f64,
    /// This share over the share in all data sets together.
    pub ratio: f64,
}
