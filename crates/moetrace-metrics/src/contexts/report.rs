//! What comes out: plain numbers with serde, no totals.

use moetrace_routing::Name;
use serde::{Deserialize, Serialize};

use super::best::Entry;

/// Where in the texts each expert has its highest weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContextsReport {
    /// Names of the data sets that contexts are from, ascending.
    pub datasets: Vec<String>,
    /// One for each MoE layer, ascending.
    pub layers: Vec<ContextLayer>,
}

/// One MoE layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContextLayer {
    /// The model's own (absolute) number of the layer.
    pub layer: u16,
    /// Contexts of each expert, `[E]`, highest weight first, each of another text.
    pub experts: Vec<Vec<Context>>,
}

/// A token that an expert has a high weight at, and those around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Index of its data set in [`ContextsReport::datasets`].
    pub dataset: u32,
    /// Its text: row of the source split.
    pub sample: u32,
    /// Where the token stands in its text, a BOS token counted.
    pub position: u32,
    /// The expert's weight, as applied.
    pub weight: f32,
    /// Ids of the tokens from before to after it.
    pub tokens: Vec<u32>,
    /// Where it stands among these.
    pub at: u32,
}

pub(super) fn context(entry: &Entry, names: &[&Name]) -> Context {
    Context {
        dataset: names.binary_search(&&entry.dataset).unwrap_or_default() as u32,
        sample: entry.sample.0,
        position: entry.position,
        weight: entry.weight(),
        tokens: entry.tokens.iter().map(|id| id.0).collect(),
        at: entry.at as u32,
    }
}
