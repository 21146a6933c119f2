//! Gathering, norms, rotation and activation against loops.

use half::{bf16, f16};
use moetrace_cuda::{GatherRows, HeadRows, RmsNorm, Rotary, RotaryTables, SiluMultiply};

use crate::support::{Random, Value, assert_close, assert_same, gpu, poisoned, results};

/// (rows, width): fast widths, odd ones, less than a warp, more than one round of a block.
const SHAPES: [(usize, usize); 7] = [(1, 8), (3, 1), (5, 127), (65, 130), (7, 2048), (4, 5120), (300, 1408)];

fn gathers<T: Value>() {
    let Some(gpu) = gpu() else { return };
    let kernel = GatherRows::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(11);
    for (rows, width) in SHAPES {
        let table: Vec<T> = random.elements(rows * width, 1.0);
        let mut ids: Vec<u32> = (0..=2 * rows).map(|_| random.below(rows) as u32).collect();
        ids.push(rows as u32);
        ids.push(u32::MAX);
        let row = |id: &u32| match table.get(*id as usize * width..(*id as usize + 1) * width) {
            Some(row) => row.to_vec(),
            None => vec![T::of(f32::NAN); width],
        };
        let expected: Vec<T> = ids.iter().flat_map(row).collect();
        let mut out = poisoned::<T>(gpu, expected.len());
        let (on, ids) = (gpu.device.upload(&table).unwrap(), gpu.device.upload(&ids).unwrap());
        kernel.run(on.all(), width, ids.all(), &mut out.part_mut(0..expected.len()).unwrap()).unwrap();
        assert_same(&results(gpu, &out), &expected, &format!("{} {rows} x {width}", T::NAME));
    }
}

#[test]
fn gathered_rows_are_the_tables_rows_and_nan_outside_it() {
    gathers::<bf16>();
    gathers::<f16>();
    gathers::<f32>();
}

/// `units`: the mean is summed in another order, so x / rms may fall on the other side of a rounding.
fn norms<T: Value>(units: i64) {
    let Some(gpu) = gpu() else { return };
    let kernel = RmsNorm::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let (mut random, eps) = (Random(12), 1e-6f32);
    for (rows, width) in SHAPES {
        let x: Vec<T> = random.elements(rows * width, 2.0);
        let y: Vec<T> = random.elements(rows * width, 0.5);
        let weight: Vec<T> = random.elements(width, 1.0);
        let norm = |x: &[T]| -> Vec<T> {
            let row = |row: &[T]| -> Vec<T> {
                let squares: f64 = row.iter().map(|x| f64::from(x.wide()).powi(2)).sum();
                let rms = (squares / width as f64 + f64::from(eps)).sqrt() as f32;
                row.iter().zip(&weight).map(|(x, w)| T::of(T::of(x.wide() / rms).wide() * w.wide())).collect()
            };
            x.chunks_exact(width).flat_map(row).collect()
        };
        let sums: Vec<T> = x.iter().zip(&y).map(|(x, y)| T::of(x.wide() + y.wide())).collect();
        let what = format!("{} {rows} x {width}", T::NAME);
        let [weight, y] = [&weight, &y].map(|values| gpu.device.upload(values).unwrap());
        let all = 0..rows * width;
        let mut stream = poisoned::<T>(gpu, rows * width);
        gpu.device.write(&x, &mut stream.part_mut(all.clone()).unwrap()).unwrap();
        let mut out = poisoned::<T>(gpu, rows * width);
        let to = &mut out.part_mut(all.clone()).unwrap();
        kernel.run(stream.part(all.clone()).unwrap(), weight.all(), eps, to).unwrap();
        assert_close(&results(gpu, &out), &norm(&x), units, &what);
        assert_same(&results(gpu, &stream), &x, &what);
        let mut out = poisoned::<T>(gpu, rows * width);
        let to = &mut out.part_mut(all.clone()).unwrap();
        let stream_part = &mut stream.part_mut(all).unwrap();
        kernel.run_with_residual(stream_part, y.all(), weight.all(), eps, to).unwrap();
        assert_close(&results(gpu, &out), &norm(&sums), units, &what);
        assert_same(&results(gpu, &stream), &sums, &what);
    }
}

#[test]
fn norms_equal_the_definition_and_residual_sums_are_exact() {
    norms::<bf16>(2);
    norms::<f16>(2);
    norms::<f32>(32);
}

fn rotates<T: Value>() {
    let Some(gpu) = gpu() else { return };
    let kernel = Rotary::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(13);
    for (rows, heads, width, stride) in [(1, 1, 2, 2), (9, 16, 128, 6144), (33, 3, 6, 25), (5, 40, 64, 2560)]
    {
        let table_rows = 50;
        let half = width / 2;
        let [cosines, sines]: [Vec<T>; 2] = [0, 1].map(|_| random.elements(table_rows * half, 0.7));
        let mut positions: Vec<u32> = (0..rows).map(|_| random.below(table_rows) as u32).collect();
        if rows > 1 {
            positions[1] = table_rows as u32;
        }
        // The last row ends with its last head.
        let length = (rows - 1) * stride + heads * width;
        let x: Vec<T> = random.elements(length, 3.0);
        let mut expected = x.clone();
        for (row, position) in positions.iter().enumerate() {
            for pair in 0..heads * half {
                let (low, i) = (row * stride + pair / half * width + pair % half, pair % half);
                let angle =
                    |table: &[T]| table.get(*position as usize * half + i).map_or(f32::NAN, |v| v.wide());
                let (cos, sin) = (angle(&cosines), angle(&sines));
                let (a, b) = (x[low].wide(), x[low + half].wide());
                expected[low] = T::of(a * cos - b * sin);
                expected[low + half] = T::of(a * sin + b * cos);
            }
        }
        let mut on = poisoned::<T>(gpu, length);
        gpu.device.write(&x, &mut on.part_mut(0..length).unwrap()).unwrap();
        let [cosines, sines] = [cosines, sines].map(|values| gpu.device.upload(&values).unwrap());
        let positions = gpu.device.upload(&positions).unwrap();
        let tables = RotaryTables { cosines: cosines.all(), sines: sines.all() };
        let shape = HeadRows { heads, width, stride };
        kernel.run(&mut on.part_mut(0..length).unwrap(), shape, positions.all(), tables).unwrap();
        assert_same(&results(gpu, &on), &expected, &format!("{} {rows} x {heads} x {width}", T::NAME));
    }
}

#[test]
fn rotated_heads_equal_the_definition_bit_by_bit_and_columns_between_them_stay() {
    rotates::<bf16>();
    rotates::<f16>();
    rotates::<f32>();
}

/// `units`: approximations within 2^-21 may fall on the other side of one rounding; in f32 their own error shows.
fn activates<T: Value>(units: i64) {
    let Some(gpu) = gpu() else { return };
    let kernel = SiluMultiply::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(14);
    for (rows, width) in SHAPES.into_iter().chain([(5000, 704)]) {
        let both: Vec<T> = random.elements(rows * 2 * width, 3.0);
        let row = |row: &[T]| -> Vec<T> {
            let silu = |x: f32| f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let one = |(gate, up): (&T, &T)| T::of((silu(gate.wide()) * f64::from(up.wide())) as f32);
            row[..width].iter().zip(&row[width..]).map(one).collect()
        };
        let expected: Vec<T> = both.chunks_exact(2 * width).flat_map(row).collect();
        let mut out = poisoned::<T>(gpu, expected.len());
        let both = gpu.device.upload(&both).unwrap();
        kernel.run(both.all(), width, &mut out.part_mut(0..expected.len()).unwrap()).unwrap();
        assert_close(&results(gpu, &out), &expected, units, &format!("{} {rows} x {width}", T::NAME));
    }
}

#[test]
fn activated_rows_equal_the_definition() {
    activates::<bf16>(1);
    activates::<f16>(1);
    activates::<f32>(8);
}
