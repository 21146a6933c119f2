//! The one place where matrices are multiplied.
//!
//! No token's result may depend on its batch. The gemm crate takes other paths, with other orders of
//! summation, when M or N is 1, when M*N is at most 256, and when M and N are both at most 64; K at most 2
//! goes a way of its own. Everywhere else the order depends on K alone. So products run on M padded past all
//! of these, and the two cases that padding cannot reach (N = 1, K <= 2) are summed here.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use gemm::Parallelism;

use super::numbers::floats;

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

/// Where a product's results go: row `r` is `values[r * stride + first..][..columns]`.
pub(super) struct Places<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) first: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl<'a> Places<'a> {
    pub(super) fn dense(values: &'a mut [f32], columns: usize) -> Self {
        Self { values, first: 0, columns, stride: columns }
    }

    fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.stride + self.first..][..self.columns]
    }

    /// Whether so many rows lie inside the slice and no two of them overlap.
    fn fits(&self, rows: usize) -> bool {
        self.first.checked_add(self.columns).is_some_and(|end| end <= self.stride)
            && rows.checked_mul(self.stride).is_some_and(|end| end <= self.values.len())
    }
}

/// How many jobs one product may be cut into; they run on the current thread pool.
pub(super) fn split(threads: usize) -> Parallelism {
    if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None }
}

/// `out = x * w^T` for x `[M, K]`, w `[N, K]`, out `[M, N]`; M as given, so callers pad it.
pub(super) fn times_transposed(x: Rows<'_>, w: Rows<'_>, mut out: Places<'_>, parallelism: Parallelism) {
    assert!(x.columns == w.columns, "inner dimensions {} and {} differ", x.columns, w.columns);
    if w.count == 1 || x.columns <= 2 {
        for row in 0..x.count {
            for (column, out) in out.row(row).iter_mut().enumerate() {
                *out = dot(x.row(row), w.row(column));
            }
        }
        return;
    }
    let rhs_strides = (w.stride as isize, 1);
    multiply(x, w, (w.count, rhs_strides), &mut out, parallelism);
}

/// `out = p * v` for p `[M, K]`, v `[K, N]`, out `[M, N]`. M as given: padded by callers, or (in attention) one
/// sample's own, as K is.
pub(super) fn times(p: Rows<'_>, v: Rows<'_>, mut out: Places<'_>, parallelism: Parallelism) {
    assert!(p.columns == v.count, "inner dimensions {} and {} differ", p.columns, v.count);
    if v.columns == 1 || p.columns <= 2 {
        for row in 0..p.count {
            for (column, out) in out.row(row).iter_mut().enumerate() {
                *out = p.row(row).iter().enumerate().map(|(k, p)| p * v.row(k)[column]).sum();
            }
        }
        return;
    }
    let rhs_strides = (1, v.stride as isize);
    multiply(p, v, (v.columns, rhs_strides), &mut out, parallelism);
}

/// `right` is N and the strides of the right operand along N and along K.
fn multiply(
    x: Rows<'_>,
    y: Rows<'_>,
    right: (usize, (isize, isize)),
    out: &mut Places<'_>,
    parallelism: Parallelism,
) {
    let (m, k, (n, (y_along_n, y_along_k))) = (x.count, x.columns, right);
    assert!(x.fits() && y.fits(), "an operand reaches outside its slice");
    assert!(out.columns == n && out.fits(m), "{m} x {n} results have no places");
    let places = &mut out.values[out.first..];
    // SAFETY: the two `fits` bound every element of the operands, the last assertion those of `out`, which is
    // exclusively borrowed; the strides given are those of the row-major layouts just checked.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            places.as_mut_ptr(),
            1,
            out.stride as isize,
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

/// A product of x `[M, K]`, contiguous f32, with `n` results a row: `multiply` gets x padded to the rows that such a
/// product needs and writes as many; those beyond M are cut off. Gives `[M, n]`.
pub(super) fn padded(
    x: &Tensor,
    n: usize,
    multiply: impl FnOnce(Rows<'_>, &mut [f32]) -> candle_core::Result<()>,
) -> candle_core::Result<Tensor> {
    let (m, k) = x.dims2()?;
    let x = floats(x)?;
    let rows = padded_rows(m, n);
    let mut padded = Cow::Borrowed(&x[..]);
    if rows > m {
        padded.to_mut().resize(rows * k, 0.0);
    }
    let mut out = vec![0f32; rows * n];
    multiply(Rows::dense(&padded, rows, k), &mut out)?;
    out.truncate(m * n);
    Tensor::from_vec(out, (m, n), &Device::Cpu)
}

/// `x * w^T`, padded: x `[M, K]`, w `[N, K]` to `[M, N]`, both contiguous f32.
pub(super) fn linear(x: &Tensor, w: &Tensor, threads: usize) -> candle_core::Result<Tensor> {
    let (n, k) = w.dims2()?;
    let w = floats(w)?;
    padded(x, n, |x, out| {
        times_transposed(x, Rows::dense(&w, n, k), Places::dense(out, n), split(threads));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Matrix;
    use super::*;
    use crate::ComputeDtype;

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
                (
                    bits(&linear(x, &w, threads).unwrap()),
                    bits(&Matrix::Dense(turned.clone()).linear(x, ComputeDtype::F32, threads).unwrap()),
                )
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
            let turned = Matrix::Dense(w.t().unwrap().contiguous().unwrap());
            let turned = turned.linear(&x, ComputeDtype::F32, 1).unwrap();
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
