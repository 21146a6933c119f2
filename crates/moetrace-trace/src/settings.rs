//! What a trace holds and how it is written.

use std::collections::BTreeMap;

use moetrace_routing::WeightPrecision;

/// The columns of a trace that may be absent. Those of the first three are absent only where another tool recorded the
/// routing without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceColumns {
    /// `weights_LL`, `[K]` for each token and layer.
    pub weights: bool,
    /// `margin_LL`.
    pub margins: bool,
    /// `gate_entropy_LL`.
    pub gate_entropy: bool,
    /// `token_id`; off with `--no-tokens`, so that the text cannot be had back from the trace.
    pub token_ids: bool,
    /// `text` in the samples table.
    pub text: bool,
    /// `logits_LL`, `[E]` for each token and layer.
    pub logits: bool,
    /// `shared_gate_LL`; left out all the same where the model has no such gate.
    pub shared_gate: bool,
    /// `nll`, the loss of each token.
    pub nll: bool,
    /// The hidden table, a file of its own.
    pub hidden: bool,
}

impl Default for TraceColumns {
    fn default() -> Self {
        Self {
            weights: true,
            margins: true,
            gate_entropy: true,
            token_ids: true,
            text: false,
            logits: false,
            shared_gate: false,
            nll: false,
            hidden: false,
        }
    }
}

/// Everything that all tables of a run have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// Which optional columns are written.
    pub columns: TraceColumns,
    /// What the run wants every file to carry; each key gets the prefix `moetrace.`.
    pub metadata: BTreeMap<String, String>,
    /// The precision the producer has rounded weights to: recorded, not applied here.
    pub weights: WeightPrecision,
    /// Threads that encode columns, at least 1. The bytes written do not depend on it.
    pub threads: usize,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            columns: TraceColumns::default(),
            metadata: BTreeMap::new(),
            weights: WeightPrecision::default(),
            threads: 1,
        }
    }
}
