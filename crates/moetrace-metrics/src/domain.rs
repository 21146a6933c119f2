//! Whether experts specialise in data sets: mutual information and its permutation null.

use crate::{entropy, random::SplitMix64};

/// Permutations drawn for a null.
pub const NULL_DRAWS: usize = 100;

/// Mutual information in bits of the row and the column of a table of counts, `joint` being `[rows, columns]`:
/// sum of p(r, c) log2 (p(r, c) / (p(r) p(c))).
///
/// 0 for an empty table; the entropy of the rows if every column belongs to one row.
pub fn mutual_information(joint: &[u64], columns: usize) -> f64 {
    let total: u64 = joint.iter().sum();
    let mut column_sums = vec![0u64; columns];
    for row in joint.chunks_exact(columns.max(1)) {
        column_sums.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
    }
    let mut bits = 0.0;
    for row in joint.chunks_exact(columns.max(1)) {
        let row_sum = row.iter().sum::<u64>() as f64;
        for (&n, &column_sum) in row.iter().zip(&column_sums).filter(|&(&n, _)| n > 0) {
            let (n, total) = (n as f64, total as f64);
            bits += n / total * (n * total / (row_sum * column_sum as f64)).log2();
        }
    }
    // Independence leaves a rounding error of either sign.
    bits.max(0.0)
}

/// Mutual information in bits of row and column given the row's stratum: the information inside each stratum, weighted
/// by its part of the counts. `strata` has the stratum of each row, `[rows]`.
///
/// With one stratum it is [`mutual_information`]; the part of that which the strata do not explain otherwise.
pub fn information_within(joint: &[u64], columns: usize, strata: &[usize]) -> f64 {
    let total: u64 = joint.iter().sum();
    let highest = strata.iter().max().map_or(0, |&stratum| stratum + 1);
    let mut bits = 0.0;
    for stratum in 0..highest {
        let rows = joint.chunks_exact(columns.max(1)).zip(strata).filter(|&(_, &of)| of == stratum);
        let part: Vec<u64> = rows.flat_map(|(row, _)| row).copied().collect();
        let share = part.iter().sum::<u64>() as f64 / total.max(1) as f64;
        bits += share * mutual_information(&part, columns);
    }
    bits
}

/// Jensen-Shannon divergence in bits of the distributions that `rows` make up, all of one weight: the entropy of their
/// mean less the mean of their entropies (Lin, IEEE Trans. Inf. Theory 37, 1991).
///
/// 0 if all are the same, log2 of their number if no two overlap. Rows without counts are left out.
pub fn jensen_shannon(rows: &[&[u64]]) -> f64 {
    let sums: Vec<f64> = rows.iter().map(|row| row.iter().sum::<u64>() as f64).collect();
    let used = sums.iter().filter(|&&sum| sum > 0.0).count().max(1) as f64;
    let mut bits = 0.0;
    for column in 0..rows.first().map_or(0, |row| row.len()) {
        let shares =
            || rows.iter().zip(&sums).filter(|(_, sum)| **sum > 0.0).map(|(r, sum)| r[column] as f64 / sum);
        let mean = shares().sum::<f64>() / used;
        bits += shares().filter(|&p| p > 0.0).map(|p| p / used * (p / mean).log2()).sum::<f64>();
    }
    bits.max(0.0)
}

/// Entropy in bits of the row of a `[rows, columns]` table: what mutual information cannot exceed.
pub fn row_entropy(joint: &[u64], columns: usize) -> f64 {
    let rows: Vec<u64> = joint.chunks_exact(columns.max(1)).map(|row| row.iter().sum()).collect();
    entropy::of_counts(&rows)
}

/// Mutual information on a subset of samples, and what it is when their data sets are shuffled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PermutationNull {
    /// With the labels as they are, in bits.
    pub(crate) observed_bits: f64,
    /// Mean over the permutations, in bits.
    pub(crate) mean_bits: f64,
    /// The 95th of 100 permutations in ascending order, in bits.
    pub(crate) percentile_95_bits: f64,
    /// The largest of all permutations, in bits.
    pub(crate) max_bits: f64,
    /// (observed - mean) / standard deviation; `None` if the permutations do not vary.
    pub(crate) z: Option<f64>,
}

/// One sample of the subset that the null is drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LabelledSample<'a> {
    /// Index of its data set or other group.
    pub(crate) group: usize,
    /// How often each expert was chosen in it, `[L, E]`.
    pub(crate) counts: &'a [u32],
}

/// Shuffles groups over whole samples (tokens of one text are not independent, so shuffling tokens would make any
/// difference look significant), [`NULL_DRAWS`] times, the same shuffle for every layer. A sample keeps its stratum:
/// `strata` has that of every group, `[groups]`.
///
/// Gives one null for each of the L layers; `experts` is E. The result depends on `seed` and on the order of `samples`.
pub(crate) fn permutation_null(
    samples: &[LabelledSample<'_>],
    strata: &[usize],
    layers: usize,
    experts: usize,
    seed: u64,
) -> Vec<PermutationNull> {
    let groups = strata.len();
    let mut labels: Vec<usize> = samples.iter().map(|s| s.group).collect();
    let informations = |labels: &[usize]| -> Vec<f64> {
        let mut tables = vec![0u64; layers * groups * experts];
        for (sample, &group) in samples.iter().zip(labels) {
            for (layer, counts) in sample.counts.chunks_exact(experts).enumerate() {
                let cells = &mut tables[(layer * groups + group) * experts..][..experts];
                cells.iter_mut().zip(counts).for_each(|(cell, &n)| *cell += u64::from(n));
            }
        }
        let of_layers = tables.chunks_exact((groups * experts).max(1));
        of_layers.map(|table| information_within(table, experts, strata)).collect()
    };
    let observed = informations(&labels);
    let mut random = SplitMix64::new(seed);
    let draws: Vec<Vec<f64>> = (0..NULL_DRAWS)
        .map(|_| {
            shuffle_within(&mut labels, strata, &mut random);
            informations(&labels)
        })
        .collect();
    let of_layer = |layer: usize| draws.iter().map(|draw| draw[layer]).collect();
    observed.iter().enumerate().map(|(layer, &bits)| summarise(bits, of_layer(layer))).collect()
}

/// Shuffles the labels of each stratum among the places that hold one.
fn shuffle_within(labels: &mut [usize], strata: &[usize], random: &mut SplitMix64) {
    for stratum in 0..strata.iter().max().map_or(0, |&highest| highest + 1) {
        let places: Vec<usize> = (0..labels.len()).filter(|&i| strata[labels[i]] == stratum).collect();
        let mut shuffled: Vec<usize> = places.iter().map(|&i| labels[i]).collect();
        random.shuffle(&mut shuffled);
        places.iter().zip(shuffled).for_each(|(&i, label)| labels[i] = label);
    }
}

fn summarise(observed_bits: f64, mut draws: Vec<f64>) -> PermutationNull {
    draws.sort_unstable_by(f64::total_cmp);
    let count = draws.len() as f64;
    let mean_bits = draws.iter().sum::<f64>() / count;
    let variance = draws.iter().map(|bits| (bits - mean_bits).powi(2)).sum::<f64>() / count;
    // Draws that differ by rounding alone do not vary.
    let varies = variance.sqrt() > 1e-12 * mean_bits.max(1e-3);
    PermutationNull {
        observed_bits,
        mean_bits,
        percentile_95_bits: draws[NULL_DRAWS * 95 / 100 - 1],
        max_bits: draws[NULL_DRAWS - 1],
        z: varies.then(|| (observed_bits - mean_bits) / variance.sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_that_identify_data_sets_give_the_entropy_of_the_data_sets() {
        let joint = [[30, 10, 0, 0], [0; 4], [0, 0, 5, 15]].concat();
        let [a, b, c] = [40.0f64, 0.0, 20.0].map(|n| n / 60.0);
        assert_eq!(b, 0.0);
        let expected = -(a * a.log2() + c * c.log2());
        assert!((mutual_information(&joint, 4) - expected).abs() < 1e-12);
        assert!((row_entropy(&joint, 4) - expected).abs() < 1e-12);
    }

    #[test]
    fn independent_experts_tell_nothing() {
        assert!(mutual_information(&[10, 20, 30, 20, 40, 60], 3) < 1e-12);
        assert_eq!(mutual_information(&[], 4), 0.0);
        assert_eq!(mutual_information(&[0, 0, 0, 0], 2), 0.0);
    }

    #[test]
    fn a_real_difference_lies_far_above_its_null_and_none_lies_within() {
        // Layer 0: data set decides the expert. Layer 1: sample number decides it, whatever the data set.
        let counts: Vec<[u32; 4]> = (0..40)
            .map(|i| {
                let by_sample = if i % 4 < 2 { [9, 1] } else { [1, 9] };
                let by_dataset = if i % 2 == 0 { [9, 1] } else { [1, 9] };
                [by_dataset[0], by_dataset[1], by_sample[0], by_sample[1]]
            })
            .collect();
        let samples: Vec<_> =
            counts.iter().enumerate().map(|(i, counts)| LabelledSample { group: i % 2, counts }).collect();
        let nulls = permutation_null(&samples, &[0, 0], 2, 2, 7);
        assert!(nulls[0].z.unwrap() > 10.0 && nulls[0].observed_bits > 2.0 * nulls[0].max_bits, "{nulls:?}");
        assert!(nulls[1].observed_bits <= nulls[1].percentile_95_bits, "{nulls:?}");
        assert_eq!(nulls, permutation_null(&samples, &[0, 0], 2, 2, 7));
    }

    #[test]
    fn information_splits_into_that_of_the_strata_and_that_within_them() {
        // Rows 0 and 1 are of stratum 0, row 2 and 3 of stratum 1.
        let joint = [[9, 1, 5], [2, 8, 5], [0, 3, 3], [1, 1, 1]].concat();
        let strata = [[11, 9, 10], [1, 4, 4]].concat();
        let within = information_within(&joint, 3, &[0, 0, 1, 1]);
        assert!((within - (mutual_information(&joint, 3) - mutual_information(&strata, 3))).abs() < 1e-12);
        assert_eq!(information_within(&joint, 3, &[0; 4]), mutual_information(&joint, 3));
    }

    #[test]
    fn equal_rows_do_not_diverge_and_disjoint_ones_diverge_by_log2_of_their_number() {
        assert_eq!(jensen_shannon(&[&[1, 2, 3], &[2, 4, 6], &[0, 0, 0]]), 0.0);
        assert!((jensen_shannon(&[&[5, 0, 0], &[0, 1, 0], &[0, 0, 9]]) - 3f64.log2()).abs() < 1e-12);
        // P = (1, 0), Q = (1/2, 1/2): H(3/4, 1/4) - (0 + 1) / 2.
        let expected = -0.75 * 0.75f64.log2() - 0.25 * 0.25f64.log2() - 0.5;
        assert!((jensen_shannon(&[&[7, 0], &[1, 1]]) - expected).abs() < 1e-12);
        assert_eq!((jensen_shannon(&[]), jensen_shannon(&[&[0]])), (0.0, 0.0));
    }

    #[test]
    fn samples_that_are_all_alike_have_no_z() {
        let samples =
            [LabelledSample { group: 0, counts: &[3, 1] }, LabelledSample { group: 1, counts: &[3, 1] }];
        assert_eq!(permutation_null(&samples, &[0, 0], 1, 2, 0)[0].z, None);
    }
}
