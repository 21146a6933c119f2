//! What comes out: plain numbers with serde, no totals.

use serde::{Deserialize, Serialize};

use crate::Spread;

/// Which experts serve which token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VocabularyReport {
    /// T, the tokens counted: each once, not once a layer.
    pub tokens: u64,
    /// Tokens counted whose id has a table.
    pub tracked_tokens: u64,
    /// The ids that have a table, ascending.
    pub ids: Vec<u32>,
    /// How often each of them occurs.
    pub counts: Vec<u64>,
    /// Ids that occur often enough to be looked at.
    pub input_ids: u64,
    /// Ids that follow a token often enough to be looked at.
    pub next_ids: u64,
    /// One for each MoE layer, ascending.
    pub layers: Vec<VocabularyLayer>,
    /// All layers together.
    pub overall: OverallVocabulary,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VocabularyLayer {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// By the id of the token itself.
    pub input: TokenSpecialisation,
    /// By the id of the token after it in the text, which the model is to predict.
    pub next: TokenSpecialisation,
    /// What each expert stands out by, `[E]`, best first: ids that are more frequent among the tokens that chose it than
    /// among the others.
    pub keywords: Vec<Vec<Keyword>>,
}

/// How far experts specialise in ids.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenSpecialisation {
    /// By the expert of rank 1 alone, as `OLMoE` counts.
    pub first: SpecialisationScore,
    /// By all K experts.
    pub chosen: SpecialisationScore,
}

/// Mean over ids of the highest share that any expert has of an id's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SpecialisationScore {
    /// The mean itself.
    pub share: f64,
    /// What it would be if ids decided nothing: ids that occur seldom have a high share by chance.
    pub expected: f64,
    /// Mean of each id's share above chance, over the most that could be; 0 by chance, 1 if each id has one expert.
    pub above_chance: f64,
}

/// A token id that an expert stands out by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Keyword {
    /// The id.
    pub token: u32,
    /// Times it chose the expert; over the id's count this is its share.
    pub count: u64,
    /// Log-odds ratio over its standard deviation.
    pub z: f32,
}

/// All layers together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OverallVocabulary {
    /// Share of the expert of rank 1 by a token's own id.
    pub input_first: Spread,
    /// The same above chance.
    pub input_first_above_chance: Spread,
    /// Share of all K experts by a token's own id, above chance.
    pub input_chosen_above_chance: Spread,
    /// Share of the expert of rank 1 by the next id.
    pub next_first: Spread,
    /// The same above chance.
    pub next_first_above_chance: Spread,
    /// Share of all K experts by the next id, above chance.
    pub next_chosen_above_chance: Spread,
}
