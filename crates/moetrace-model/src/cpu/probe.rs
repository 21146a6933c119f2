//! Intermediate tensors of a pass, for parity tests and for whoever reuses the model.

use std::ops::Range;

use moetrace_routing::LayerIndex;

/// A named place in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbePoint {
    /// Embedded tokens, `[N, D]`.
    Embedding,
    /// After the output projection, before the residual is added, `[N, D]`.
    AttentionOutput(LayerIndex),
    /// Experts (or the dense block) before the residual is added, `[N, D]`.
    MlpOutput(LayerIndex),
    /// The residual stream after the layer, `[N, D]`.
    LayerOutput(LayerIndex),
    /// After the last norm, `[N, D]`.
    FinalNorm,
    /// Router logits, `[N, E]`.
    RouterLogits(LayerIndex),
    /// Scores that the top-k chose from, `[N, E]`.
    RouterScores(LayerIndex),
    /// Language-model logits, `[n, V]`; they come in several calls of a few rows each.
    Logits,
}

/// Sees intermediate tensors as they are computed. A pass with a probe computes everything, also what
/// routing alone does not need.
pub trait Probe {
    /// `values` holds `rows` of the pass at `point`, row-major.
    fn observe(&mut self, point: ProbePoint, rows: Range<usize>, values: &[f32]);
}
