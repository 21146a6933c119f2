//! One layer with experts through the engine, and the next as far as its router, where a pass ends.

use anyhow::Result;
use benches::work::{deepseek_config, traced_flops};
use criterion::{BenchmarkId, Criterion, Throughput};
use moetrace_model::synthetic::{SyntheticSettings, write_checkpoint};
use moetrace_model::{CudaEngine, ElementType, Quantisation};

use crate::engine::{load, passes, random_batch};
use crate::place::{Ceilings, Place};
use crate::report::{checked, flops, line, median, milliseconds, share};
use crate::shapes::{SPAN, TOKENS};

const NAME: &str = "a layer, and the next up to its router";
/// Few rows of the embedding, which is looked up and not multiplied.
const VOCAB: usize = 8192;

/// A random checkpoint of two layers, written once if it is needed.
pub(crate) fn layer(place: &Place, ceilings: &Ceilings, criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer");
    let mut loaded: Option<CudaEngine> = None;
    for n in TOKENS {
        let batch = checked(random_batch(n / SPAN, VOCAB));
        let mut times = Vec::new();
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new(NAME, n), |bencher| {
            bencher.iter_custom(|runs| {
                let engine = loaded.get_or_insert_with(|| checked(two_layers(place)));
                passes(engine, &batch, runs, &mut times)
            });
        });
        if let (Some(taken), Some(engine)) = (median(&times), &loaded) {
            let rate = traced_flops(engine.config()) as f64 * n as f64 / taken;
            let part = share(rate, ceilings.matrix);
            line("kernel", &[NAME, &n.to_string(), &milliseconds(taken), &flops(rate), &part]);
        }
    }
    group.finish();
}

fn two_layers(place: &Place) -> Result<CudaEngine> {
    let dir = tempfile::tempdir()?;
    let quantisation = Some(Quantisation::default());
    let settings = SyntheticSettings {
        seed: 7,
        element: ElementType::Bf16,
        quantisation,
        ..SyntheticSettings::default()
    };
    write_checkpoint(dir.path(), &deepseek_config(2, 0, VOCAB), &settings)?;
    load(place, dir.path(), TOKENS[TOKENS.len() - 1])
}
