//! What comes out: plain numbers with serde, no totals.

use serde::{Deserialize, Serialize};

use super::GroupBy;
use crate::Spread;

/// Which experts serve which group of tokens. Information, entropy and divergence are in bits; ratios of nothing to
/// nothing are 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupsReport {
    /// What the groups are.
    pub by: GroupBy,
    /// Tokens in a group.
    pub tokens: u64,
    /// Tokens that count but are in no group: those of texts without a label.
    pub ungrouped_tokens: u64,
    /// Groups that have been seen; more than are told apart where there were too many labels.
    pub distinct_groups: u64,
    /// Whether `distinct_groups` is an estimate, and the labels told apart are the most frequent of a sample of all
    /// labels rather than of all.
    pub distinct_groups_estimated: bool,
    /// Ascending by data set, label and position; labels that were put together follow those told apart.
    pub groups: Vec<GroupReport>,
    /// One for each MoE layer, ascending.
    pub layers: Vec<GroupLayerReport>,
    /// Jensen-Shannon divergence of each pair of groups, mean over layers, in the order (0, 1), (0, 2), ... (1, 2), ...
    pub jensen_shannon_bits: Vec<f64>,
    /// Equal numbers of tokens of each group; absent where fewer than two groups have enough of them.
    pub equalised: Option<EqualisedSamples>,
    /// All layers together; absent if fewer than two groups have tokens.
    pub overall: Option<OverallGroups>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its data set; absent where positions are grouped by.
    pub dataset: Option<String>,
    /// Its label; absent where labels are not grouped by, and for those put together.
    pub label: Option<String>,
    /// Its first position; absent where positions are not grouped by.
    pub from: Option<u64>,
    /// Whether it is all other labels of the data set.
    pub rest: bool,
    /// Texts with a token in it; those of which no token counts included, but for positions.
    pub samples: u64,
    /// Tokens counted.
    pub tokens: u64,
    /// Beginning-of-sequence rows left out.
    pub bos_excluded: u64,
    /// Tokens that chose each expert, `[L][E]`. What an expert's share is, and which experts are preferred, follows:
    /// [`top_experts`](super::top_experts).
    pub loads: Vec<Vec<u64>>,
}

/// How much experts tell about groups in one MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupLayerReport {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// I(expert; group) over all tokens.
    pub mutual_information_bits: f64,
    /// I(expert; label | data set): what labels tell beyond their data set; absent where labels are not grouped by.
    pub information_within_datasets_bits: Option<f64>,
    /// Entropy of the groups by tokens: the most that an expert could tell.
    pub group_entropy_bits: f64,
    /// I(expert; group) to expect of independent slots: the least that chance gives.
    pub independent_information_bits: f64,
    /// Chi-square of the table of group and expert.
    pub chi_square: f64,
    /// Cramér's V of the same table.
    pub cramers_v: f64,
    /// Cramér's V less what independence would give.
    pub cramers_v_corrected: f64,
    /// Jensen-Shannon divergence of all groups, each with the same weight.
    pub jensen_shannon_bits: f64,
    /// Chance, from shuffled samples; absent where positions are grouped by, since samples are of no one position, and
    /// if fewer than two groups have tokens.
    pub null: Option<InformationNull>,
}

/// Mutual information over a seeded subset of samples, and what it is when their groups are shuffled.
///
/// Labels are shuffled within their data sets, and the information is that within data sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InformationNull {
    /// Samples in the subset.
    pub samples: u64,
    /// Tokens of these samples.
    pub tokens: u64,
    /// Information over the subset: what the null is to be compared with.
    pub observed_bits: f64,
    /// Shuffles.
    pub draws: u32,
    /// Mean over the shuffles.
    pub mean_bits: f64,
    /// 95th percentile of the shuffles.
    pub percentile_95_bits: f64,
    /// Largest of the shuffles.
    pub max_bits: f64,
    /// (observed - mean) / standard deviation of the null; absent if the shuffles do not vary.
    pub z: Option<f64>,
}

/// The same number of tokens of each group, to within one text: whole samples, in a seeded order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EqualisedSamples {
    /// Indices of the groups that have enough tokens to be compared.
    pub groups: Vec<u32>,
    /// Tokens taken of each of them.
    pub tokens: Vec<u64>,
    /// One for each MoE layer, ascending.
    pub layers: Vec<EqualisedLayer>,
}

/// Equal numbers of tokens of each group in one MoE layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EqualisedLayer {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// I(expert; group), all groups having the same weight: their Jensen-Shannon divergence.
    pub information_bits: f64,
    /// What it would be of independent slots.
    pub independent_information_bits: f64,
}

/// All layers together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OverallGroups {
    /// I(expert; group) of the layers.
    pub mutual_information_bits: Spread,
    /// I(expert; label | data set) of the layers.
    pub information_within_datasets_bits: Option<Spread>,
    /// Cramér's V of the layers, corrected.
    pub cramers_v_corrected: Spread,
    /// Jensen-Shannon divergence of the layers.
    pub jensen_shannon_bits: Spread,
    /// Mean of the null of each layer.
    pub null_mean_bits: Option<Spread>,
    /// I(expert; group) over equal numbers of tokens.
    pub equalised_information_bits: Option<Spread>,
}
