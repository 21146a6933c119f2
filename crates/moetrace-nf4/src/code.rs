//! The sixteen values of NF4 and the thresholds between them.

/// Value of each code: quantiles of a standard normal distribution, scaled to -1 to 1 (arXiv 2305.14314,
/// appendix E), as f32 of the digits in bitsandbytes.
#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "digits as published")]
pub const CODE_VALUES: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// Between code `i` and code `i + 1`: a scaled value takes the higher code only if it exceeds threshold `i`
/// strictly. Digits of `dQuantizeNF4` in bitsandbytes; they are not exactly the midpoints of the values.
#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "digits as published")]
pub const THRESHOLDS: [f32; 15] = [
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784178118011,
];

/// The code of a value scaled to -1 to 1. A value that is not a number exceeds nothing and takes code 0, which
/// is how a block of zeros (0 times infinity) gets its codes.
pub(crate) fn nearest(scaled: f32) -> u8 {
    THRESHOLDS.iter().map(|threshold| u8::from(scaled > *threshold)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_value_takes_its_own_code() {
        for (code, value) in CODE_VALUES.iter().enumerate() {
            assert_eq!(usize::from(nearest(*value)), code);
        }
    }

    #[test]
    fn a_value_on_a_threshold_takes_the_lower_code_and_the_next_value_the_higher() {
        for (lower, threshold) in THRESHOLDS.iter().enumerate() {
            assert_eq!(usize::from(nearest(*threshold)), lower);
            assert_eq!(usize::from(nearest(threshold.next_up())), lower + 1);
        }
    }

    #[test]
    fn what_is_not_a_number_takes_code_zero() {
        assert_eq!(nearest(f32::NAN), 0);
    }
}
