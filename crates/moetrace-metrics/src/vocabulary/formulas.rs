//! What a token's share in an expert would be by chance, and which tokens an expert stands out by.

/// Tokens' worth of the prior that log-odds are drawn towards: what an expert has to show before a rare token counts.
const PRIOR_TOKENS: f64 = 500.0;

/// Standard deviations around its mean in which a binomial is computed; beyond is less than 1e-14.
const DEVIATIONS: f64 = 8.0;

/// The highest share of any expert to expect of a token that occurs `n` times and is routed as all tokens are: the mean
/// highest of one binomial for each expert, of `n` and `shares[e]`, the part of all tokens that chose it, over `n`.
///
/// The binomials are taken as independent. Those of a real token exclude each other, so that chance gives a little more:
/// at 10 occurrences 6 % more of two experts of which one is chosen, less of more experts.
pub fn expected_highest_share(n: u64, shares: &[f64]) -> f64 {
    if n == 0 || shares.is_empty() {
        return 0.0;
    }
    let ranges: Vec<(u64, u64)> = shares.iter().map(|&share| range(n, share)).collect();
    let low = ranges.iter().map(|&(low, _)| low).max().unwrap_or(0);
    let high = ranges.iter().map(|&(_, high)| high).max().unwrap_or(0);
    // P(no X_e is above m), for m in low..high.
    let mut none_above = vec![1.0; (high - low) as usize];
    for (&share, &(from, to)) in shares.iter().zip(&ranges).filter(|(_, (_, to))| *to > low) {
        let below = distribution(n, share, from, to);
        for (m, product) in (low..high).zip(&mut none_above) {
            *product *= if m >= to { 1.0 } else { below[(m - from) as usize] };
        }
    }
    // E[X] = sum over m of P(X > m); all of the first `low` terms are 1.
    let mean = low as f64 + none_above.iter().map(|p| 1.0 - p).sum::<f64>();
    mean / n as f64
}

/// Where a binomial has all but its last 1e-14.
fn range(n: u64, share: f64) -> (u64, u64) {
    if share <= 0.0 || share >= 1.0 {
        let all = if share >= 1.0 { n } else { 0 };
        return (all, all);
    }
    let (mean, width) =
        (n as f64 * share, (n as f64 * share * (1.0 - share)).sqrt() * DEVIATIONS + DEVIATIONS);
    ((mean - width).max(0.0) as u64, ((mean + width) as u64 + 1).min(n))
}

/// P(X <= m) of a binomial for m in `from..=to`, which hold all of it.
fn distribution(n: u64, share: f64, from: u64, to: u64) -> Vec<f64> {
    let mode = (((n + 1) as f64 * share) as u64).clamp(from, to);
    let odds = share / (1.0 - share);
    let mut terms = vec![1.0; (to - from + 1) as usize];
    // Relative to the mode: P(m + 1) / P(m) = (n - m) / (m + 1) odds.
    for m in mode..to {
        terms[(m + 1 - from) as usize] =
            terms[(m - from) as usize] * ((n - m) as f64 / (m + 1) as f64 * odds);
    }
    for m in (from..mode).rev() {
        terms[(m - from) as usize] =
            terms[(m + 1 - from) as usize] * ((m + 1) as f64 / (n - m) as f64 / odds);
    }
    let total: f64 = terms.iter().sum();
    let mut sum = 0.0;
    for term in &mut terms {
        sum += *term;
        *term = (sum / total).min(1.0);
    }
    terms
}

/// A share less what chance gives, as a part of the most it could be above chance: 0 by chance, 1 at a share of 1.
pub fn above_chance(share: f64, expected: f64) -> f64 {
    if expected < 1.0 { (share - expected) / (1.0 - expected) } else { 0.0 }
}

/// How often a token occurs where an expert was chosen and where it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenInExpert {
    /// Times the token chose the expert.
    pub chosen: u64,
    /// Times the token occurs.
    pub occurs: u64,
    /// Tokens that chose the expert.
    pub load: u64,
    /// T, all tokens.
    pub tokens: u64,
}

/// By how many standard deviations the odds of a token are higher among the tokens that chose an expert than among the
/// others: log-odds ratio with an informative Dirichlet prior, over its standard deviation (Monroe, Colaresi and Quinn,
/// *Fightin' words*, Political Analysis 16, 2008).
///
/// The prior is the distribution of all tokens, worth 500 of them. 0 where there is nothing to compare.
pub fn log_odds_z(counts: TokenInExpert) -> f64 {
    let TokenInExpert { chosen, occurs, load, tokens } = counts;
    if occurs == 0 || occurs >= tokens {
        return 0.0;
    }
    let prior = PRIOR_TOKENS * occurs as f64 / tokens as f64;
    let log_odds = |count: u64, of: u64| {
        let with_prior = count as f64 + prior;
        (with_prior / (of as f64 + PRIOR_TOKENS - with_prior)).ln()
    };
    let (elsewhere, others) = (occurs - chosen, tokens - load);
    let difference = log_odds(chosen, load) - log_odds(elsewhere, others);
    let variance = 1.0 / (chosen as f64 + prior) + 1.0 / (elsewhere as f64 + prior);
    difference / variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn a_token_that_occurs_once_has_a_share_of_one_whoever_serves_it() {
        assert_eq!(expected_highest_share(1, &[1.0, 0.0]), 1.0);
        // Two independent halves: at least one of them with probability 3/4.
        assert!((expected_highest_share(1, &[0.5, 0.5]) - 0.75).abs() < 1e-12);
        assert_eq!((expected_highest_share(0, &[0.5]), expected_highest_share(5, &[])), (0.0, 0.0));
    }

    #[test]
    fn the_highest_of_two_binomials_by_hand() {
        // Bin(2, 1/2): 1/4, 1/2, 1/4. P(max = 0) = 1/16, P(max <= 1) = 9/16: mean 22/16.
        assert!((expected_highest_share(2, &[0.5, 0.5]) - 11.0 / 16.0).abs() < 1e-12);
    }

    #[test]
    fn a_frequent_token_has_the_share_of_the_busiest_expert() {
        let expected = expected_highest_share(100_000_000, &[0.3, 0.2, 0.5]);
        assert!((expected - 0.5).abs() < 1e-4, "{expected}");
    }

    #[test]
    fn chance_as_drawn_is_what_is_expected() {
        // 16 experts, one of them chosen with 1/4: 20,000 draws of a token that occurs 12 times.
        let shares: Vec<f64> = (0..16).map(|e| if e == 0 { 0.25 } else { 0.05 }).collect();
        let mut random = SplitMix64::new(3);
        let mut sum = 0u32;
        for _ in 0..20_000 {
            let mut counts = [0u32; 16];
            for _ in 0..12 {
                let place = random.below(20);
                counts[if place < 5 { 0 } else { place - 4 }] += 1;
            }
            sum += counts.iter().max().unwrap();
        }
        let (drawn, expected) = (f64::from(sum) / 240_000.0, expected_highest_share(12, &shares));
        // Experts that exclude each other give a little more than independent ones.
        assert!((0.0..0.01).contains(&(drawn - expected)), "{drawn} {expected}");
    }

    #[test]
    fn log_odds_by_hand() {
        let counts = TokenInExpert { chosen: 30, occurs: 40, load: 500, tokens: 2_000 };
        // Prior 10: (40 / 960) against (20 / 1,980), variance 1/40 + 1/20.
        let expected = ((40.0 / 960.0) / (20.0 / 1_980.0f64)).ln() / 0.075f64.sqrt();
        assert!((log_odds_z(counts) - expected).abs() < 1e-12 && (expected - 5.17).abs() < 0.01);
        let even = TokenInExpert { chosen: 10, occurs: 40, load: 500, tokens: 2_000 };
        assert!(log_odds_z(even).abs() < 1e-12);
        assert_eq!(log_odds_z(TokenInExpert { chosen: 3, occurs: 9, load: 3, tokens: 9 }), 0.0);
    }

    #[test]
    fn above_chance_is_none_by_chance_and_one_at_most() {
        assert_eq!(
            (above_chance(0.25, 0.25), above_chance(1.0, 0.25), above_chance(1.0, 1.0)),
            (0.0, 1.0, 0.0)
        );
        assert!((above_chance(0.5, 0.25) - 1.0 / 3.0).abs() < 1e-12);
    }
}
