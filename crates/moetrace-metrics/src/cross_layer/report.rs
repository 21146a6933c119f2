//! What comes out of [`CrossLayerMetrics`](super::CrossLayerMetrics).

use serde::{Deserialize, Serialize};

use crate::{Spread, affinity::Affinity};

/// What a token's experts in one layer tell about its experts in a later one. Ratios of nothing to nothing are 0:
/// look at `tokens` first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrossLayerReport {
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
    /// All pairs of layers together.
    pub overall: OverallCrossLayer,
    /// One for each MoE layer that has another behind it, ascending; none above 1,024 experts.
    pub links: Vec<LayerLink>,
    /// Layers two and three apart, in scalars.
    pub distant: Vec<DistantLink>,
}

/// Two layers, the second being the next that has a router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerLink {
    /// The model's own (absolute) number of the first.
    pub from: u16,
    /// That of the second.
    pub to: u16,
    /// What the first tells about the second.
    pub affinity: Affinity,
    /// What it would tell if the two choices were of different tokens of the same text; absent without tokens.
    pub null: Option<RotationNull>,
    /// Tokens with i chosen in the first and j in the second, `[E, E]`; empty above 128 experts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
}

/// Information over a seeded subset of samples, as it is and with the second layer's tokens turned within each sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RotationNull {
    /// Samples in the subset.
    pub subset_samples: u64,
    /// Tokens of these samples.
    pub subset_tokens: u64,
    /// Information over the subset: what the null is to be compared with.
    pub subset_information_bits: f64,
    /// Turns drawn.
    pub draws: u32,
    /// Mean over the draws: what loads, topic and the finite number of tokens give.
    pub mean_bits: f64,
    /// Largest of the draws.
    pub max_bits: f64,
}

/// Two layers farther apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistantLink {
    /// The model's own (absolute) number of the first.
    pub from: u16,
    /// That of the second.
    pub to: u16,
    /// How far apart they are, counted in layers that have a router.
    pub apart: usize,
    /// See [`Affinity::information_bits`].
    pub information_bits: f64,
    /// See [`Affinity::information_share`].
    pub information_share: f64,
    /// See [`Affinity::top_k_mass_by_load`].
    pub top_k_mass_by_load: f64,
    /// See [`Affinity::popular_mass`].
    pub popular_mass: f64,
}

/// All pairs of layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallCrossLayer {
    /// Neighbouring layers, then those two and three apart, as far as there are any.
    pub by_distance: Vec<DistanceReport>,
    /// Mean over neighbouring layers of the null's mean; absent without tokens.
    pub null_mean_bits: Option<Spread>,
    /// Information over the null's samples.
    pub subset_information_bits: Option<Spread>,
}

/// Pairs of layers that are equally far apart: mean, least and highest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistanceReport {
    /// How far apart, counted in layers that have a router.
    pub apart: usize,
    /// See [`Affinity::information_bits`].
    pub information_bits: Spread,
    /// See [`Affinity::information_share`].
    pub information_share: Spread,
    /// See [`Affinity::top_k_mass_by_load`].
    pub top_k_mass_by_load: Spread,
    /// See [`Affinity::popular_mass`].
    pub popular_mass: Spread,
}
