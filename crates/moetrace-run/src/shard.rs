//! A shard is whole samples of one data set in plan order: the unit of work, and one file.

use std::ops::Range;

use moetrace_corpus::CorpusPlan;
use serde::{Deserialize, Serialize};

/// Some samples of one data set, `first..first + samples` of its plan order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// File name without extension: `DATASET-00000-of-00007`.
    pub name: String,
    /// Index of the data set in the plan.
    pub dataset: usize,
    /// First sample, counted in the data set's plan order.
    pub first: usize,
    /// Number of samples.
    pub samples: usize,
    /// Number of tokens.
    pub tokens: u64,
}

impl Shard {
    /// The samples of this shard in its data set's plan order.
    pub fn range(&self) -> Range<usize> {
        self.first..self.first + self.samples
    }
}

/// Cuts every data set into shards of at most `shard_tokens` tokens; a longer sample is a shard of its own.
pub(crate) fn cut(corpus: &CorpusPlan, shard_tokens: usize) -> Vec<Shard> {
    let mut shards = Vec::new();
    for (dataset, plan) in corpus.datasets.iter().enumerate() {
        let lengths: Vec<usize> = plan.samples.iter().map(|s| s.tokens.len()).collect();
        let ranges = fill(&lengths, shard_tokens);
        let of = ranges.len();
        shards.extend(ranges.into_iter().enumerate().map(|(i, range)| Shard {
            name: format!("{}-{i:05}-of-{of:05}", plan.name),
            dataset,
            first: range.start,
            samples: range.len(),
            tokens: lengths[range].iter().map(|&n| n as u64).sum(),
        }));
    }
    shards
}

/// Greedy ranges of consecutive lengths whose sum stays within `budget`.
fn fill(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (i, &len) in lengths.iter().enumerate() {
        if i > start && held + len > budget {
            ranges.push(start..i);
            (start, held) = (i, 0);
        }
        held += len;
    }
    if start < lengths.len() {
        ranges.push(start..lengths.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sample_longer_than_the_budget_is_a_shard_of_its_own() {
        assert_eq!(fill(&[3, 20, 4, 5, 1], 10), [0..1, 1..2, 2..5]);
        assert!(fill(&[], 10).is_empty());
        assert_eq!(fill(&[11], 10), std::iter::once(0..1).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn every_sample_is_in_exactly_one_shard(lengths in prop::collection::vec(1usize..40, 0..60), budget in 1usize..64) {
            let ranges = fill(&lengths, budget);
            let covered: Vec<usize> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..lengths.len()).collect::<Vec<_>>());
            for r in ranges {
                let held: usize = lengths[r.clone()].iter().sum();
                prop_assert!(held <= budget || r.len() == 1);
            }
        }
    }
}
