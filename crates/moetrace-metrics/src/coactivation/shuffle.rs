//! Pairs to expect if the slots of a token knew nothing of each other.
//!
//! Each rank's column of experts is shuffled over the tokens. A token cannot choose an expert twice, so two tokens
//! exchange their experts of a rank only if neither then has one twice: swap randomisation (Gionis et al., "Assessing
//! data mining results via swap randomization", 2007), under which every table with these columns and no doubled
//! expert is equally likely. Dropping the tokens with a doubled expert instead would drop the most common experts.

use crate::{pairs, random::SplitMix64};

/// Shuffles drawn.
pub const SHUFFLE_DRAWS: usize = 100;

/// What the shuffles say of one layer; pairs in the order of the strict upper triangle, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShuffledPairs {
    /// Tokens with both experts as they are, `[E (E - 1) / 2]`.
    pub(crate) observed: Vec<u64>,
    /// Sum over the draws.
    sums: Vec<u64>,
    /// Sum of squares over the draws.
    squares: Vec<u64>,
}

impl ShuffledPairs {
    /// Mean of the shuffles.
    pub(crate) fn mean(&self, pair: usize) -> f64 {
        self.sums[pair] as f64 / SHUFFLE_DRAWS as f64
    }

    /// (observed - mean) / standard deviation of the shuffles; `None` if they do not vary.
    pub(crate) fn z(&self, pair: usize) -> Option<f64> {
        let (n, sum, squares) =
            (SHUFFLE_DRAWS as u128, u128::from(self.sums[pair]), u128::from(self.squares[pair]));
        // In integers: draws that are all alike vary by exactly 0.
        let scaled_variance = n * squares - sum * sum;
        let deviation = (scaled_variance as f64 / (n * (n - 1)) as f64).sqrt();
        (scaled_variance > 0).then(|| (self.observed[pair] as f64 - self.mean(pair)) / deviation)
    }
}

/// Shuffles the `[N, K]` ids of `rows`, [`SHUFFLE_DRAWS`] times, each shuffle beginning where the one before ended.
pub(crate) fn shuffled_pairs(mut rows: Vec<u16>, k: usize, experts: usize, seed: u64) -> ShuffledPairs {
    let cells = pairs::possible(experts) as usize;
    let mut counts = vec![0u32; cells];
    count(&rows, k, experts, &mut counts);
    let observed = counts.iter().map(|&n| u64::from(n)).collect();
    let mut null = ShuffledPairs { observed, sums: vec![0; cells], squares: vec![0; cells] };
    let mut random = SplitMix64::new(seed);
    for _ in 0..SHUFFLE_DRAWS {
        shuffle(&mut rows, k, &mut random);
        counts.fill(0);
        count(&rows, k, experts, &mut counts);
        for ((sum, square), &n) in null.sums.iter_mut().zip(&mut null.squares).zip(&counts) {
            *sum += u64::from(n);
            *square += u64::from(n) * u64::from(n);
        }
    }
    null
}

/// Fisher and Yates on every column; an exchange that would double an expert is left out.
fn shuffle(rows: &mut [u16], k: usize, random: &mut SplitMix64) {
    for column in 0..k {
        for a in (1..rows.len() / k).rev() {
            let b = random.below(a + 1);
            let (of_a, of_b) = (rows[a * k + column], rows[b * k + column]);
            if !rows[a * k..][..k].contains(&of_b) && !rows[b * k..][..k].contains(&of_a) {
                rows.swap(a * k + column, b * k + column);
            }
        }
    }
}

fn count(rows: &[u16], k: usize, experts: usize, counts: &mut [u32]) {
    for row in rows.chunks_exact(k) {
        for (rank, &first) in row.iter().enumerate() {
            for &second in &row[rank + 1..] {
                let (low, high) = (usize::from(first.min(second)), usize::from(first.max(second)));
                counts[pairs::triangle_index(experts, low, high)] += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bound_pairs_stand_far_above_the_shuffles_and_independent_slots_do_not() {
        // Rank 1 is 0 or 1, rank 2 follows it: 0 with 2, 1 with 3.
        let bound: Vec<u16> = (0..400u16).flat_map(|i| [i % 2, 2 + i % 2]).collect();
        let null = shuffled_pairs(bound, 2, 4, 1);
        let pair = |low, high| pairs::triangle_index(4, low, high);
        assert_eq!((null.observed[pair(0, 2)], null.observed[pair(0, 3)]), (200, 0));
        assert!((null.mean(pair(0, 2)) - 100.0).abs() < 3.0);
        assert!(null.z(pair(0, 2)).unwrap() > 15.0 && null.z(pair(0, 3)).unwrap() < -15.0);
        assert_eq!(null.z(pair(0, 1)), None);
        let free: Vec<u16> = (0..400u16).flat_map(|i| [i % 2, 2 + i / 2 % 2]).collect();
        assert!(shuffled_pairs(free, 2, 4, 1).z(pair(0, 2)).unwrap().abs() < 3.0);
    }

    #[test]
    fn choosing_every_expert_leaves_nothing_to_shuffle() {
        let null = shuffled_pairs([0, 1, 2, 2, 0, 1, 1, 2, 0].to_vec(), 3, 3, 0);
        assert_eq!((null.observed.clone(), null.z(0), null.mean(0)), (vec![3, 3, 3], None, 3.0));
    }

    proptest! {
        #[test]
        fn a_shuffle_keeps_every_column_and_doubles_no_expert(
            rows in proptest::collection::vec(
                proptest::sample::subsequence((0u16..7).collect::<Vec<_>>(), 3).prop_shuffle(), 0..40),
            seed in any::<u64>(),
        ) {
            let before = rows.concat();
            let mut after = before.clone();
            shuffle(&mut after, 3, &mut SplitMix64::new(seed));
            for column in 0..3 {
                let sorted = |rows: &[u16]| {
                    let mut ids: Vec<u16> = rows.iter().skip(column).step_by(3).copied().collect();
                    ids.sort_unstable();
                    ids
                };
                prop_assert_eq!(sorted(&before), sorted(&after));
            }
            for row in after.chunks_exact(3) {
                prop_assert!(row[0] != row[1] && row[1] != row[2] && row[0] != row[2]);
            }
        }
    }
}
