//! Weights at the precision at which they are recorded.
//!
//! Recorded weights keep ten bits of mantissa (Float16's), with Float32's exponent: they compress to half the
//! bytes and every reader of the last years opens them. The rounding happens here, before writer and metrics
//! part ways, so that numbers taken live equal numbers taken from the file.

use crate::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};

/// How many bits of a weight's mantissa are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightPrecision {
    /// Ten bits, rounded to nearest even.
    #[default]
    Half,
    /// All 23.
    Full,
}

/// Rounds to ten bits of mantissa, nearest even, and keeps Float32's exponent.
#[inline]
#[must_use]
pub fn round_to_half_precision(value: f32) -> f32 {
    if !value.is_finite() {
        return value;
    }
    let bits = value.to_bits();
    // 13 of 23 mantissa bits go; adding half of the last kept place, less one when that place is even.
    let even = (bits >> 13) & 1;
    f32::from_bits((bits + 0x0FFF + even) & !0x1FFF)
}

/// Hands every pass on to `inner` with its weights rounded.
#[derive(Debug)]
pub struct RoundWeights<S> {
    inner: S,
    precision: WeightPrecision,
    rounded: Vec<f32>,
}

impl<S> RoundWeights<S> {
    /// Rounds to `precision` before `inner` hears anything.
    pub fn new(inner: S, precision: WeightPrecision) -> Self {
        Self { inner, precision, rounded: Vec::new() }
    }

    /// Gives the listener back, to be finished.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: RoutingSink> RoutingSink for RoundWeights<S> {
    fn wants(&self) -> Planes {
        self.inner.wants()
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.inner.begin(batch)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        match (self.precision, view.weights()) {
            (WeightPrecision::Half, Some(weights)) => {
                self.rounded.clear();
                self.rounded.extend(weights.iter().map(|&w| round_to_half_precision(w)));
                self.inner.record(&view.with_weights(&self.rounded))
            }
            _ => self.inner.record(view),
        }
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.inner.end()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rounding is exact or wrong")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_is_monotone_idempotent_and_within_half_a_unit(a in 0f32..2.0, b in 0f32..2.0) {
            let (ra, rb) = (round_to_half_precision(a), round_to_half_precision(b));
            prop_assert!((a <= b) == (ra <= rb) || ra == rb);
            prop_assert_eq!(round_to_half_precision(ra).to_bits(), ra.to_bits());
            prop_assert!((ra - a).abs() <= a * 2f32.powi(-11));
            prop_assert_eq!(ra.to_bits() & 0x1FFF, 0);
        }
    }

    #[test]
    fn halves_round_to_even() {
        let unit = 2f32.powi(-10);
        assert_eq!(round_to_half_precision(1.0 + 0.5 * unit), 1.0);
        assert_eq!(round_to_half_precision(1.0 + 1.5 * unit), 1.0 + 2.0 * unit);
        assert_eq!(round_to_half_precision(f32::NAN).to_bits(), f32::NAN.to_bits());
    }
}
