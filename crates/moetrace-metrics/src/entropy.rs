//! Entropies, in bits.

/// Entropy of the distribution that `counts` make up, in bits: -sum f log2 f with f = n / total.
///
/// 0 if the total is 0 or one entry holds everything; log2 of the number of entries if all are equal.
pub fn of_counts(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let used = counts.iter().filter(|&&n| n > 0);
    let bits: f64 = used
        .map(|&n| {
            let f = n as f64 / total as f64;
            -f * f.log2()
        })
        .sum();
    bits.max(0.0)
}

/// Entropy in bits of `probabilities`, which sum to 1.
pub fn of_probabilities(probabilities: &[f64]) -> f64 {
    probabilities.iter().filter(|&&p| p > 0.0).map(|p| -p * p.log2()).sum::<f64>().max(0.0)
}

/// What [`of_counts`] falls short of the truth by, to first order, in bits: (m - 1) / (2 N ln 2) with m the entries
/// above 0 and N the total (Miller, "Note on the bias of information estimates", 1955, and Madow). 0 if N is 0.
pub fn miller_madow_bits(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let used = counts.iter().filter(|&&n| n > 0).count() as f64;
    if total == 0 { 0.0 } else { (used - 1.0) / (2.0 * total as f64 * std::f64::consts::LN_2) }
}

/// Entropy in bits of one token's `weights` after dividing them by their sum, `[K]`; `None` if all are 0.
///
/// With S the sum, -sum (w/S) log2 (w/S) = log2 S - (sum w log2 w) / S.
#[inline]
pub fn of_weights(weights: &[f32]) -> Option<f64> {
    let (mut sum, mut weighted_logs) = (0f64, 0f64);
    for &weight in weights {
        let w = f64::from(weight);
        if w > 0.0 {
            sum += w;
            weighted_logs += w * w.log2();
        }
    }
    // Rounding can leave a one-hot row at -1e-17.
    (sum > 0.0).then(|| (sum.log2() - weighted_logs / sum).max(0.0))
}

/// An entropy as a part of its maximum, log2 of `outcomes`; 0 where there is but one outcome.
pub fn normalised(bits: f64, outcomes: usize) -> f64 {
    if outcomes < 2 { 0.0 } else { bits / (outcomes as f64).log2() }
}

/// The number of equally loaded experts that have this entropy: 2^H.
pub fn effective_experts(load_entropy_bits: f64) -> f64 {
    load_entropy_bits.exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uniform_counts_give_log2_of_the_expert_count() {
        for experts in [1usize, 2, 60, 64, 128] {
            let bits = of_counts(&vec![9; experts]);
            assert!((bits - (experts as f64).log2()).abs() < 1e-12);
            assert!((effective_experts(bits) - experts as f64).abs() < 1e-10);
        }
    }

    #[test]
    fn one_hot_counts_and_weights_have_no_entropy() {
        assert_eq!(of_counts(&[0, 12, 0]), 0.0);
        assert_eq!(of_weights(&[0.3, 0.0, 0.0]), Some(0.0));
        assert_eq!(effective_experts(0.0), 1.0);
    }

    #[test]
    fn the_bias_of_64_experts_and_10_000_slots_is_the_documented_one() {
        let counts = [&[157u64; 32][..], &[156; 16], &[155; 16]].concat();
        assert_eq!(counts.iter().sum::<u64>(), 10_000);
        assert!((miller_madow_bits(&counts) - 0.004_545).abs() < 1e-6);
        assert_eq!((miller_madow_bits(&[0, 0]), miller_madow_bits(&[0, 9])), (0.0, 0.0));
    }

    #[test]
    fn nothing_has_no_entropy() {
        assert_eq!(of_counts(&[0, 0]), 0.0);
        assert_eq!(of_weights(&[0.0, 0.0]), None);
    }

    #[test]
    fn equal_weights_give_log2_of_the_chosen_count_whatever_their_sum() {
        for (k, weight) in [(2usize, 0.5f32), (6, 0.01), (8, 3.0)] {
            let bits = of_weights(&vec![weight; k]).unwrap();
            assert!((bits - (k as f64).log2()).abs() < 1e-12);
            assert!((normalised(bits, k) - 1.0).abs() < 1e-12);
        }
        assert_eq!(normalised(0.0, 1), 0.0);
    }

    proptest! {
        #[test]
        fn weights_agree_with_the_plain_definition(weights in proptest::collection::vec(1e-6f32..1.0, 1..9)) {
            let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let plain: f64 = weights.iter().map(|&w| f64::from(w) / sum).map(|p| -p * p.log2()).sum();
            prop_assert!((of_weights(&weights).unwrap() - plain).abs() < 1e-12);
        }
    }
}
