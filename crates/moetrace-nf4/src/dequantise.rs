//! Codes back to elements.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// What codes can be turned into: f32, bf16 or f16.
pub trait Target: Copy + Default + Send + Sync + sealed::Sealed {
    /// The nearest value of this type, ties to even.
    fn round(value: f32) -> Self;

    /// Writes the entry of `table` for each code: two elements a byte, the high half first.
    #[doc(hidden)]
    fn expand(table: &[Self; 16], codes: &[u8], out: &mut [Self]) {
        expand_scalar(table, codes, out);
    }
}

impl Target for f32 {
    fn round(value: f32) -> Self {
        value
    }

    fn expand(table: &[Self; 16], codes: &[u8], out: &mut [Self]) {
        #[cfg(target_arch = "x86_64")]
        if crate::avx2::available() {
            return crate::avx2::expand_words(table, codes, out);
        }
        expand_scalar(table, codes, out);
    }
}

impl Target for bf16 {
    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn expand(table: &[Self; 16], codes: &[u8], out: &mut [Self]) {
        expand_halves(&table.map(Self::to_bits), codes, out.reinterpret_cast_mut());
    }
}

impl Target for f16 {
    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn expand(table: &[Self; 16], codes: &[u8], out: &mut [Self]) {
        expand_halves(&table.map(Self::to_bits), codes, out.reinterpret_cast_mut());
    }
}

fn expand_halves(table: &[u16; 16], codes: &[u8], out: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if crate::avx2::available() {
        return crate::avx2::expand_halves(table, codes, out);
    }
    expand_scalar(table, codes, out);
}

/// The definition.
pub(crate) fn expand_scalar<T: Copy>(table: &[T; 16], codes: &[u8], out: &mut [T]) {
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *pair = [table[usize::from(byte >> 4)], table[usize::from(byte & 15)]];
    }
}
