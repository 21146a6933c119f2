//! Counting at DeepSeek geometry; one element is one token.

use anyhow::Result;
use benches::{Recorded, deepseek_geometry};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moetrace_metrics::{MetricsSettings, RoutingMetrics};

fn measure(criterion: &mut Criterion) -> Result<()> {
    let recorded = Recorded::new(deepseek_geometry()?, 64, 512, 2)?;
    let settings = MetricsSettings::default();
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(recorded.batch.len() as u64)).sample_size(10);
    group.bench_function("count", |b| {
        b.iter(|| {
            let mut metrics = RoutingMetrics::new(&recorded.geometry, &settings);
            recorded.play(&mut metrics).map(|()| metrics)
        });
    });
    let mut counted = RoutingMetrics::new(&recorded.geometry, &settings);
    recorded.play(&mut counted)?;
    group.bench_function("report", |b| b.iter(|| counted.report()));
    group.finish();
    Ok(())
}

fn metrics(criterion: &mut Criterion) {
    assert!(measure(criterion).is_ok(), "the bench's own set-up failed");
}

criterion_group!(benches, metrics);
criterion_main!(benches);
