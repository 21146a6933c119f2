//! Two models beside each other: what they are and how they route.

use super::overview::facts;
use crate::input::{ReportInput, ReportedRun};
use crate::section::Section;

/// Absent where there is one run.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let runs: [&ReportedRun; 2] = [input.run, input.other?];
    let mut block = facts("A and B", &runs, |run| &run.compared, true);
    block.how = "Coverage: part of the experts that were used. Entropies are parts of their maximum, so that models with \
                 different numbers of experts compare: 1 is an even spread. MaxVio: by how much the busiest expert exceeds \
                 an even load. Reuse (part of a token's experts that the next token uses too), affinity (what an expert \
                 tells about the next layer's) and SRP (how well the best fixed experts serve a segment of 16 tokens: how \
                 predictable routing is) are parts of the way from chance, 0, to the most possible; chance for affinity is \
                 what another token of the same text tells. Active: parameters that one token meets. \
                 Weights: bytes, as the run holds them."
        .into();
    let lead = "How do the two models, or the two ways to run one, differ? Lines and maps named B are of B; everything else is \
                of A."
        .into();
    Some(Section { id: "models", title: "Models", lead, blocks: vec![block] })
}
