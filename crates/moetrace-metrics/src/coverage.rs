//! How many experts, or pairs of experts, were used at all.

/// Number of entries above 0.
pub fn active(counts: &[u64]) -> u64 {
    counts.iter().filter(|&&n| n > 0).count() as u64
}

/// The part of `slots` that is active; 0 if there are no slots.
pub fn fraction(active: u64, slots: u64) -> f64 {
    if slots == 0 { 0.0 } else { active as f64 / slots as f64 }
}

/// The number of distinct slots seen after `tokens` independent draws, each of which hits any one slot with
/// probability `hit`: `slots` (1 - (1 - hit)^tokens).
///
/// The null for coverage takes `hit` = K / E, see [`expected_experts`]; for pairs K (K - 1) / (E (E - 1)), see
/// [`expected_pairs`].
fn expected_distinct(slots: f64, hit: f64, tokens: u64) -> f64 {
    if tokens == 0 {
        return 0.0;
    }
    // ln(1 - hit) keeps its digits where hit is small and tokens are many; hit = 1 gives exp(-inf) = 0.
    slots * -f64::exp_m1(tokens as f64 * f64::ln_1p(-hit))
}

/// Experts that `tokens` tokens reach if each chooses K of E at random: E (1 - (1 - K/E)^T).
pub fn expected_experts(experts: usize, chosen: usize, tokens: u64) -> f64 {
    expected_distinct(experts as f64, chosen as f64 / experts as f64, tokens)
}

/// Unordered pairs that `tokens` tokens reach if each chooses K of E at random:
/// C(E, 2) (1 - (1 - K(K-1) / (E(E-1)))^T).
pub fn expected_pairs(experts: usize, chosen: usize, tokens: u64) -> f64 {
    let possible = crate::pairs::possible(experts);
    if possible == 0 {
        return 0.0;
    }
    let hit = crate::pairs::possible(chosen) as f64 / possible as f64;
    expected_distinct(possible as f64, hit, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_is_k_after_one_token_and_e_after_many() {
        assert!((expected_experts(64, 6, 1) - 6.0).abs() < 1e-12);
        assert!((expected_experts(64, 6, 2) - 64.0 * (1.0 - (58.0f64 / 64.0).powi(2))).abs() < 1e-12);
        assert_eq!(expected_experts(64, 6, 1_000_000), 64.0);
        assert_eq!(expected_experts(64, 6, 0), 0.0);
    }

    #[test]
    fn choosing_every_expert_covers_everything_at_once() {
        assert_eq!(expected_experts(8, 8, 1), 8.0);
        assert_eq!(expected_pairs(8, 8, 1), 28.0);
    }

    #[test]
    fn the_pair_null_is_one_tokens_pairs_after_one_token() {
        assert!((expected_pairs(64, 6, 1) - 15.0).abs() < 1e-10);
        assert_eq!((expected_pairs(64, 1, 50), expected_pairs(1, 1, 50)), (0.0, 0.0));
    }

    #[test]
    fn active_counts_only_what_was_used() {
        assert_eq!(active(&[0, 3, 0, 1]), 2);
        assert_eq!((fraction(2, 4), fraction(0, 0)), (0.5, 0.0));
    }
}
