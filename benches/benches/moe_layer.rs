//! The CPU engine on a model of some 100 million parameters with 32 experts; one element is one token.

use anyhow::Result;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moetrace_model::synthetic::{SyntheticSettings, write_checkpoint};
use moetrace_model::{Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Engine, Precision};
use moetrace_routing::{RoutingSink, RoutingView, SampleId, SinkError, Span, TokenBatch, TokenId};
use serde_json::json;

const SAMPLES: usize = 4;
const LENGTH: usize = 512;

struct Silent;

impl RoutingSink for Silent {
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, _: &RoutingView<'_>) -> Result<(), SinkError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn batch() -> Result<TokenBatch> {
    let n = SAMPLES * LENGTH;
    let span = |i: usize| Span {
        sample: SampleId(i as u32),
        dataset: "bench".into(),
        label: None,
        start: i * LENGTH,
        len: LENGTH,
        begins_with_bos: false,
    };
    Ok(TokenBatch::new(
        (0..n).map(|i| TokenId((i * 7919 % 4096) as u32)).collect(),
        (0..n).map(|i| (i % LENGTH) as u32).collect(),
        (0..SAMPLES).map(span).collect(),
    )?)
}

fn measure(criterion: &mut Criterion) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = json!({
        "model_type": "deepseek", "vocab_size": 4096, "hidden_size": 512, "num_hidden_layers": 5,
        "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 1408,
        "moe_intermediate_size": 448, "n_routed_experts": 32, "num_experts_per_tok": 6, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "norm_topk_prob": false, "scoring_func": "softmax",
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 4096,
        "tie_word_embeddings": false, "attention_bias": false, "torch_dtype": "float32",
    });
    write_checkpoint(dir.path(), &config, &SyntheticSettings { seed: 5, ..SyntheticSettings::default() })?;
    let checkpoint = Checkpoint::open(dir.path(), &CheckpointSettings { mmap: true })?;
    let batch = batch()?;
    let mut group = criterion.benchmark_group("moe_layer");
    group.throughput(Throughput::Elements(batch.len() as u64)).sample_size(10);
    for precision in [Precision::F32, Precision::Bf16, Precision::Nf4] {
        let settings = CpuSettings { precision, threads: 2, ..CpuSettings::default() };
        let mut engine = CpuEngine::load(&checkpoint, &settings)?;
        group.bench_function(format!("forward of 2,048 tokens, {precision}, 2 threads"), |b| {
            b.iter(|| engine.run(&batch, &mut Silent));
        });
    }
    group.finish();
    Ok(())
}

fn moe_layer(criterion: &mut Criterion) {
    assert!(measure(criterion).is_ok(), "the bench's own set-up failed");
}

criterion_group!(benches, moe_layer);
criterion_main!(benches);
