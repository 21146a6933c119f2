//! The one place where matrices are multiplied.
//!
//! No token's result may depend on its batch. The gemm crate takes other paths, with other orders of
//! summation, when M or N is 1, when M*N is at most 256, and when M and N are both at most 64; K at most 2
//! goes a way of its own. Everywhere else the order depends on K alone. So products run on M padded past all
//! of these, and the two cases that padding cannot reach (N = 1, K <= 2) are summed here.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use gemm::Parallelism;

/// One more than the M at which the gemm crate changes its path whatever N is.
const LEAST_ROWS: usize = 65;
/// M*N up to which it takes its path for tiny products.
const TINY: usize = 256;
/// Lanes of the sums made here; fixed, so that the order of summation is.
const LANES: usize = 16;

/// Rows on which a product with `columns` results must run.
pub(super) fn padded_rows(rows: usize, columns: usize) -> usize {
    rows.max(LEAST_ROWS).max(TINY / columns.max(1) + 1)
}

/// A row-major matrix inside a slice: row `r` is `values[r * stride..][..columns]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) count: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn dense(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { values, count: rows, columns, stride: columns }
    }

    fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..][..self.columns]
    }

    /// Whether every element lies inside the slice.
    fn fits(&self) -> bool {
        self.columns <= self.stride
            && match self.count.checked_sub(1) {
                None => true,
                Some(last) => {
                    last.checked_mul(self.stride).and_then(|start| start.checked_add(self.columns))
                        <= Some(self.values.len())
                }
            }
    }
}

/// How many jobs one product may be cut into; they run on the current thread pool.
pub(super) fn split(threads: usize) -> Parallelism {
    if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None }
}

/// `out = x * w^T` for x `[M, K]`, w `[N, K]`, out `[M, N]` dense; M as given, so callers pad it.
pub(super) fn times_transposed(x: Rows<'_>, w: Rows<'_>, out: &mut [f32], parallelism: Parallelism) {
    assert!(x.columns == w.columns, "inner dimensions {} and {} differ", x.columns, w.columns);
    if w.count == 1 || x.columns <= 2 {
        for (row, out) in out.chunks_exact_mut(w.count.max(1)).enumerate().take(x.count) {
            for (column, out) in out.iter_mut().enumerate() {
                *out = dot(x.row(row), w.row(column));
            }
        }
        return;
    }
    let rhs_strides = (w.stride as isize, 1);
    multiply(x, w, (w.count, rhs_strides), out, parallelism);
}

/// `out = p * v` for p `[M, K]`, v `[K, N]`, out `[M, N]` dense. Used where M and K belong to one sample
/// alone, so that no padding is needed.
pub(super) fn times(p: Rows<'_>, v: Rows<'_>, out: &mut [f32], parallelism: Parallelism) {
    assert!(p.columns == v.count, "inner dimensions {} and {} differ", p.columns, v.count);
    if v.columns == 1 || p.columns <= 2 {
        for (row, out) in out.chunks_exact_mut(v.columns.max(1)).enumerate().take(p.count) {
            for (column, out) in out.iter_mut().enumerate() {
                *out = p.row(row).iter().enumerate().map(|(k, p)| p * v.row(k)[column]).sum();
            }
        }
        return;
    }
    let rhs_strides = (1, v.stride as isize);
    multiply(p, v, (v.columns, rhs_strides), out, parallelism);
}

/// `right` is N and the strides of the right operand along N and along K.
fn multiply(
    x: Rows<'_>,
    y: Rows<'_>,
    right: (usize, (isize, isize)),
    out: &mut [f32],
    parallelism: Parallelism,
) {
    let (m, k, (n, (y_along_n, y_along_k))) = (x.count, x.columns, right);
    assert!(x.fits() && y.fits(), "an operand reaches outside its slice");
    assert!(m.checked_mul(n) == Some(out.len()), "{m} x {n} results for {} places", out.len());
    // SAFETY: `fits` bounds every element of both operands, the last assertion those of `out`, which is
    // exclusively borrowed; the strides given are those of the row-major layouts just checked.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.values.as_ptr(),
            1,
            x.stride as isize,
            y.values.as_ptr(),
            y_along_n,
            y_along_k,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    lanes.iter().sum()
}

/// A linear layer as a candle operation on contiguous f32 tensors.
struct Linear {
    threads: usize,
    /// Whether w is `[K, N]`; else it is `[N, K]`, as checkpoints store it.
    turned: bool,
}

/// `x * w^T`, padded: x `[M, K]`, w `[N, K]` to `[M, N]`.
pub(super) fn linear(x: &Tensor, w: &Tensor, threads: usize) -> candle_core::Result<Tensor> {
    x.apply_op2_no_bwd(w, &Linear { threads, turned: false })
}

/// `x * w`, padded: x `[M, K]`, w `[K, N]` to `[M, N]`.
pub(super) fn turned_linear(x: &Tensor, w: &Tensor, threads: usize) -> candle_core::Result<Tensor> {
    x.apply_op2_no_bwd(w, &Linear { threads, turned: true })
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "padded-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((m, k), (w_rows, w_columns)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        let x = contiguous(x.as_slice::<f32>()?, x_layout)?;
        let w = Rows::dense(contiguous(w.as_slice::<f32>()?, w_layout)?, w_rows, w_columns);
        let n = if self.turned { w_columns } else { w_rows };
        let multiply = if self.turned { times } else { times_transposed };
        let rows = padded_rows(m, n);
        let mut out = vec![0f32; rows * n];
        if rows == m {
            multiply(Rows::dense(x, m, k), w, &mut out, split(self.threads));
        } else {
            let mut padded = vec![0f32; rows * k];
            padded[..m * k].copy_from_slice(x);
            multiply(Rows::dense(&padded, rows, k), w, &mut out, split(self.threads));
            out.truncate(m * n);
        }
        Ok((CpuStorage::F32(out), Shape::from_dims(&[m, n])))
    }
}

fn contiguous<'a>(values: &'a [f32], layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) =
        layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "padded-linear" })?;
    Ok(&values[start..end])
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn matrix(rows: usize, columns: usize) -> Tensor {
        let values: Vec<f32> =
            (0..rows * columns).map(|i| ((i * 7919 + 13) % 1009) as f32 / 505.0 - 1.0).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_rows_stand_beside_it() {
        for (n, k) in [(1, 600), (2, 40), (3, 600), (4, 1), (16, 2), (16, 3), (64, 33), (65, 1100), (300, 64)]
        {
            let x = matrix(150, k);
            let (w, turned) = (matrix(n, k), matrix(k, n));
            let both = |x: &Tensor, threads| {
                (bits(&linear(x, &w, threads).unwrap()), bits(&turned_linear(x, &turned, threads).unwrap()))
            };
            let whole = both(&x, 1);
            for m in [1, 2, 5, 15, 16, 17, 63, 64, 65, 66, 128, 129] {
                let part = both(&x.narrow(0, 0, m).unwrap(), 2);
                assert!(part.0[..] == whole.0[..m * n], "{m} rows, N = {n}, K = {k}");
                assert!(part.1[..] == whole.1[..m * n], "{m} rows, N = {n}, K = {k}, turned");
            }
        }
    }

    #[test]
    fn products_equal_sums_in_double_precision() {
        for (m, n, k) in [(1, 1, 1), (3, 2, 2), (70, 5, 513)] {
            let (x, w) = (matrix(m, k), matrix(n, k));
            let found = linear(&x, &w, 1).unwrap().to_vec2::<f32>().unwrap();
            let turned = turned_linear(&x, &w.t().unwrap().contiguous().unwrap(), 1).unwrap();
            let turned = turned.to_vec2::<f32>().unwrap();
            let (x, w) = (x.to_vec2::<f32>().unwrap(), w.to_vec2::<f32>().unwrap());
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let products = x[row].iter().zip(&w[column]).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let expected: f64 = products.sum();
                // 513 sums of numbers of size 1 in f32.
                assert!((f64::from(found[row][column]) - expected).abs() < 1e-4);
                assert!((f64::from(turned[row][column]) - expected).abs() < 1e-4);
            }
        }
    }
}
