//! Values inside candle tensors, rounding to 16 bits, and an exponential that the compiler can vectorise.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, Error, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::ComputeDtype;

/// The values of a contiguous f32 tensor, borrowed.
struct Floats<G> {
    storage: G,
    range: Range<usize>,
}

/// Borrows the values of a contiguous f32 tensor.
pub(super) fn floats(tensor: &Tensor) -> candle_core::Result<impl Deref<Target = [f32]>> {
    if tensor.dtype() != DType::F32 {
        return Err(Error::UnexpectedDType {
            msg: "values of a tensor",
            expected: DType::F32,
            got: tensor.dtype(),
        });
    }
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "values" })?;
    Ok(Floats { storage, range: start..end })
}

impl<G: Deref<Target = Storage>> Deref for Floats<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // `floats` has seen an f32 tensor, and this crate puts tensors on the CPU alone.
            _ => &[],
        }
    }
}

impl ComputeDtype {
    /// The tensor's values as this type keeps them; the result is f32 again.
    pub(super) fn round(self, tensor: Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::F32 => Ok(tensor),
            Self::Bf16 => tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32),
            Self::F16 => tensor.to_dtype(DType::F16)?.to_dtype(DType::F32),
        }
    }

    /// The same for one value.
    #[inline]
    pub(super) fn round_value(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => bf16::from_f32(value).to_f32(),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }

    /// The same in place.
    pub(super) fn round_slice(self, values: &mut [f32]) {
        match self {
            Self::F32 => {}
            Self::Bf16 => values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32()),
            Self::F16 => values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32()),
        }
    }
}

/// `combine` of each value of x `[N, D]` and the one at its place in y, which has the same shape or is one
/// row `[D]` for all. Runs on the current pool: candle's own sums would start threads of their own.
pub(super) fn rowwise(
    x: &Tensor,
    y: &Tensor,
    combine: impl Fn(f32, f32) -> f32 + Sync,
) -> candle_core::Result<Tensor> {
    let (shape, y_shape) = (x.shape(), y.shape());
    let (x, y) = (floats(x)?, floats(y)?);
    let (x, y): (&[f32], &[f32]) = (&x, &y);
    let width = shape.dims().last().copied().unwrap_or(1);
    let one_row = y.len() == width;
    if !one_row && y.len() != x.len() {
        return Err(Error::ShapeMismatchBinaryOp { lhs: shape.clone(), rhs: y_shape.clone(), op: "rowwise" });
    }
    let mut out = vec![0f32; x.len()];
    let rows = out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).enumerate();
    rows.with_min_len(64).for_each(|(row, (out, x))| {
        let y = if one_row { y } else { &y[row * width..][..width] };
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = combine(*x, *y);
        }
    });
    Tensor::from_vec(out, shape, &Device::Cpu)
}

/// e^x within 2 units in the last place for x <= 0 and for x up to 88; 0 below -87.
///
/// Range reduction by multiples of ln 2 in two parts, then the Taylor polynomial of degree 7 on
/// |r| <= ln 2 / 2, whose remainder is below 2^-26. Without branches, so that loops over it vectorise.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    /// ln 2 with its low 12 bits cleared, so that its products with small integers are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    /// ln 2 less the above.
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5 * 2^23: adding and subtracting it rounds to the nearest integer.
    const ROUNDER: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + ROUNDER) - ROUNDER;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    // |n| <= 127, so the shifted exponent is that of a normal number.
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// Maximum of a slice that is not empty; NaN is passed over.
#[inline]
pub(super) fn maximum(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces each value by e^(value - shift) and returns their sum, in a fixed order.
#[inline]
pub(super) fn exp_and_sum(values: &mut [f32], shift: f32) -> f32 {
    let (whole, rest) = values.as_chunks_mut::<16>();
    let mut lanes = [0f32; 16];
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - shift);
            *lane += *value;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for value in rest {
        *value = exp(*value - shift);
        sum += *value;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_agree_with_double_precision_within_two_units() {
        for step in -870_000..880_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            assert!((f64::from(exp(x)) - exact).abs() <= 2.0 * unit, "{x}: {} and {exact}", exp(x));
        }
        assert_eq!([exp(f32::NEG_INFINITY), exp(0.0)].map(f32::to_bits), [0.0, 1.0].map(f32::to_bits));
    }

    #[test]
    fn sums_and_maxima_cover_every_length() {
        for n in 1..50 {
            let mut values: Vec<f32> = (0..n).map(|i| ((i * 7) % 11) as f32 * 0.3 - 1.0).collect();
            let expected: f64 = values.iter().map(|v| f64::from(*v - 2.0).exp()).sum();
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&values).to_bits(), largest.to_bits());
            let sum = f64::from(exp_and_sum(&mut values, 2.0));
            assert!((sum - expected).abs() < 1e-5 * expected);
        }
    }
}
