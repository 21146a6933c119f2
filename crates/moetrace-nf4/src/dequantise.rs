//! Codes back to elements.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::ElementType;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// Blocks of one tensor, to be restored.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a, S> {
    /// Value of each code.
    pub(crate) values: &'a [f32; 16],
    /// Elements of a block.
    pub(crate) width: usize,
    /// Two codes a byte, the high half first.
    pub(crate) codes: &'a [u8],
    /// The scale of a block, counted from the first of these.
    pub(crate) scale: S,
}

/// What codes can be turned into: f32, bf16 or f16.
pub trait Target: Copy + Default + Send + Sync + sealed::Sealed {
    /// What files call it.
    const ELEMENT: ElementType;

    /// The nearest value of this type, ties to even.
    fn round(value: f32) -> Self;

    /// Restores blocks by the fastest way there is; `out` has two places for each byte of codes.
    #[doc(hidden)]
    fn restore<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [Self]);
}

impl Target for f32 {
    const ELEMENT: ElementType = ElementType::F32;

    fn round(value: f32) -> Self {
        value
    }

    fn restore<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [Self]) {
        restore_rounded(blocks, out, |value| value);
    }
}

impl Target for bf16 {
    const ELEMENT: ElementType = ElementType::Bf16;

    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn restore<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [Self]) {
        #[cfg(target_arch = "x86_64")]
        if crate::avx2::available() {
            return crate::avx2::restore_bf16(blocks, out.reinterpret_cast_mut());
        }
        restore_scalar(blocks, out);
    }
}

impl Target for f16 {
    const ELEMENT: ElementType = ElementType::F16;

    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn restore<S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [Self]) {
        #[cfg(target_arch = "x86_64")]
        if crate::avx2::available() {
            return crate::avx2::restore_f16(blocks, out.reinterpret_cast_mut());
        }
        restore_scalar(blocks, out);
    }
}

/// The definition: `code * scale` in f32, rounded once.
pub(crate) fn restore_scalar<T: Target, S: Fn(usize) -> f32>(blocks: &Blocks<'_, S>, out: &mut [T]) {
    for (number, (codes, out)) in parts(blocks.codes, out, blocks.width) {
        let scale = (blocks.scale)(number);
        expand_scalar(&blocks.values.map(|value| T::round(value * scale)), codes, out);
    }
}

/// The same as f32, with a rounding of the caller's.
pub(crate) fn restore_rounded<S: Fn(usize) -> f32>(
    blocks: &Blocks<'_, S>,
    out: &mut [f32],
    round: impl Fn(f32) -> f32,
) {
    #[cfg(target_arch = "x86_64")]
    if crate::avx2::available() {
        return crate::avx2::restore_f32(blocks, out, round);
    }
    for (number, (codes, out)) in parts(blocks.codes, out, blocks.width) {
        let scale = (blocks.scale)(number);
        expand_scalar(&blocks.values.map(|value| round(value * scale)), codes, out);
    }
}

/// Codes and places block by block; the last may be partly filled.
pub(crate) fn parts<'a, T>(
    codes: &'a [u8],
    out: &'a mut [T],
    width: usize,
) -> impl Iterator<Item = (usize, (&'a [u8], &'a mut [T]))> {
    codes.chunks(width / 2).zip(out.chunks_mut(width)).enumerate()
}

/// The entry of `table` for each code.
pub(crate) fn expand_scalar<T: Copy>(table: &[T; 16], codes: &[u8], out: &mut [T]) {
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *pair = [table[usize::from(byte >> 4)], table[usize::from(byte & 15)]];
    }
}
