//! From values to places on an axis, and the round numbers at which it is labelled.

/// An axis: what its ends stand for, and whether equal ratios are equal steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) log: bool,
}

impl Scale {
    /// A linear axis with round ends that holds 0 and every value.
    pub(crate) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let highest = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
        let high = if highest > 0.0 { highest } else { 1.0 };
        let step = step(high / 5.0);
        Self { low: 0.0, high: (high / step - 1e-9).ceil() * step, log: false }
    }

    /// An axis of ratios from the least to the highest value above 0.
    pub(crate) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let kept: Vec<f64> = values.filter(|v| v.is_finite() && *v > 0.0).collect();
        let low = kept.iter().copied().reduce(f64::min).unwrap_or(1.0);
        let high = kept.iter().copied().reduce(f64::max).unwrap_or(10.0);
        Self { low, high: if high > low { high } else { low * 10.0 }, log: true }
    }

    /// Where a value stands, 0 at the low end and 1 at the high one; kept within.
    pub(crate) fn at(self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }

    /// Labelled values within the axis, ascending, between two and ten.
    pub(crate) fn ticks(self) -> Vec<f64> {
        if self.log {
            return self.log_ticks();
        }
        let step = step((self.high - self.low) / 5.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }

    fn log_ticks(self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let within = |v: &f64| *v >= self.low * (1.0 - 1e-9) && *v <= self.high * (1.0 + 1e-9);
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let every = (decades / 8.0).ceil().max(1.0) as i32;
        let of = |factors: &[f64]| -> Vec<f64> {
            let powers = (first..=last).filter(|p| (p - first) % every == 0).map(|p| 10f64.powi(p));
            powers.flat_map(|power| factors.iter().map(move |f| f * power)).filter(within).collect()
        };
        if decades < 2.5 { of(&[1.0, 2.0, 5.0]) } else { of(&[1.0]) }
    }
}

/// The round step (1, 2 or 5 times a power of ten) nearest above `raw`.
fn step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= raw * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_ticks_are_round() {
        let scale = Scale::from_zero([0.3, 0.73].into_iter());
        assert!((scale.high - 0.8).abs() < 1e-12, "{scale:?}");
        assert_eq!(scale.ticks().len(), 5);
        let log = Scale::logarithmic([100.0, 1e6].into_iter());
        assert_eq!(log.ticks(), [1e2, 1e3, 1e4, 1e5, 1e6]);
        assert!((log.at(1e4) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn an_axis_without_values_still_has_two_ends() {
        let empty = Scale::from_zero(std::iter::empty());
        assert_eq!((empty.low, empty.high), (0.0, 1.0));
        assert!(Scale::logarithmic(std::iter::empty()).high > 1.0);
        assert_eq!(empty.at(f64::NAN), 0.0);
    }
}
