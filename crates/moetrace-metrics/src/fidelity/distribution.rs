//! How far two routers' full distributions are apart: from logits, where both recorded them.

/// Kullback-Leibler divergence of the softmax of `other` from that of `reference`, in bits: sum over experts of
/// p log2 (p / q), p the reference's. `[E]` each, all finite.
///
/// 0 if and only if the two distributions are equal; no upper limit.
pub fn kl_bits(reference: &[f32], other: &[f32]) -> f64 {
    let (p, q) = (log_normaliser(reference), log_normaliser(other));
    let nats: f64 = reference
        .iter()
        .zip(other)
        .map(|(&a, &b)| {
            let log_p = f64::from(a) - p;
            log_p.exp() * (log_p - (f64::from(b) - q))
        })
        .sum();
    // Equal distributions leave a rounding error of either sign.
    (nats / std::f64::consts::LN_2).max(0.0)
}

/// Mean over experts of the squared difference of two rows of logits, `[E]` each.
pub fn mean_square(reference: &[f32], other: &[f32]) -> f64 {
    let squares = reference.iter().zip(other).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    squares.sum::<f64>() / reference.len().max(1) as f64
}

/// ln of the sum of e^logit.
fn log_normaliser(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let largest = f64::from(largest);
    largest + logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sure_router_against_one_that_knows_nothing_is_log2_of_the_expert_count_apart() {
        let (sure, even) = ([100.0f32, 0.0, 0.0, 0.0], [1.0f32; 4]);
        assert!((kl_bits(&sure, &even) - 2.0).abs() < 1e-12);
        // The other way it is the sure router that is surprised: 3/4 of the mass at e^-100.
        let nats = 0.75 * 100.0 - 4f64.ln();
        assert!((kl_bits(&even, &sure) - nats / std::f64::consts::LN_2).abs() < 1e-9);
    }

    #[test]
    fn a_constant_added_to_all_logits_changes_no_distribution_but_counts_as_a_difference() {
        let (a, b) = ([0.5f32, -1.0, 3.0], [2.5f32, 1.0, 5.0]);
        assert!(kl_bits(&a, &b) < 1e-15);
        assert_eq!(mean_square(&a, &b), 4.0);
        assert_eq!((kl_bits(&a, &a), mean_square(&a, &a)), (0.0, 0.0));
    }

    #[test]
    fn logits_of_any_size_give_a_number() {
        assert!(kl_bits(&[16_384.0, -16_384.0], &[-16_384.0, 16_384.0]).is_finite());
        assert_eq!((kl_bits(&[3.0], &[-7.0]), kl_bits(&[], &[])), (0.0, 0.0));
    }

    proptest! {
        #[test]
        fn divergence_is_that_of_the_plain_definition_and_never_negative(
            pairs in proptest::collection::vec((-20f32..20.0, -20f32..20.0), 1..65),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let softmax = |l: &[f32]| -> Vec<f64> {
                let e: Vec<f64> = l.iter().map(|&x| f64::from(x).exp()).collect();
                let sum: f64 = e.iter().sum();
                e.into_iter().map(|x| x / sum).collect()
            };
            let plain: f64 = softmax(&a).iter().zip(softmax(&b)).map(|(p, q)| p * (p / q).log2()).sum();
            let found = kl_bits(&a, &b);
            prop_assert!(found >= 0.0 && (found - plain).abs() < 1e-9, "{found} {plain}");
        }
    }
}
