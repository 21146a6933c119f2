//! Segment routing best performance and segment cache best hit rate (Liang et al., arXiv 2505.16056).

/// The best fixed group of experts for segments of one length.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BestGroup {
    /// SRP: the F1 score of "every token of the segment chooses exactly this group", at the best threshold.
    pub srp: f64,
    /// An expert is in the group if at least so many tokens of the segment chose it; 0 without segments.
    pub threshold: usize,
    /// Mean size of the group over K.
    pub size: f64,
}

/// SRP from how many (segment, expert) pairs have a count c of at least 1, 2, ... m (`at_least`, `[m]`; expectations
/// will do).
///
/// With threshold t the group has S = at least t pairs, so that m S choices are predicted, and the sum of c over
/// these pairs are right; F1 = 2 right / (m S + all choices). The threshold is one for all segments, as the authors'
/// code has it (commit 4ff45dd); 0 is never better than 1. Equal scores go to the lower threshold.
pub fn best_group(at_least: &[f64]) -> BestGroup {
    let length = at_least.len() as f64;
    let all: f64 = at_least.iter().sum();
    let mut best = BestGroup { srp: 0.0, threshold: 0, size: 0.0 };
    // Sum over pairs with c >= t of c: t for each, and 1 more for each higher threshold that they reach.
    let mut above = 0.0;
    for (below, &pairs) in at_least.iter().enumerate().rev() {
        let right = above + (below + 1) as f64 * pairs;
        above += pairs;
        let f1 = if pairs > 0.0 { 2.0 * right / (length * pairs + all) } else { 0.0 };
        if f1 > 0.0 && f1 >= best.srp {
            best = BestGroup { srp: f1, threshold: below + 1, size: length * pairs / all };
        }
    }
    best
}

/// [`best_group`] of counts.
pub fn best_group_of_counts(at_least: &[u64]) -> BestGroup {
    let at_least: Vec<f64> = at_least.iter().map(|&n| n as f64).collect();
    best_group(&at_least)
}

/// SRP of segments of `length` independent tokens, each of which chooses expert e with probability
/// `probabilities[e]`: counts are binomial.
pub fn expected_best_group(probabilities: impl Iterator<Item = f64>, length: usize) -> BestGroup {
    // ln C(m, c), c = 0..=m.
    let binomials: Vec<f64> = (0..length)
        .scan(0.0, |ln, c| {
            let now = *ln;
            *ln += ((length - c) as f64 / (c + 1) as f64).ln();
            Some(now)
        })
        .chain([0.0])
        .collect();
    let mut at_least = vec![0.0; length];
    for p in probabilities.filter(|&p| p > 0.0) {
        let mut tail = 0.0;
        for c in (1..=length).rev() {
            let misses = if c == length { 0.0 } else { (length - c) as f64 * f64::ln_1p(-p) };
            tail += (binomials[c] + c as f64 * p.ln() + misses).exp();
            at_least[c - 1] += tail;
        }
    }
    best_group(&at_least)
}

/// SCH: hits of a cache that holds, throughout a segment, the `size` experts that the segment chooses most, over all
/// choices. `ranked` is the largest count, the second largest, ..., `[E]`, summed over segments. 0 without segments.
pub fn best_hit_rate(ranked: &[u64], size: usize) -> f64 {
    let hits: u64 = ranked.iter().take(size).sum();
    crate::coverage::fraction(hits, ranked.iter().sum())
}

/// How far `value` is above `chance` on the way to 1; 0 where chance is 1.
pub fn above_chance(value: f64, chance: f64) -> f64 {
    if chance < 1.0 { (value - chance) / (1.0 - chance) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `docs/metrics.md`: two segments of 2 tokens, K = 1: (0, 0) and (0, 1).
    #[test]
    fn the_example_of_the_documentation() {
        // Counts 2; 1, 1: three pairs of at least 1, one of at least 2.
        let best = best_group_of_counts(&[3, 1]);
        // Threshold 1: 2 * 4 / (2 * 3 + 4) = 0.8; threshold 2: 2 * 2 / (2 * 1 + 4) = 0.67.
        assert!((best.srp - 0.8).abs() < 1e-12);
        assert_eq!((best.threshold, best.size), (1, 1.5));
        // The most frequent expert has 2 and 1 of the 4 choices.
        assert_eq!((best_hit_rate(&[3, 1, 0], 1), best_hit_rate(&[3, 1, 0], 2)), (0.75, 1.0));
    }

    #[test]
    fn binomial_counts_give_what_all_sequences_give() {
        // Two tokens, each chooses expert 0 with 3/4 and expert 1 with 1/4: pairs with c >= 1, c >= 2.
        let [p, q] = [0.75f64, 0.25];
        let one = 2.0 - q * q - p * p;
        let two = p * p + q * q;
        assert_eq!(expected_best_group([p, q].into_iter(), 2), best_group(&[one, two]));
        // Sums of binomial probabilities, computed apart in Python.
        let (deepseek, mixtral) = (std::iter::repeat_n(6.0 / 64.0, 64), std::iter::repeat_n(0.25, 8));
        let found = expected_best_group(deepseek, 16);
        assert!((found.srp - 0.281_043_603_169_064_35).abs() < 1e-12 && found.threshold == 3);
        let found = expected_best_group(mixtral, 256);
        assert!((found.srp - 0.400_489_147_597_176_3).abs() < 1e-12 && found.threshold == 52);
        // A probability of 1 or 0 leaves nothing to chance.
        let sure = expected_best_group([1.0, 0.0, 1.0].into_iter(), 256);
        assert_eq!((sure.srp, sure.threshold, sure.size), (1.0, 1, 1.0));
    }

    #[test]
    fn no_segments_have_no_group() {
        let nothing = BestGroup { srp: 0.0, threshold: 0, size: 0.0 };
        assert_eq!((best_group(&[0.0; 4]), best_group(&[])), (nothing, nothing));
        assert_eq!((best_hit_rate(&[0; 4], 2), above_chance(1.0, 1.0)), (0.0, 0.0));
        assert_eq!(above_chance(0.75, 0.5), 0.5);
    }
}
