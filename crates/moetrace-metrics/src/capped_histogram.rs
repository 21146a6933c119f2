//! Counts of lengths, with all lengths above a limit in one place.

/// How often each length occurred. Of lengths above the limit the number and the sum are kept, so that the mean and
/// every sum of (length - w) with w up to the limit stay exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CappedHistogram {
    /// Of the lengths 0 to the limit.
    counts: Vec<u64>,
    above: u64,
    above_sum: u64,
}

impl CappedHistogram {
    pub(crate) fn new(limit: usize) -> Self {
        Self { counts: vec![0; limit + 1], above: 0, above_sum: 0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, length: usize) {
        self.add_many(length, 1);
    }

    #[inline]
    pub(crate) fn add_many(&mut self, length: usize, times: u64) {
        if let Some(count) = self.counts.get_mut(length) {
            *count += times;
        } else {
            self.above += times;
            self.above_sum += length as u64 * times;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.above += other.above;
        self.above_sum += other.above_sum;
    }

    /// Number of lengths.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }

    /// Sum of the lengths.
    pub(crate) fn sum(&self) -> u64 {
        self.excess(0)
    }

    /// Sum of length - `start` over the lengths above `start`, which is at most the limit.
    pub(crate) fn excess(&self, start: usize) -> u64 {
        let counted = (0u64..).zip(self.counts.get(start..).unwrap_or_default());
        counted.map(|(over, &n)| over * n).sum::<u64>() + self.above_sum - self.above * start as u64
    }

    /// Of the lengths 0 to the limit.
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Lengths above the limit.
    pub(crate) fn above(&self) -> u64 {
        self.above
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_exact_below_and_above_the_limit(lengths in proptest::collection::vec(0usize..40, 0..50), start in 0usize..=9) {
            let mut histogram = CappedHistogram::new(9);
            for &length in &lengths {
                histogram.add(length);
            }
            prop_assert_eq!(histogram.total(), lengths.len() as u64);
            prop_assert_eq!(histogram.sum(), lengths.iter().sum::<usize>() as u64);
            let excess: usize = lengths.iter().map(|length| length.saturating_sub(start)).sum();
            prop_assert_eq!(histogram.excess(start), excess as u64);
            prop_assert_eq!(histogram.above(), lengths.iter().filter(|&&length| length > 9).count() as u64);
        }
    }
}
