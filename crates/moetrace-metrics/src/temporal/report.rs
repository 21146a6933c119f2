//! What comes out of [`TemporalMetrics`](super::TemporalMetrics).

use serde::{Deserialize, Serialize};

use crate::{Spread, affinity::Affinity};

/// How alike the choices of near tokens are. Only tokens of one sample are compared. Ratios of nothing to nothing
/// are 0: look at `tokens` first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemporalReport {
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
    /// What independent random choices give.
    pub expected: ExpectedLocality,
    /// All layers together.
    pub overall: OverallTemporal,
    /// One for each MoE layer, ascending.
    pub layers: Vec<LayerTemporal>,
}

/// What tokens give that choose K of E at random and independently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpectedLocality {
    /// K / E.
    pub reuse: f64,
    /// 1 / E.
    pub rank_1_repeats: f64,
    /// See [`expected_first_two`](super::expected_first_two).
    pub first_two_repeats: f64,
    /// Absent where K = E.
    pub mean_run: Option<f64>,
    /// Of each window of [`WORKING_SET_WINDOWS`](super::WORKING_SET_WINDOWS).
    pub working_sets: Vec<f64>,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerTemporal {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Part of a token's experts that the token before chose too.
    pub reuse: f64,
    /// What independent tokens with this layer's loads give.
    pub expected_reuse_of_loads: f64,
    /// Part of the tokens whose expert of rank 1 is that of the token before.
    pub rank_1_repeats: f64,
    /// Part of the tokens that share one of their first two experts with the first two of the token before.
    pub first_two_repeats: f64,
    /// Reuse between tokens 1, 2, ... 64 apart, `[64]`.
    pub lag_reuse: Vec<f64>,
    /// Consecutive tokens that chose an expert.
    pub runs: RunLengths,
    /// Distinct experts in windows of [`WORKING_SET_WINDOWS`](super::WORKING_SET_WINDOWS).
    pub working_sets: Vec<WorkingSet>,
    /// Caches that throw out the least recently used expert.
    pub lru: LruCaches,
    /// Reuse and cache hits by the token's position in its sample; positions without tokens left out.
    pub positions: Vec<PositionReport>,
    /// What a token's experts tell about the next token's; absent above 1,024 experts.
    pub transitions: Option<Affinity>,
    /// Tokens with i chosen and j chosen by the token after, `[E, E]`; empty above 128 experts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transition_counts: Vec<u64>,
}

/// How long an expert stays chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunLengths {
    /// Number of runs.
    pub runs: u64,
    /// Their mean length in tokens.
    pub mean: f64,
    /// Runs of 1, 2, ... 64 tokens, `[64]`.
    pub lengths: Vec<u64>,
    /// Longer runs.
    pub longer: u64,
}

/// Distinct experts in a window of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// w, the window's length in tokens.
    pub window: usize,
    /// Windows of this length; they slide by one token.
    pub windows: u64,
    /// Mean number of distinct experts.
    pub experts: f64,
    /// What independent tokens with this layer's loads give.
    pub expected_of_loads: f64,
}

/// Look-ups of a least-recently-used cache that is empty at the beginning of each sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LruCaches {
    /// K for each token.
    pub lookups: u64,
    /// Look-ups of experts that the sample had not used before: misses of every size.
    pub cold_misses: u64,
    /// Look-ups at stack distance 1, 2, ... E: hits of every cache of at least this size, `[E]`.
    pub distances: Vec<u64>,
    /// Hit rates at K, 2 K and 4 K experts, as far as there are so many.
    pub hit_rates: Vec<CacheHitRate>,
}

/// A cache of one layer's experts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CacheHitRate {
    /// Experts it holds.
    pub size: usize,
    /// Hits over look-ups.
    pub hit_rate: f64,
    /// Hit rate of a cache that always holds the experts of the highest load.
    pub static_hit_rate: f64,
}

/// Tokens at some positions of their samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PositionReport {
    /// The first position, counted from 0 at the sample's first row; the positions end where the next begin.
    pub from: u64,
    /// Tokens at these positions.
    pub tokens: u64,
    /// Part of their experts that the token before chose too; 0 where there is none.
    pub reuse: f64,
    /// Part of their look-ups that no cache can hit.
    pub cold_misses: f64,
    /// LRU hit rates at the sizes of [`LruCaches::hit_rates`].
    pub hit_rates: Vec<f64>,
}

/// Numbers of every layer, summed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallTemporal {
    /// Reuse by the next token.
    pub reuse: Spread,
    /// What independent tokens with the layer's loads give.
    pub expected_reuse_of_loads: Spread,
    /// Rank-1 repeats.
    pub rank_1_repeats: Spread,
    /// Repeats among the first two.
    pub first_two_repeats: Spread,
    /// Reuse between tokens 1, 2, ... 64 apart, mean over layers, `[64]`.
    pub lag_reuse: Vec<f64>,
    /// Mean run length in tokens.
    pub mean_run: Spread,
    /// Distinct experts in each window of [`WORKING_SET_WINDOWS`](super::WORKING_SET_WINDOWS).
    pub working_sets: Vec<Spread>,
    /// LRU hit rates at the sizes of [`LruCaches::hit_rates`].
    pub lru_hit_rates: Vec<Spread>,
    /// Share of the possible information that an expert gives about the next token's; absent above 1,024 experts.
    pub transition_share: Option<Spread>,
}
