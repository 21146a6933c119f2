//! Weights to 4 bits and back, on one core: MB/s of bf16 source and of bf16 output.

use std::hint::black_box;

use benches::seeded_weights;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use moetrace_nf4::{ElementType, Nf4Settings, Nf4Tensor, Source};

/// A projection of DeepSeek-MoE-16B's experts, four times: 46 MB of bf16, more than any cache.
const SHAPE: [usize; 2] = [4 * 1408, 4096];

fn nf4(criterion: &mut Criterion) {
    let weights = seeded_weights(SHAPE[0] * SHAPE[1]);
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let source = Source { bytes: &bytes, element: ElementType::Bf16 };
    let Ok(one_core) = rayon::ThreadPoolBuilder::new().num_threads(1).build() else { return };
    let mut group = criterion.benchmark_group("nf4");
    group.sample_size(20).throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("quantise bf16, one core", |bencher| {
        bencher.iter(|| {
            one_core.install(|| Nf4Tensor::quantise(black_box(source), &SHAPE, Nf4Settings::default()))
        });
    });
    let Ok(tensor) = Nf4Tensor::quantise(source, &SHAPE, Nf4Settings::default()) else { return };
    let mut out = vec![bf16::ZERO; weights.len()];
    group.bench_function("dequantise to bf16, one core", |bencher| {
        bencher.iter(|| tensor.dequantise(black_box(&mut out)));
    });
    let mut wide = vec![0f32; weights.len()];
    group.throughput(Throughput::Bytes(4 * weights.len() as u64));
    group.bench_function("dequantise to f32, one core", |bencher| {
        bencher.iter(|| tensor.dequantise(black_box(&mut wide)));
    });
    group.finish();
}

criterion_group!(benches, nf4);
criterion_main!(benches);
