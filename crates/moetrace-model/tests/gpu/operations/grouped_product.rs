//! Grouped products against sums in f64, and against themselves in other company, by every kernel that the GPU has.

use half::{bf16, f16};
use moetrace_cuda::{CudaError, Element, GatheredRows, GroupedKernel, GroupedProduct, GroupedRows};

use crate::support::{Gpu, Random, Value, assert_same, gpu, poisoned, results, runs};

/// Multiplications of the largest product under a checker.
const CHECKED: usize = 1 << 26;

/// (depth, width) of gate and up; down is the other way round. The widths of DeepSeek-MoE-16B, and some that are no
/// multiples of the tile's sides.
const SHAPES: [(usize, usize); 4] = [(2048, 1408), (200, 328), (64, 72), (8, 8)];

/// Rows of experts: none, one, around the sides of tiles, an odd and an even number of tiles.
const COUNTS: [&[u32]; 5] = [
    &[0, 1, 64, 0, 65, 128, 129, 257, 300, 0],
    &[1],
    &[0, 0, 7, 0],
    &[640, 1, 1, 1, 63, 1000, 127, 384],
    &[511; 3],
];

/// The GPU and its kernels' products, where a GPU is there.
fn products<T: Value>() -> Vec<(&'static Gpu, GroupedProduct<T>)> {
    let Some(gpu) = gpu() else { return Vec::new() };
    let hopper = gpu.device.capability() == (9, 0);
    let product = |kernel| match GroupedProduct::<T>::with_kernel(&gpu.device, &gpu.compiler, kernel) {
        Ok(product) => Some((gpu, product)),
        Err(CudaError::Unsupported { .. }) if kernel == GroupedKernel::Wgmma && !hopper => None,
        Err(error) => panic!("{kernel:?}: {error}"),
    };
    [GroupedKernel::Mma, GroupedKernel::Wgmma].into_iter().filter_map(product).collect()
}

fn multiplications(counts: &[u32], (depth, width): (usize, usize)) -> usize {
    counts.iter().sum::<u32>() as usize * depth * width
}

struct Operands<T> {
    rows: Vec<T>,
    weights: Vec<T>,
    offsets: Vec<u32>,
    depth: usize,
    width: usize,
    gated: bool,
}

impl<T: Value> Operands<T> {
    fn new(counts: &[u32], (depth, width): (usize, usize), gated: bool) -> Self {
        let mut offsets = vec![0];
        offsets.extend(counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }));
        let all = offsets[counts.len()] as usize;
        let mut random = Random((depth + 3 * width + all) as u64);
        let matrices = if gated { 2 } else { 1 };
        let deviation = 1.0 / (depth as f32).sqrt();
        let weights = random.elements(counts.len() * matrices * width * depth, deviation);
        Self { rows: random.elements(all * depth, 1.0), weights, offsets, depth, width, gated }
    }

    /// All products by the GPU of other rows in groups of their own.
    fn multiply(&self, (gpu, product): &(&Gpu, GroupedProduct<T>), rows: &[T], offsets: &[u32]) -> Vec<T> {
        let device = &gpu.device;
        let (on, weights) = (device.upload(rows).unwrap(), device.upload(&self.weights).unwrap());
        let offsets = device.upload(offsets).unwrap();
        let grouped = GroupedRows { rows: on.all(), depth: self.depth, offsets: offsets.all() };
        let length = rows.len() / self.depth * self.width;
        let mut out = poisoned::<T>(gpu, length);
        let place = &mut out.part_mut(0..length).unwrap();
        if self.gated {
            product.gate_up(&grouped, weights.all(), self.width, place).unwrap();
        } else {
            product.down(&grouped, weights.all(), self.width, place).unwrap();
        }
        results(gpu, &out)
    }

    /// One element in f64.
    fn expected(&self, expert: usize, row: usize, column: usize) -> f64 {
        let dot = |line: usize| -> f64 {
            let pairs = self.rows[row * self.depth..].iter().zip(&self.weights[line * self.depth..]);
            pairs.take(self.depth).map(|(x, w)| f64::from(x.wide()) * f64::from(w.wide())).sum()
        };
        if self.gated {
            let (gate, up) =
                (dot(2 * expert * self.width + column), dot((2 * expert + 1) * self.width + column));
            gate / (1.0 + (-gate).exp()) * up
        } else {
            dot(expert * self.width + column)
        }
    }
}

/// `relative`: half a unit of the rounding, and as much for the sums in f32; `absolute`: sums of 2048 terms of
/// deviation 1/45 that cancel.
fn check<T: Value>(relative: f64, absolute: f64) {
    for both in products::<T>() {
        check_one(&both, (relative, absolute));
    }
}

fn check_one<T: Value>(both: &(&Gpu, GroupedProduct<T>), (relative, absolute): (f64, f64)) {
    let kernel = both.1.kernel();
    for (depth, width) in SHAPES {
        for counts in
            COUNTS.into_iter().filter(|counts| runs(multiplications(counts, (depth, width)), CHECKED))
        {
            for gated in [true, false] {
                let shape = if gated { (depth, width) } else { (width, depth) };
                let of = Operands::<T>::new(counts, shape, gated);
                let found = of.multiply(both, &of.rows, &of.offsets);
                assert!(
                    found.iter().all(|value| !value.wide().is_nan()),
                    "{kernel:?} {shape:?} {counts:?}: NaN"
                );
                for expert in 0..counts.len() {
                    let (begin, end) = (of.offsets[expert] as usize, of.offsets[expert + 1] as usize);
                    // First, last, around the sides of the tiles; columns one by one or every 37th.
                    let rows = (begin..end)
                        .filter(|row| [0, 1, 63].contains(&((row - begin) % 64)) || row + 1 == end);
                    for row in rows {
                        for column in (row % 37..of.width).step_by(if of.width > 400 { 37 } else { 5 }) {
                            let value = f64::from(found[row * of.width + column].wide());
                            let expected = of.expected(expert, row, column);
                            let off = (value - expected).abs();
                            let what = format!(
                                "{kernel:?} {} {shape:?} {counts:?}, gated {gated}",
                                <T as Element>::NAME
                            );
                            assert!(
                                off <= relative * expected.abs() + absolute,
                                "{what}: expert {expert}, row {row}, column {column}: {value}, expected {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn grouped_products_equal_sums_in_f64() {
    check::<bf16>(5e-3, 1e-5);
    check::<f16>(6e-4, 1e-5);
}

fn company<T: Value>(both: &(&Gpu, GroupedProduct<T>)) {
    if !runs(multiplications(&[20_000], (2048, 704)), CHECKED) {
        return;
    }
    let kernel = both.1.kernel();
    for gated in [true, false] {
        let of = Operands::<T>::new(&[20_000, 0, 0], if gated { (2048, 704) } else { (704, 2048) }, gated);
        let (depth, width) = (of.depth, of.width);
        let all = of.multiply(both, &of.rows, &of.offsets);
        // Alone; among few and many; first and last; behind and before other experts' rows.
        for (first, count, before, after) in [
            (0, 1, 0, 0),
            (777, 1, 0, 0),
            (19_999, 1, 3, 0),
            (770, 7, 0, 5),
            (100, 960, 0, 0),
            (100, 960, 131, 64),
            (1, 19_999, 0, 1),
            (12_345, 65, 64, 4000),
        ] {
            // Rows before them are of the same expert 0, those behind them of expert 2.
            let other = &of.rows[5 * depth..];
            let rows = [&of.rows[first * depth..][..count * depth], &other[..after * depth]].concat();
            let (n, end) = (count as u32, (count + after) as u32);
            let part = of.multiply(both, &rows, &[0, n, n, end]);
            let same = |part: &[T]| {
                part.iter().zip(&all[first * width..]).take(count * width).all(|(a, b)| a.bits() == b.bits())
            };
            assert!(
                same(&part),
                "{kernel:?}, gated {gated}: rows {first}+{count} before {after} differ from themselves"
            );
            let mut moved = of.multiply(
                both,
                &[&other[..before * depth], &rows].concat(),
                &[0, before as u32 + n, before as u32 + n, before as u32 + end],
            );
            assert!(
                same(&moved.split_off(before * width)),
                "{kernel:?}, gated {gated}: rows {first}+{count} behind {before}"
            );
        }
    }
}

#[test]
fn no_rows_bits_depend_on_the_rows_and_experts_beside_it() {
    products::<bf16>().iter().for_each(company);
    products::<f16>().iter().for_each(company);
}

fn gathers<T: Value>(both: &(&Gpu, GroupedProduct<T>)) {
    let (gpu, product) = both;
    let kernel = product.kernel();
    let mut random = Random(77);
    let cases = SHAPES.into_iter().flat_map(|shape| COUNTS.map(|counts| (shape, counts)));
    for (shape, counts) in cases.filter(|(shape, counts)| runs(multiplications(counts, *shape), CHECKED)) {
        let mut of = Operands::<T>::new(counts, shape, true);
        let (depth, length) = (of.depth, of.rows.len() / of.depth * of.width);
        let tokens: Vec<T> = random.elements(333 * depth, 1.0);
        let mut sources: Vec<u32> = (0..of.rows.len() / depth).map(|_| random.below(333) as u32).collect();
        for (place, wrong) in [(0, 333), (70, u32::MAX)] {
            if let Some(source) = sources.get_mut(place) {
                *source = wrong;
            }
        }
        let row = |source: &u32| match tokens.get(*source as usize * depth..(*source as usize + 1) * depth) {
            Some(row) => row.to_vec(),
            None => vec![T::of(0.0); depth],
        };
        of.rows = sources.iter().flat_map(row).collect();
        let expected = of.multiply(both, &of.rows, &of.offsets);
        let [sources, offsets] = [&sources, &of.offsets].map(|values| gpu.device.upload(values).unwrap());
        let [tokens, weights] = [&tokens, &of.weights].map(|values| gpu.device.upload(values).unwrap());
        let rows =
            GatheredRows { tokens: tokens.all(), depth, sources: sources.all(), offsets: offsets.all() };
        let mut out = poisoned::<T>(gpu, length);
        let place = &mut out.part_mut(0..length).unwrap();
        product.gate_up_gathered(&rows, weights.all(), of.width, place).unwrap();
        assert_same(&results(gpu, &out), &expected, &format!("{kernel:?} {} {shape:?} {counts:?}", T::NAME));
    }
}

#[test]
fn gathered_rows_give_the_same_bits_as_rows_copied_together() {
    products::<bf16>().iter().for_each(gathers);
    products::<f16>().iter().for_each(gathers);
}

#[test]
fn rows_of_no_expert_stay_and_wrong_offsets_write_nowhere_else() {
    let of = Operands::<bf16>::new(&[100, 100, 100], (64, 128), false);
    for both in products::<bf16>() {
        let right = of.multiply(&both, &of.rows, &of.offsets);
        let found = of.multiply(&both, &of.rows, &[0, 100, 150, 200]);
        assert!(found[200 * 128..].iter().all(|value| value.bits() == bf16::POISON.bits()));
        assert!(found[..150 * 128].iter().zip(&right).all(|(a, b)| a.bits() == b.bits()));
        // `multiply` looks at what lies behind the results.
        for offsets in [[0, 100, 200, 100_000], [250, 100, u32::MAX, 7], [u32::MAX; 4], [0, 0, 0, u32::MAX]] {
            of.multiply(&both, &of.rows, &offsets);
        }
    }
}

#[test]
fn a_gpu_has_the_kernels_of_its_architecture_and_none_for_f32() {
    let Some(gpu) = gpu() else { return };
    let (device, compiler) = (&gpu.device, &gpu.compiler);
    assert!(GroupedProduct::<bf16>::supports(device, 2048, 1408));
    assert!(!GroupedProduct::<bf16>::supports(device, 2048, 1404));
    assert!(!GroupedProduct::<f32>::supports(device, 2048, 1408));
    assert!(matches!(GroupedProduct::<f32>::new(device, compiler), Err(CudaError::Unsupported { .. })));
    let fastest = GroupedProduct::<bf16>::new(device, compiler).unwrap().kernel();
    let hopper = device.capability() == (9, 0);
    assert_eq!(fastest, if hopper { GroupedKernel::Wgmma } else { GroupedKernel::Mma });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    products::<bf16>().iter().for_each(refuses);
}

fn refuses((gpu, product): &(&Gpu, GroupedProduct<bf16>)) {
    let device = &gpu.device;
    let (rows, weights) =
        (device.zeros::<bf16>(10 * 64).unwrap(), device.zeros::<bf16>(2 * 64 * 72 + 8).unwrap());
    let (offsets, many) = (device.zeros::<u32>(3).unwrap(), device.zeros::<u32>(514).unwrap());
    let mut out = device.zeros::<bf16>(10 * 72 + 1).unwrap();
    let mut attempt = |depth: usize, width: usize, from: usize, length: usize, to: usize, offsets: &_| {
        let grouped = GroupedRows { rows: rows.all(), depth, offsets: *offsets };
        let weights = weights.part(from..from + length).unwrap();
        product.down(&grouped, weights, width, &mut out.part_mut(to..to + 10 * width).unwrap())
    };
    let (two, all) = (offsets.all(), 2 * 64 * 72);
    attempt(64, 72, 0, all, 0, &two).unwrap();
    assert!(matches!(attempt(64, 72, 0, all - 8, 0, &two), Err(CudaError::Length { .. })));
    assert!(matches!(attempt(60, 72, 0, all, 0, &two), Err(CudaError::Value { .. })));
    assert!(matches!(attempt(64, 71, 0, all, 0, &two), Err(CudaError::Value { .. })));
    assert!(matches!(attempt(0, 72, 0, all, 0, &two), Err(CudaError::Value { .. })));
    assert!(matches!(attempt(64, 72, 4, all, 0, &two), Err(CudaError::Alignment { .. })));
    assert!(matches!(attempt(64, 72, 0, all, 1, &two), Err(CudaError::Alignment { .. })));
    assert!(matches!(attempt(64, 72, 0, all, 0, &many.all()), Err(CudaError::Value { .. })));
    assert!(matches!(attempt(64, 72, 0, all, 0, &many.part(0..1).unwrap()), Err(CudaError::Value { .. })));
    let (none, nothing) = (device.zeros::<bf16>(0).unwrap(), device.zeros::<bf16>(2 * 64 * 72).unwrap());
    let grouped = GroupedRows { rows: none.all(), depth: 64, offsets: two };
    let mut place = device.zeros::<bf16>(0).unwrap();
    product.down(&grouped, nothing.all(), 72, &mut place.all_mut()).unwrap();
}
