//! One pass of tokens: whole samples laid end to end, nothing padded.

use std::sync::Arc;

use crate::{RoutingError, SampleId, TokenId};

/// A data set's name or a label: cheap to copy, the same in every shard and file.
pub type Name = Arc<str>;

/// One sample inside a [`TokenBatch`]: rows `start..start + len`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Row of the text in its source split.
    pub sample: SampleId,
    /// The data set it came from.
    pub dataset: Name,
    /// Its label, where the source has one.
    pub label: Option<Name>,
    /// First row of the sample in the batch.
    pub start: usize,
    /// Number of rows, at least 1.
    pub len: usize,
    /// Whether the first row is a beginning-of-sequence token, which routes like an outlier.
    pub begins_with_bos: bool,
}

impl Span {
    /// The rows of this sample in its batch.
    pub fn rows(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.len
    }
}

/// The tokens of one pass, packed; attention is causal inside each span and sees no other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenBatch {
    token_ids: Vec<TokenId>,
    positions: Vec<u32>,
    spans: Vec<Span>,
    hidden_rows: Vec<u32>,
}

impl TokenBatch {
    /// `token_ids` and `positions` are `[N]`; `spans` cover `0..N` in order without gaps.
    ///
    /// # Errors
    /// [`RoutingError::Batch`] on unequal lengths or more than 2^32 - 1 rows, [`RoutingError::Span`] on
    /// empty, overlapping or missing rows.
    pub fn new(token_ids: Vec<TokenId>, positions: Vec<u32>, spans: Vec<Span>) -> Result<Self, RoutingError> {
        let n = token_ids.len();
        if positions.len() != n {
            return Err(RoutingError::Batch { what: "positions", found: positions.len(), expected: n });
        }
        if u32::try_from(n).is_err() {
            return Err(RoutingError::Batch { what: "rows", found: n, expected: u32::MAX as usize });
        }
        let mut next = 0;
        for span in &spans {
            if span.start != next || span.len == 0 || span.len > n - next {
                let (start, end) = (span.start, span.start.saturating_add(span.len));
                return Err(RoutingError::Span { sample: span.sample, start, end, expected: next });
            }
            next += span.len;
        }
        if next != n {
            return Err(RoutingError::Batch { what: "rows covered by spans", found: next, expected: n });
        }
        Ok(Self { token_ids, positions, spans, hidden_rows: Vec::new() })
    }

    /// The same batch, asking for the router's input at `rows` (ascending) from whoever wants hidden states.
    ///
    /// # Errors
    /// [`RoutingError::Batch`] if a row is outside the batch or the rows do not ascend.
    pub fn with_hidden_rows(mut self, rows: Vec<u32>) -> Result<Self, RoutingError> {
        if !rows.is_sorted_by(|a, b| a < b) {
            return Err(RoutingError::Batch {
                what: "ascending hidden rows",
                found: 0,
                expected: rows.len(),
            });
        }
        if let Some(&last) = rows.last().filter(|&&r| r as usize >= self.len()) {
            return Err(RoutingError::Batch {
                what: "hidden row",
                found: last as usize,
                expected: self.len(),
            });
        }
        self.hidden_rows = rows;
        Ok(self)
    }

    /// N, the number of tokens.
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// Vocabulary ids, `[N]`.
    pub fn token_ids(&self) -> &[TokenId] {
        &self.token_ids
    }

    /// Rotary positions, `[N]`; they usually count up from 0 in each span.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The samples, in row order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Rows whose router input is to be kept when hidden states are wanted, ascending.
    pub fn hidden_rows(&self) -> &[u32] {
        &self.hidden_rows
    }

    /// The span that holds `row`, if the row exists.
    pub fn span_of(&self, row: usize) -> Option<&Span> {
        let after = self.spans.partition_point(|s| s.start <= row);
        self.spans.get(after.checked_sub(1)?).filter(|s| s.rows().contains(&row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(sample: u32, start: usize, len: usize) -> Span {
        Span {
            sample: SampleId(sample),
            dataset: "d".into(),
            label: None,
            start,
            len,
            begins_with_bos: false,
        }
    }

    fn batch(n: u32, spans: Vec<Span>) -> Result<TokenBatch, RoutingError> {
        TokenBatch::new((0..n).map(TokenId).collect(), (0..n).collect(), spans)
    }

    #[test]
    fn spans_must_tile_the_rows() {
        assert!(batch(5, vec![span(0, 0, 2), span(1, 2, 3)]).is_ok());
        assert!(batch(0, vec![]).is_ok());
        for spans in [
            vec![span(0, 0, 2)],
            vec![span(0, 0, 2), span(1, 3, 2)],
            vec![span(0, 0, 3), span(1, 2, 3)],
            vec![span(0, 0, 0), span(1, 0, 5)],
            vec![span(0, 0, usize::MAX)],
        ] {
            assert!(batch(5, spans.clone()).is_err(), "{spans:?}");
        }
    }

    #[test]
    fn every_row_finds_its_span_and_no_row_beyond() {
        let b = batch(5, vec![span(7, 0, 2), span(9, 2, 3)]).unwrap();
        let found: Vec<_> = (0..6).map(|r| b.span_of(r).map(|s| s.sample.0)).collect();
        assert_eq!(found, [Some(7), Some(7), Some(9), Some(9), Some(9), None]);
    }

    #[test]
    fn hidden_rows_outside_the_batch_are_refused() {
        let b = || batch(3, vec![span(0, 0, 3)]).unwrap();
        assert_eq!(b().with_hidden_rows(vec![0, 2]).unwrap().hidden_rows(), [0, 2]);
        assert!(b().with_hidden_rows(vec![3]).is_err());
        assert!(b().with_hidden_rows(vec![1, 1]).is_err());
    }
}
