//! Whole texts of a pass that a layer computes at once.

use std::ops::Range;

/// A part of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) number: usize,
    /// Rows of the pass.
    pub(super) rows: Range<usize>,
    /// Spans of the pass.
    pub(super) spans: Range<usize>,
    /// Whether the pass ends with it.
    pub(super) is_last: bool,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it is all of the pass.
    pub(super) fn is_whole(&self) -> bool {
        self.number == 0 && self.is_last
    }

    /// Its elements among those of the pass, rows of width `d`.
    pub(super) fn elements(&self, d: usize) -> Range<usize> {
        self.rows.start * d..self.rows.end * d
    }

    /// Its two offsets among those of all chunks.
    pub(super) fn offsets(&self) -> Range<usize> {
        2 * self.number..2 * self.number + 2
    }

    /// Cuts a pass into chunks of at most `most` rows and about equal size; a longer span is a chunk of its own. A chunk
    /// ends once it has its share of the rows, or before a span that it has no room for: then the two after each other
    /// hold more than `most`. So there are at most three times as many as the rows need, and one.
    pub(super) fn cut(lengths: &[usize], most: usize) -> Vec<Self> {
        let all: usize = lengths.iter().sum();
        let share = all.div_ceil(all.div_ceil(most.max(1)).max(1));
        let mut chunks: Vec<Self> = Vec::new();
        for (span, &length) in lengths.iter().enumerate() {
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < share && chunk.len() + length <= most => {
                    chunk.rows.end += length;
                    chunk.spans.end = span + 1;
                }
                _ => {
                    let start = chunks.last().map_or(0, |chunk| chunk.rows.end);
                    let (rows, spans) = (start..start + length, span..span + 1);
                    chunks.push(Self { number: chunks.len(), rows, spans, is_last: false });
                }
            }
        }
        if let Some(last) = chunks.last_mut() {
            last.is_last = true;
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_are_about_equal() {
        let sizes = |lengths: &[usize], most| -> Vec<usize> {
            Chunk::cut(lengths, most).iter().map(Chunk::len).collect()
        };
        assert_eq!(sizes(&[512; 10], 4096), [2560, 2560]);
        assert_eq!(sizes(&[512; 8], 4096), [4096]);
        assert_eq!(sizes(&[600, 600, 600], 1000), [600, 600, 600]);
        assert_eq!(sizes(&[5000, 10], 4096), [5000, 10]);
        assert!(Chunk::cut(&[], 4096).is_empty());
    }

    proptest! {
        #[test]
        fn every_span_is_in_one_chunk_that_has_room(
            lengths in prop::collection::vec(1usize..600, 1..80), most in 600usize..3000
        ) {
            let chunks = Chunk::cut(&lengths, most);
            let spans: Vec<usize> = chunks.iter().flat_map(|chunk| chunk.spans.clone()).collect();
            prop_assert_eq!(spans, (0..lengths.len()).collect::<Vec<_>>());
            let all: usize = lengths.iter().sum();
            prop_assert!(chunks.len() <= 3 * all.div_ceil(most) + 1);
            for (number, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk.len(), lengths[chunk.spans.clone()].iter().sum::<usize>());
                prop_assert!(chunk.len() <= most);
                prop_assert_eq!(chunk.number, number);
                prop_assert_eq!(chunk.rows.start, lengths[..chunk.spans.start].iter().sum::<usize>());
                prop_assert_eq!(chunk.is_last, number + 1 == chunks.len());
            }
        }
    }
}
