//! Combining against a loop.

use half::{bf16, f16};
use moetrace_cuda::{Combine, ExpertResults, SharedResults};

use crate::support::{Random, Value, assert_same, gpu, poisoned, results};

/// Distinct experts for each token.
fn choices(random: &mut Random, n: usize, k: usize, e: usize) -> Vec<u16> {
    let one = |random: &mut Random| {
        let mut ids: Vec<u16> = (0..e as u16).collect();
        (0..k).map(|_| ids.swap_remove(random.below(ids.len()))).collect::<Vec<_>>()
    };
    (0..n).flat_map(|_| one(random)).collect()
}

fn combines<T: Value>() {
    let Some(gpu) = gpu() else { return };
    let kernel = Combine::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(21);
    for (n, k, e, width) in
        [(1, 1, 1, 8), (7, 6, 64, 2048), (65, 4, 60, 130), (3, 8, 128, 5000), (9, 32, 512, 33)]
    {
        let rows = n * k + 3;
        let values: Vec<T> = random.elements(rows * width, 1.0);
        let shared: Vec<T> = random.elements(n * width, 1.0);
        let experts = choices(&mut random, n, k, e);
        let mut places: Vec<u32> = (0..rows as u32).collect();
        for i in (1..rows).rev() {
            places.swap(i, random.below(i + 1));
        }
        places.truncate(n * k);
        let weights: Vec<f32> = (0..n * k).map(|_| random.normal().abs()).collect();
        let gates: Vec<f32> = (0..n).map(|_| random.normal().abs()).collect();
        for (with_shared, with_gates) in [(false, false), (true, false), (true, true)] {
            let mut expected = Vec::new();
            for token in 0..n {
                let mut order: Vec<usize> = (token * k..(token + 1) * k).collect();
                order.sort_by_key(|choice| experts[*choice]);
                for column in 0..width {
                    let mut sum = 0f32;
                    for choice in &order {
                        sum += weights[*choice] * values[places[*choice] as usize * width + column].wide();
                    }
                    if with_shared {
                        let gate = if with_gates { gates[token] } else { 1.0 };
                        sum += gate * shared[token * width + column].wide();
                    }
                    expected.push(T::of(sum));
                }
            }
            let device = &gpu.device;
            let (values, rows) = (device.upload(&values).unwrap(), device.upload(&shared).unwrap());
            let (experts, places) = (device.upload(&experts).unwrap(), device.upload(&places).unwrap());
            let (weights, gates) = (device.upload(&weights).unwrap(), device.upload(&gates).unwrap());
            let of = ExpertResults {
                results: values.all(),
                places: places.all(),
                experts: experts.all(),
                weights: weights.all(),
                shared: with_shared
                    .then(|| SharedResults { rows: rows.all(), gates: with_gates.then(|| gates.all()) }),
            };
            let mut out = poisoned::<T>(gpu, n * width);
            kernel.run(&of, width, &mut out.part_mut(0..n * width).unwrap()).unwrap();
            let what = format!("{} {n} x {k} of {e}, {width}, shared {with_shared}", T::NAME);
            assert_same(&results(gpu, &out), &expected, &what);
        }
    }
}

#[test]
fn combined_rows_equal_a_loop_in_ascending_expert_id_bit_by_bit() {
    combines::<bf16>();
    combines::<f16>();
    combines::<f32>();
}
