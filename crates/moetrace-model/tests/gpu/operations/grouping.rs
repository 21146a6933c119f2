//! Grouping by expert, the shared gate, norms of heads and token losses against loops.

use half::{bf16, f16};
use moetrace_cuda::{GroupByExpert, Grouping, HeadRows, RmsNorm, SharedGate, TokenLoss};

use crate::support::{Random, Value, assert_close, gpu, poisoned, results, runs};

#[test]
fn choices_are_grouped_by_expert_in_their_own_order() {
    let Some(gpu) = gpu() else { return };
    let kernel = GroupByExpert::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(31);
    for (n, k, e) in
        [(1, 1, 1), (1, 2, 8), (7, 6, 64), (961, 8, 128), (40_960, 6, 64), (3000, 4, 60), (2048, 10, 512)]
    {
        if !runs(n * k, 30_000) {
            continue;
        }
        // Low experts are popular, and the last ones may get nothing.
        let experts: Vec<u16> = (0..n * k).map(|_| (random.below(e) * random.below(e) / e) as u16).collect();
        let mut rows: Vec<usize> = (0..n * k).collect();
        rows.sort_by_key(|choice| experts[*choice]);
        let mut places = vec![0u32; n * k];
        for (row, choice) in rows.iter().enumerate() {
            places[*choice] = row as u32;
        }
        let sources: Vec<u32> = rows.iter().map(|choice| (choice / k) as u32).collect();
        let offset =
            |expert| rows.iter().filter(|choice| usize::from(experts[**choice]) < expert).count() as u32;
        let offsets: Vec<u32> = (0..=e).map(offset).collect();
        let on = gpu.device.upload(&experts).unwrap();
        let mut found =
            [e + 1, n * k, n * k].map(|length| gpu.device.upload(&vec![u32::MAX; length + 1]).unwrap());
        let [a, b, c] = &mut found;
        let out = &mut Grouping {
            offsets: a.part_mut(0..e + 1).unwrap(),
            places: b.part_mut(0..n * k).unwrap(),
            sources: c.part_mut(0..n * k).unwrap(),
        };
        kernel.run(on.all(), k, out).unwrap();
        for (found, mut expected) in found.iter().zip([offsets, places, sources]) {
            expected.push(u32::MAX);
            assert!(gpu.device.download(found.all()).unwrap() == expected, "{n} tokens, {k} of {e} experts");
        }
    }
}

fn gates<T: Value>(units: i64) {
    let Some(gpu) = gpu() else { return };
    let kernel = SharedGate::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(32);
    for (n, d) in [(1, 8), (9, 50), (300, 2048)] {
        let x: Vec<T> = random.elements(n * d, 1.0);
        let w: Vec<T> = random.elements(d, 1.0 / (d as f32).sqrt());
        let gate = |x: &[T]| {
            let sum: f64 = x.iter().zip(&w).map(|(x, w)| f64::from(x.wide()) * f64::from(w.wide())).sum();
            T::of((1.0 / (1.0 + f64::from(-T::of(sum as f32).wide()).exp())) as f32)
        };
        let expected: Vec<T> = x.chunks_exact(d).map(gate).collect();
        let mut out = poisoned::<f32>(gpu, n);
        let [x, w] = [&x, &w].map(|values| gpu.device.upload(values).unwrap());
        kernel.run(x.all(), w.all(), &mut out.part_mut(0..n).unwrap()).unwrap();
        let found: Vec<T> = results(gpu, &out).into_iter().map(T::of).collect();
        assert_close(&found, &expected, units, &format!("{} {n} x {d}", T::NAME));
    }
}

#[test]
fn shared_gates_are_sigmoids_of_rounded_products() {
    // A sum in another order may round to the neighbour, which moves the sigmoid by at most one unit more.
    gates::<bf16>(2);
    gates::<f16>(2);
    gates::<f32>(64);
}

fn head_norms<T: Value>(units: i64) {
    let Some(gpu) = gpu() else { return };
    let kernel = RmsNorm::<T>::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(33);
    for (rows, heads, width, stride) in [(1, 1, 2, 2), (5, 4, 128, 700), (65, 3, 24, 75), (9, 1, 2048, 6144)]
    {
        let x: Vec<T> = random.elements(rows * stride, 2.0);
        let weight: Vec<T> = random.elements(width, 1.0);
        let mut expected = x.clone();
        for row in expected.chunks_exact_mut(stride) {
            for head in row[..heads * width].chunks_exact_mut(width) {
                let squares: f64 = head.iter().map(|x| f64::from(x.wide()).powi(2)).sum();
                let rms = (squares / width as f64 + 1e-6).sqrt() as f32;
                for (x, w) in head.iter_mut().zip(&weight) {
                    *x = T::of(T::of(x.wide() / rms).wide() * w.wide());
                }
            }
        }
        let mut on = poisoned::<T>(gpu, rows * stride);
        let mut place = on.part_mut(0..rows * stride).unwrap();
        gpu.device.write(&x, &mut place).unwrap();
        let weight = gpu.device.upload(&weight).unwrap();
        kernel.run_in_place(&mut place, rows, HeadRows { heads, width, stride }, weight.all(), 1e-6).unwrap();
        assert_close(&results(gpu, &on), &expected, units, &format!("{} {heads} x {width}", T::NAME));
    }
}

#[test]
fn heads_are_normed_one_by_one_and_what_lies_beside_them_stays() {
    head_norms::<bf16>(2);
    head_norms::<f16>(2);
    head_norms::<f32>(32);
}

#[test]
fn losses_are_cross_entropies_and_a_missing_target_gives_nan() {
    let Some(gpu) = gpu() else { return };
    let kernel = TokenLoss::new(&gpu.device, &gpu.compiler).unwrap();
    let mut random = Random(34);
    for (n, v) in [(1, 1), (3, 100), (4, 102_400), (40, 102_400)] {
        if !runs(n * v, 500_000) {
            continue;
        }
        let logits: Vec<f32> = random.elements(n * v, 3.0);
        let mut targets: Vec<u32> = (0..n).map(|_| random.below(v) as u32).collect();
        targets[n - 1] = u32::MAX;
        let (on, to) = (gpu.device.upload(&logits).unwrap(), gpu.device.upload(&targets).unwrap());
        let mut out = poisoned::<f32>(gpu, n);
        kernel.run(on.all(), v, to.all(), &mut out.part_mut(0..n).unwrap()).unwrap();
        for ((found, target), row) in results(gpu, &out).iter().zip(&targets).zip(logits.chunks_exact(v)) {
            match row.get(*target as usize) {
                None => assert!(found.is_nan()),
                Some(logit) => {
                    let expected =
                        row.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln() - f64::from(*logit);
                    assert!((f64::from(*found) - expected).abs() < 2e-5, "{found} and {expected}");
                }
            }
        }
    }
}
