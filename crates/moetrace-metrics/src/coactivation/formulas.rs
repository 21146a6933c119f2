//! What the counts of two experts say about them: `n_i` and `n_j` tokens chose either, `n_ij` both, of T in all.

/// The part of i's tokens that chose j too: `n_ij / n_i` (`OLMoE`, arXiv 2409.02060, §5). 0 if i was never chosen.
pub fn conditional(both: u64, i: u64) -> f64 {
    if i == 0 { 0.0 } else { both as f64 / i as f64 }
}

/// How many times as often as if the two were independent: `n_ij T / (n_i n_j)`. 0 if either was never chosen.
pub fn lift(both: u64, i: u64, j: u64, tokens: u64) -> f64 {
    if i == 0 || j == 0 { 0.0 } else { both as f64 * tokens as f64 / (i as f64 * j as f64) }
}

/// Pointwise mutual information in bits: log2 of the lift. `None` if the two were never chosen together.
pub fn pmi_bits(both: u64, i: u64, j: u64, tokens: u64) -> Option<f64> {
    (both > 0).then(|| lift(both, i, j, tokens).log2())
}

/// The tokens of both over the tokens of either: `n_ij / (n_i + n_j - n_ij)`. 0 if neither was chosen.
pub fn jaccard(both: u64, i: u64, j: u64) -> f64 {
    let either = i + j - both;
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

/// Correlation of the two choices as numbers 0 and 1: `(n_ij T - n_i n_j) / sqrt(n_i (T - n_i) n_j (T - n_j))`.
/// 0 if either was chosen always or never.
pub fn phi(both: u64, i: u64, j: u64, tokens: u64) -> f64 {
    let spread = |n: u64| n as f64 * (tokens - n) as f64;
    let product = spread(i) * spread(j);
    if product == 0.0 {
        return 0.0;
    }
    (both as f64 * tokens as f64 - i as f64 * j as f64) / product.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_the_documentation() {
        // 10 tokens: 4 chose i, 5 chose j, 3 both.
        assert_eq!((conditional(3, 4), lift(3, 4, 5, 10), jaccard(3, 4, 5)), (0.75, 1.5, 0.5));
        assert_eq!(pmi_bits(3, 4, 5, 10), Some(1.5f64.log2()));
        assert!((phi(3, 4, 5, 10) - 10.0 / 600f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn independent_experts_have_lift_one_and_phi_zero() {
        assert_eq!((lift(4, 8, 8, 16), pmi_bits(4, 8, 8, 16), phi(4, 8, 8, 16)), (1.0, Some(0.0), 0.0));
    }

    #[test]
    fn experts_that_were_never_chosen_have_nothing_in_common() {
        assert_eq!(
            (conditional(0, 0), lift(0, 0, 3, 9), jaccard(0, 0, 0), phi(0, 0, 3, 9)),
            (0.0, 0.0, 0.0, 0.0)
        );
        assert_eq!(pmi_bits(0, 3, 3, 9), None);
    }
}
