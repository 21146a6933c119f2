//! A whole collect of the model and texts that come with moetrace; one element is one token.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moetrace_corpus::{CorpusSettings, SourceSpec, TextTokenizer};
use moetrace_metrics::MetricsSettings;
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Engine, ModelConfig, Precision,
};
use moetrace_routing::WeightPrecision;
use moetrace_run::{
    Collect, ContentSettings, Execution, ModelFacts, Plan, RealFs, RunFolder, collect as collect_run,
};
use moetrace_trace::TraceColumns;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn plan(config: &ModelConfig) -> Result<Plan> {
    let tokenizer = TextTokenizer::open(&fixtures().join("model"))?;
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(fixtures().join("datasets"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        sources.push(SourceSpec { name, path, column: None, listed: vec![] });
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let settings = CorpusSettings { traces: 120, ..CorpusSettings::default() };
    let corpus = moetrace_corpus::plan(&sources, Some(&tokenizer), &settings, &mut |_| {})?;
    let content = ContentSettings {
        traces: settings.traces,
        max_length: settings.max_length,
        min_chars: settings.min_chars,
        seed: settings.seed,
        shard_tokens: 16_384,
        columns: TraceColumns::default(),
        weights: WeightPrecision::Half,
        hidden_rows: 0,
    };
    let model = ModelFacts {
        name: "bench".into(),
        revision: None,
        family: config.family().to_string(),
        config_hash: String::new(),
        weights_hash: String::new(),
        total_parameters: Some(config.total_parameters()),
        active_parameters: Some(config.active_parameters()),
        weight_bytes: None,
        engine: "cpu".into(),
        precision: "bf16".into(),
        compute_dtype: "bf16".into(),
        quantisation: None,
        router_dtype: "model".into(),
        hub: None,
        renormalised: None,
    };
    Ok(Plan::new(content, model, None, config.geometry().clone(), corpus))
}

fn measure(criterion: &mut Criterion) -> Result<()> {
    let config = ModelConfig::read(&fixtures().join("model"))?;
    let checkpoint = Checkpoint::open(&fixtures().join("model"), &CheckpointSettings { mmap: true })?;
    let plan = plan(&config)?;
    let execution = Execution { tokens_per_pass: 4096, threads: 2, device: "cpu".into() };
    let settings = CpuSettings { precision: Precision::Bf16, threads: 2, ..CpuSettings::default() };
    let mut group = criterion.benchmark_group("collect");
    group.throughput(Throughput::Elements(plan.tokens())).sample_size(10);
    group.bench_function("the embedded model", |b| {
        b.iter(|| -> Result<usize> {
            let dir = tempfile::tempdir()?;
            let run = Collect {
                fs: &RealFs,
                folder: &RunFolder::new(dir.path().join("run")),
                plan: &plan,
                settings: Vec::new(),
                execution: &execution,
                metrics: MetricsSettings::default(),
                range: None,
                repair: false,
                vocabulary: None,
                process: None,
                holder: "bench",
                stop: &AtomicBool::new(false),
            };
            let mut load = || Ok(Box::new(CpuEngine::load(&checkpoint, &settings)?) as Box<dyn Engine>);
            Ok(collect_run(&run, &mut load, &mut |_| {})?.committed)
        });
    });
    group.finish();
    Ok(())
}

fn collect(criterion: &mut Criterion) {
    assert!(measure(criterion).is_ok(), "the bench's own set-up failed");
}

criterion_group!(benches, collect);
criterion_main!(benches);
