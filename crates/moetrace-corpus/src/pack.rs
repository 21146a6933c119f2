//! Samples into passes: whole samples in plan order, laid end to end.

use std::ops::Range;

use moetrace_routing::{Name, Span, TokenBatch, TokenId};

use crate::{CorpusError, Sample};

/// Lays `samples` end to end into one batch of N tokens; positions count from 0 in each.
///
/// # Errors
/// [`CorpusError::Batch`] if a sample has no tokens or N exceeds 2^32 - 1.
pub fn pack(dataset: &Name, samples: &[Sample]) -> Result<TokenBatch, CorpusError> {
    let n = samples.iter().map(|s| s.tokens.len()).sum();
    let mut token_ids: Vec<TokenId> = Vec::with_capacity(n);
    let mut positions = Vec::with_capacity(n);
    let mut spans = Vec::with_capacity(samples.len());
    for sample in samples {
        spans.push(Span {
            sample: sample.id,
            dataset: dataset.clone(),
            label: sample.label.clone(),
            start: token_ids.len(),
            len: sample.tokens.len(),
            begins_with_bos: sample.begins_with_bos,
        });
        token_ids.extend_from_slice(&sample.tokens);
        positions.extend(0..sample.tokens.len() as u32);
    }
    Ok(TokenBatch::new(token_ids, positions, spans)?)
}

/// Cuts `samples` in their order into runs of at most `tokens_per_pass` tokens; a sample that is longer is a
/// pass of its own. The ranges tile `0..samples.len()`.
pub fn passes(samples: &[Sample], tokens_per_pass: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut tokens) = (0, 0usize);
    for (i, sample) in samples.iter().enumerate() {
        let longer = tokens.saturating_add(sample.tokens.len());
        if i > start && longer > tokens_per_pass {
            ranges.push(start..i);
            (start, tokens) = (i, sample.tokens.len());
        } else {
            tokens = longer;
        }
    }
    if start < samples.len() {
        ranges.push(start..samples.len());
    }
    ranges
}
