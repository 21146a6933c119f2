//! Where the parts of one layer's routing lie in the words that travel to the host.

use std::ops::Range;

use crate::ModelConfig;

/// Words of each part, for N tokens; parts begin at multiples of sixteen bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sections {
    /// `[N, K]`, two ids a word.
    pub(super) experts: Range<usize>,
    /// `[N, K]`.
    pub(super) weights: Range<usize>,
    /// `[N]`.
    pub(super) margins: Range<usize>,
    /// `[N]`.
    pub(super) entropies: Range<usize>,
    /// `[N]`, or nothing where the shared expert has no gate.
    pub(super) gates: Range<usize>,
    /// `[1]`: the first row with a logit that is not finite.
    pub(super) first_bad: Range<usize>,
    /// `[N, E]` as rounded, if they are wanted.
    pub(super) logits: Range<usize>,
    /// All words.
    pub(super) end: usize,
}

impl Sections {
    pub(super) fn new(config: &ModelConfig, tokens: usize, logits: bool) -> Self {
        let mut end = 0;
        let mut section = |length: usize| {
            let start = end;
            end = (start + length).next_multiple_of(4);
            start..start + length
        };
        let choices = tokens * config.chosen();
        let gated = config.geometry().has_shared_gate();
        Self {
            experts: section(choices.div_ceil(2)),
            weights: section(choices),
            margins: section(tokens),
            entropies: section(tokens),
            gates: section(if gated { tokens } else { 0 }),
            first_bad: section(1),
            logits: section(if logits { tokens * config.experts() } else { 0 }),
            end,
        }
    }
}
