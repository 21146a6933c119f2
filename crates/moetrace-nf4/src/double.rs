//! Double quantisation: block scales in 8 bits.

use crate::Nf4Error;

/// Scales that share a scale of their own; what every library writes.
pub(crate) const NESTED_BLOCK: usize = 256;

/// Block scales as 8-bit codes of a map, scaled in blocks around an offset.
#[derive(Debug, Clone, PartialEq)]
pub struct DoubleQuantised {
    /// One code a block of elements.
    pub codes: Vec<u8>,
    /// One f32 for 256 codes, the last of them possibly fewer.
    pub nested: Vec<f32>,
    /// Mean of the scales, added after scaling.
    pub offset: f32,
}

impl DoubleQuantised {
    /// Quantises scales with the entries of `map`, which ascend. The offset is the exactly rounded mean
    /// (summed in f64); PyTorch's f32 sum may differ in the last bit.
    ///
    /// # Errors
    /// [`Nf4Error::PartNotFinite`] for a scale that is not finite.
    pub fn new(absmax: &[f32], map: &[f32; 256]) -> Result<Self, Nf4Error> {
        if let Some(index) = absmax.iter().position(|scale| !scale.is_finite()) {
            return Err(Nf4Error::PartNotFinite { part: "absmax", index, found: absmax[index] });
        }
        let sum: f64 = absmax.iter().map(|scale| f64::from(*scale)).sum();
        let offset = if absmax.is_empty() { 0.0 } else { (sum / absmax.len() as f64) as f32 };
        let mut codes = Vec::with_capacity(absmax.len());
        let mut nested = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK));
        for block in absmax.chunks(NESTED_BLOCK) {
            let largest = block.iter().map(|scale| (scale - offset).abs()).fold(0.0, f32::max);
            let reciprocal = 1.0 / largest;
            codes.extend(block.iter().map(|scale| nearest(map, (scale - offset) * reciprocal)));
            nested.push(largest);
        }
        Ok(Self { codes, nested, offset })
    }
}

/// The entry nearest to `x`, found as `dQuantize` of bitsandbytes' CUDA source finds it: eight steps down a
/// binary tree, then a comparison with one midpoint, so that a value on a midpoint falls to the side that the
/// search came from. What is not a number takes code 0.
fn nearest(map: &[f32; 256], x: f32) -> u8 {
    let (mut pivot, mut below, mut above) = (127usize, 0usize, 255usize);
    for step in [64, 32, 16, 8, 4, 2, 1] {
        if x > map[pivot] {
            below = pivot;
            pivot += step;
        } else {
            above = pivot;
            pivot -= step;
        }
    }
    let value = map[pivot];
    let code = if x > value {
        if x > (map[above] + value) * 0.5 { above } else { pivot }
    } else if x < (map[below] + value) * 0.5 {
        below
    } else {
        pivot
    };
    code as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DYNAMIC_MAP;

    #[test]
    fn every_entry_of_the_map_takes_its_own_code() {
        for (code, value) in DYNAMIC_MAP.iter().enumerate() {
            assert_eq!(usize::from(nearest(&DYNAMIC_MAP, *value)), code);
        }
    }

    #[test]
    fn no_other_entry_is_nearer_than_the_one_found() {
        for i in -2000..=2000 {
            let x = i as f32 / 1990.0;
            let found = (DYNAMIC_MAP[usize::from(nearest(&DYNAMIC_MAP, x))] - x).abs();
            // The midpoint is itself rounded: one unit in the last place of 1.
            assert!(DYNAMIC_MAP.iter().all(|value| found <= (value - x).abs() + f32::EPSILON), "{x}");
        }
    }

    #[test]
    fn the_map_ascends_and_has_a_zero() {
        assert!(DYNAMIC_MAP.is_sorted_by(|a, b| a < b));
        assert_eq!(DYNAMIC_MAP[127].to_bits(), 0f32.to_bits());
    }

    #[test]
    fn equal_scales_become_their_mean_exactly() {
        let double = DoubleQuantised::new(&[0.25; 300], &DYNAMIC_MAP).unwrap();
        assert_eq!((double.offset, double.nested), (0.25, vec![0.0, 0.0]));
    }
}
