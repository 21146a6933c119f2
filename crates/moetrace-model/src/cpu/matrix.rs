//! Weight matrices as they are held, dense or in 4 bits, and the products with them.

use candle_core::{DType, Error, Tensor};
use gemm::Parallelism;
use moetrace_nf4::Nf4Tensor;

use super::numbers::floats;
use super::product::{Places, Rows, padded, split, times, times_transposed};
use crate::ComputeDtype;

/// Elements of a 4-bit matrix that are restored at once, 32 MiB as f32: a strip of rows. A matrix is never dense
/// as a whole unless it is smaller.
pub(super) const STRIP_ELEMENTS: usize = 8 << 20;

/// A weight matrix of `outputs` rows and `inputs` columns, for products `x * W^T`.
pub(super) enum Matrix {
    /// `[inputs, outputs]`, the checkpoint's transposed.
    Dense(Tensor),
    /// Quantised matrices `[some outputs, inputs]`, one below the other.
    Nf4(Vec<Nf4Tensor>),
}

impl Matrix {
    /// Width of the result.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.dims().get(1).copied().unwrap_or(0),
            Self::Nf4(parts) => parts.iter().map(|part| part.state().shape[0]).sum(),
        }
    }

    /// Bytes held, the shared maps of scales not counted.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Dense(tensor) => (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64,
            Self::Nf4(parts) => parts.iter().map(|part| part.bytes() as u64).sum(),
        }
    }

    /// `out = x * W^T` for x `[M, inputs]`, out `[M, outputs]` dense. M is as given, so callers pad it.
    ///
    /// Under 4 bits each strip of rows is restored, rounded to `compute` element by element, and multiplied:
    /// the order of summation along `inputs` is that of the whole product.
    pub(super) fn multiply(
        &self,
        x: Rows<'_>,
        out: &mut [f32],
        compute: ComputeDtype,
        parallelism: Parallelism,
    ) -> candle_core::Result<()> {
        match self {
            Self::Dense(tensor) => {
                let (inputs, outputs) = tensor.dims2()?;
                let wide = tensor.to_dtype(DType::F32)?;
                let wide = floats(&wide)?;
                times(x, Rows::dense(&wide, inputs, outputs), Places::dense(out, outputs), parallelism);
            }
            Self::Nf4(parts) => {
                let mut scratch = Vec::new();
                let (outputs, mut first) = (self.outputs(), 0);
                for part in parts {
                    for strip in strips(part) {
                        let rows = strip.len();
                        scratch.resize(rows * x.columns, 0f32);
                        part.dequantise_from(strip.start * x.columns, &mut scratch, |value| {
                            compute.round_value(value)
                        })
                        .map_err(Error::wrap)?;
                        let places = Places { values: out, first, columns: rows, stride: outputs };
                        times_transposed(x, Rows::dense(&scratch, rows, x.columns), places, parallelism);
                        first += rows;
                    }
                }
            }
        }
        Ok(())
    }

    /// The same on a candle tensor, padded: x `[M, inputs]` to `[M, outputs]`.
    pub(super) fn linear(
        &self,
        x: &Tensor,
        compute: ComputeDtype,
        threads: usize,
    ) -> candle_core::Result<Tensor> {
        padded(x, self.outputs(), |x, out| self.multiply(x, out, compute, split(threads)))
    }
}

/// Rows of a quantised matrix that are restored together. A strip begins where a block does, and none but the
/// only one is short: a product with few columns would take another path through the gemm crate.
fn strips(matrix: &Nf4Tensor) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let [rows, columns] = matrix.state().shape[..] else { return Vec::new().into_iter() };
    // So many rows are a whole number of blocks: a power of two, as the size of a block is.
    let whole = matrix.state().block.get() >> columns.trailing_zeros().min(12);
    let whole = whole.max(1);
    let strip = (STRIP_ELEMENTS / columns.max(1) / whole).max(1) * whole;
    let count = (rows / strip).max(1);
    let ranges = (0..count).map(|i| i * strip..if i + 1 == count { rows } else { (i + 1) * strip });
    ranges.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use moetrace_nf4::{BlockSize, ElementType, Nf4Settings, Source};

    use super::*;

    fn quantised(rows: usize, columns: usize, block: usize) -> Nf4Tensor {
        let value = |i: usize| half::bf16::from_f32(((i * 7919 + 13) % 1009) as f32 / 505.0 - 1.0);
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|i| value(i).to_le_bytes()).collect();
        let settings = Nf4Settings { block: BlockSize::new(block).unwrap(), ..Nf4Settings::default() };
        Nf4Tensor::quantise(Source { bytes: &bytes, element: ElementType::Bf16 }, &[rows, columns], settings)
            .unwrap()
    }

    #[test]
    fn strips_cover_every_row_begin_at_blocks_and_stay_small_whatever_the_block() {
        for (rows, columns, block) in
            [(3000, 4096, 64), (3000, 14336, 4096), (700, 14336, 4096), (6, 7, 64), (40_000, 338, 4096)]
        {
            let matrix = quantised(rows, columns, block);
            let mut next = 0;
            for strip in strips(&matrix) {
                assert_eq!(strip.start, next);
                assert!((strip.start * columns).is_multiple_of(block));
                // The last takes what is left over, so it may be twice as large.
                assert!(strip.len() * columns < 2 * STRIP_ELEMENTS + 4096 * columns.min(4096));
                next = strip.end;
            }
            assert_eq!(next, rows);
        }
    }

    #[test]
    fn a_product_in_strips_equals_the_product_with_the_whole_matrix() {
        let matrix = quantised(5000, 4096, 64);
        assert!(strips(&matrix).count() > 1);
        let mut whole = vec![0f32; 5000 * 4096];
        matrix.dequantise(&mut whole).unwrap();
        let x: Vec<f32> = (0..65 * 4096).map(|i| ((i * 31 + 7) % 211) as f32 / 105.0 - 1.0).collect();
        let (x, w) = (Rows::dense(&x, 65, 4096), Rows::dense(&whole, 5000, 4096));
        let mut expected = vec![0f32; 65 * 5000];
        times_transposed(x, w, Places::dense(&mut expected, 5000), split(1));
        let mut found = vec![0f32; 65 * 5000];
        Matrix::Nf4(vec![matrix]).multiply(x, &mut found, ComputeDtype::F32, split(1)).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
