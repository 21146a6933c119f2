//! Sums of real numbers that do not depend on the order of their terms.
//!
//! Floating-point addition is not associative: two shards added in another order differ in the last bits, and a
//! resumed run would differ from an uninterrupted one. A term is therefore rounded once, to a multiple of
//! 2^-48, and summed as an integer. One term is off by at most 2^-49 (1.8e-15), so is every mean.

/// 2^48: terms below 2^16 fit a `u64` with it, and a `u128` holds 2^64 of them.
const UNITS_PER_ONE: f64 = (1u64 << 48) as f64;

/// The largest weight, entropy or other term of a sum; a gate's stay far below.
pub const LARGEST_TERM: f32 = 32_768.0;

/// A sum of non-negative terms in units of 2^-48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FixedSum(u128);

impl FixedSum {
    /// Adds one term of `0.0..=LARGEST_TERM`.
    #[inline]
    pub(crate) fn add(&mut self, term: f64) {
        self.0 += u128::from((term * UNITS_PER_ONE + 0.5) as u64);
    }

    /// Adds one term of `0.0..=2^30`: a divergence, or the square of a difference.
    pub(crate) fn add_large(&mut self, term: f64) {
        self.0 += (term * UNITS_PER_ONE + 0.5) as u128;
    }

    /// Adds all terms of another sum.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// Adds `numerator / denominator`, rounded down to a unit.
    pub(crate) fn add_ratio(&mut self, numerator: u64, denominator: u64) {
        self.0 += (u128::from(numerator) << 48) / u128::from(denominator.max(1));
    }

    /// This sum over `divisor`, rounded down to a unit: the mean of one sample as a term of another sum.
    pub(crate) fn divided_by(self, divisor: u64) -> Self {
        Self(self.0 / u128::from(divisor.max(1)))
    }

    /// This sum over the mean of two others; 0 if both are 0.
    pub(crate) fn share(self, a: Self, b: Self) -> f64 {
        if a.0 + b.0 == 0 { 0.0 } else { (2 * self.0) as f64 / (a.0 + b.0) as f64 }
    }

    /// The mean of `count` terms; 0 if there are none.
    pub(crate) fn mean(self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { self.0 as f64 / UNITS_PER_ONE / count as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_within_half_a_unit_of_the_exact_one() {
        let mut sum = FixedSum::default();
        for i in 1..=1000u32 {
            sum.add(1.0 / f64::from(i));
        }
        let exact: f64 = (1..=1000u32).rev().map(|i| 1.0 / f64::from(i)).sum::<f64>() / 1000.0;
        assert!((sum.mean(1000) - exact).abs() < 2e-15);
        assert_eq!(FixedSum::default().mean(0), 0.0);
    }

    #[test]
    fn the_largest_term_is_kept_whole() {
        let mut sum = FixedSum::default();
        sum.add(f64::from(LARGEST_TERM));
        assert_eq!(sum.mean(1), f64::from(LARGEST_TERM));
        let square = f64::from(LARGEST_TERM).powi(2);
        let mut sum = FixedSum::default();
        sum.add_large(square);
        assert_eq!(sum.mean(1), square);
    }

    #[test]
    fn a_sum_is_all_of_itself_and_nothing_of_nothing() {
        let (mut sum, nothing) = (FixedSum::default(), FixedSum::default());
        sum.add(0.1);
        assert_eq!(
            (sum.share(sum, sum), nothing.share(sum, sum), nothing.share(nothing, nothing)),
            (1.0, 0.0, 0.0)
        );
    }

    #[test]
    fn ratios_and_quotients_agree() {
        let (mut thirds, mut one) = (FixedSum::default(), FixedSum::default());
        thirds.add_ratio(1, 3);
        one.add(1.0);
        assert_eq!(thirds, one.divided_by(3));
        assert!((thirds.mean(1) - 1.0 / 3.0).abs() < 4e-15);
    }
}
