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

/// Sets of K experts that `tokens` tokens reach if each chooses K of E at random: C (1 - (1 - 1/C)^T), C = C(E, K).
pub fn expected_sets(experts: usize, chosen: usize, tokens: u64) -> f64 {
    let possible = crate::pairs::possible_sets(experts, chosen);
    expected_distinct(possible, possible.recip(), tokens)
}

/// Number of entries of at least `least`.
pub fn at_least(counts: &[u64], least: u64) -> u64 {
    counts.iter().filter(|&&n| n >= least).count() as u64
}

/// Distinct experts to expect among `drawn` of `all` tokens (or samples), drawn at random without putting back, if
/// `counts` of them hold each expert: `sum over e of 1 - C(all - n_e, drawn) / C(all, drawn)`.
///
/// This is Hurlbert's rarefaction ("The nonconcept of species diversity", Ecology 52, 1971): a curve of coverage over
/// tokens that follows from counts alone and does not depend on the order of the tokens. Exact but for rounding, which
/// grows with `all` and stays below 1e-6 experts at 10^8.
pub fn rarefied(counts: &[u64], all: u64, drawn: u64) -> f64 {
    let drawn = drawn.min(all);
    let seen = counts.iter().map(|&n| {
        let without = all - n.min(all);
        if n == 0 {
            0.0
        } else if drawn > without {
            1.0
        } else {
            let missed = ln_factorial(without) + ln_factorial(all - drawn)
                - ln_factorial(without - drawn)
                - ln_factorial(all);
            1.0 - missed.exp().min(1.0)
        }
    });
    seen.sum()
}

/// ln n!, by Stirling's series where its first terms are enough.
fn ln_factorial(n: u64) -> f64 {
    if n < 20 {
        return (1..=n).map(|i| i as f64).product::<f64>().ln();
    }
    let x = n as f64;
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * x * x)) / (x * x)) / x;
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

/// Where a curve over `all` tokens or samples is read: 1, 2, 5, 10, 20, 50 and so on, and at the end.
pub fn curve_points(all: u64) -> Vec<u64> {
    let steps = (0..19u32).flat_map(|power| [1, 2, 5].map(|step| step * 10u64.pow(power.min(18))));
    steps.take_while(|&point| point < all).chain((all > 0).then_some(all)).collect()
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
    fn rarefaction_is_the_mean_over_all_subsets() {
        // 5 tokens, top-1: experts 0, 0, 0, 1, 2. Of the 10 pairs of tokens 3 see one expert, 7 two.
        let counts = [3, 1, 1, 0];
        assert!((rarefied(&counts, 5, 2) - (3.0 + 7.0 * 2.0) / 10.0).abs() < 1e-12);
        assert!((rarefied(&counts, 5, 1) - 1.0).abs() < 1e-12);
        assert_eq!(
            (rarefied(&counts, 5, 5), rarefied(&counts, 5, 9), rarefied(&counts, 5, 0)),
            (3.0, 3.0, 0.0)
        );
    }

    #[test]
    fn rarefaction_of_many_tokens_nears_that_of_independent_draws() {
        let all = 100_000_000;
        let (counts, drawn) = ([all / 50; 64], 100);
        let independent = 64.0 * (1.0 - (1.0f64 - 0.02).powi(100));
        assert!((rarefied(&counts, all, drawn) - independent).abs() < 1e-4);
        assert!((ln_factorial(20) - (1..=20).map(|i| f64::from(i).ln()).sum::<f64>()).abs() < 1e-10);
    }

    #[test]
    fn curves_are_read_in_steps_of_a_decade_and_at_the_end() {
        assert_eq!(curve_points(60), [1, 2, 5, 10, 20, 50, 60]);
        assert_eq!((curve_points(0), curve_points(1), curve_points(2)), (vec![], vec![1], vec![1, 2]));
    }

    #[test]
    fn active_counts_only_what_was_used() {
        assert_eq!(active(&[0, 3, 0, 1]), 2);
        assert_eq!((fraction(2, 4), fraction(0, 0)), (0.5, 0.0));
    }
}
