//! Products against sums in f64, and against themselves at other numbers of rows.

use half::{bf16, f16};
use moetrace_cuda::{Element, Product, ProductLibrary, ProductShape};

use crate::support::{Gpu, Random, Value, gpu, poisoned, results, runs};

/// (outputs, inputs): the widths of real models, a router, and widths that only the plain kernel takes.
const SHAPES: [(usize, usize); 7] =
    [(2816, 2048), (2048, 1408), (64, 2048), (60, 2048), (8, 4096), (50, 24), (33, 7)];

struct Operands<T> {
    x: Vec<T>,
    w: Vec<T>,
    bias: Vec<T>,
}

fn operands<T: Value>(rows: usize, (n, k): (usize, usize)) -> Operands<T> {
    let mut random = Random((rows * n + k) as u64);
    let x = random.elements(rows * k, 1.0);
    let w = random.elements(n * k, 1.0 / (k as f32).sqrt());
    Operands { x, w, bias: random.elements(n, 1.0) }
}

fn multiply<T: Value, O: Value>(
    gpu: &Gpu,
    product: &Product<T, O>,
    x: &[T],
    of: &Operands<T>,
    biased: bool,
) -> Vec<O> {
    let ProductShape { outputs, inputs, .. } = product.shape();
    let rows = x.len() / inputs;
    let [x, w, bias] = [x, &of.w, &of.bias].map(|values| gpu.device.upload(values).unwrap());
    let mut out = poisoned::<O>(gpu, rows * outputs);
    let place = &mut out.part_mut(0..rows * outputs).unwrap();
    product.run(x.all(), w.all(), biased.then(|| bias.all()), place).unwrap();
    results(gpu, &out)
}

/// ‖found - expected‖ / ‖expected‖ over some rows.
fn relative_error<T: Value, O: Value>(
    found: &[O],
    of: &Operands<T>,
    n: usize,
    k: usize,
    biased: bool,
) -> f64 {
    let rows = found.len() / n;
    let (mut off, mut all) = (0f64, 0f64);
    for row in (0..rows).step_by((rows / 16).max(1)) {
        for output in 0..n {
            let terms = of.x[row * k..][..k].iter().zip(&of.w[output * k..][..k]);
            let sum: f64 = terms.map(|(x, w)| f64::from(x.wide()) * f64::from(w.wide())).sum();
            let expected = sum + if biased { f64::from(of.bias[output].wide()) } else { 0.0 };
            off += (f64::from(found[row * n + output].wide()) - expected).powi(2);
            all += expected.powi(2);
        }
    }
    (off / all).sqrt()
}

fn check<T: Value, O: Value>(limit: f64) {
    let Some(gpu) = gpu() else { return };
    let library = ProductLibrary::open(&gpu.device, gpu.cublaslt).unwrap();
    // The library's own kernels are nothing to check.
    for (n, k) in SHAPES.into_iter().filter(|(n, k)| runs(n * k, 2000)) {
        for biased in [false, true] {
            // A bias in f32 results is nobody's need, and the library has none in another type than theirs.
            if biased && size_of::<T>() != size_of::<O>() {
                continue;
            }
            let shape = ProductShape { outputs: n, inputs: k, biased, usual_rows: 4096 };
            let product = Product::<T, O>::new(&gpu.device, &gpu.compiler, &library, shape).unwrap();
            let rows = if n * k > 1 << 20 { 20_000 } else { 2000 };
            let of = operands::<T>(rows, (n, k));
            let all = multiply(gpu, &product, &of.x, &of, biased);
            let error = relative_error(&all, &of, n, k, biased);
            assert!(error <= limit, "{n} x {k} {}: off by {error:e}", product.way());
            // The same row alone, among few, among many, first, last.
            for (first, count) in [(0, 1), (777, 1), (770, 7), (100, 960), (rows - 1, 1), (1, rows - 1)] {
                let part = multiply(gpu, &product, &of.x[first * k..][..count * k], &of, biased);
                let same = part.iter().zip(&all[first * n..]).all(|(a, b)| a.bits() == b.bits());
                assert!(same, "{n} x {k} {}: rows {first}+{count} differ from themselves", product.way());
            }
            eprintln!("{} {n} x {k}: {} off by {error:.1e}", <T as Element>::NAME, product.way());
        }
    }
}

#[test]
fn products_are_right_and_no_row_depends_on_the_number_of_rows() {
    check::<bf16, bf16>(4e-3);
    check::<f16, f16>(5e-4);
    check::<bf16, f32>(1e-5);
    // Sums of 4,096 terms in f32.
    check::<f32, f32>(3e-6);
}
