//! Memory made to run out in the middle of passes: `forced_oom DIR OUT [cpu|bf16|f16|nf4|f32] [TOKENS_PER_PASS]
//! [SAMPLESxLENGTH] [PASS,PASS,...] [STREAMED]`
//!
//! Runs the checkpoint DIR over random token ids twice: into OUT/forced with an engine that breaks the named passes off
//! between two layers (counted from 0, those that were tried again too; 1,4 unless given) and says that memory ran out,
//! and into OUT/whole without. Says which shards were halved, and which share of rows has other experts. The
//! engine's own `halve` gives memory back; the processor (`cpu`) has none, and only its passes are cut.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use moetrace_corpus::{CorpusSettings, SourceSpec};
use moetrace_cuda::{Compiler, Device, Libraries};
use moetrace_metrics::MetricsSettings;
use moetrace_metrics::fidelity::FidelitySettings;
use moetrace_model::synthetic::random_batch;
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, CudaEngine, CudaSettings, Engine, EngineUsage,
    Gpu, ModelConfig, ModelError, Place, Placement, Precision,
};
use moetrace_routing::{
    Planes, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch, WeightPrecision,
};
use moetrace_run::{
    Collect, ContentSettings, Execution, ModelFacts, Plan, RealFs, RunEvent, RunFolder, Trust, collect,
    compare,
};
use moetrace_trace::TraceColumns;

/// Shards of the run, so that some are halved and some not.
const SHARDS: usize = 8;

struct Arguments {
    model: PathBuf,
    out: PathBuf,
    /// `None` computes on the processor.
    on_gpu: Option<Precision>,
    tokens_per_pass: usize,
    samples: usize,
    length: usize,
    break_off: Vec<usize>,
    /// Layers, from the last, whose weights are brought in every pass.
    streamed: usize,
}

fn arguments() -> Result<Arguments> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let text = |at: usize, otherwise: &str| given.get(at).map_or(otherwise, String::as_str).to_owned();
    let (model, out) = (text(0, "").into(), text(1, "").into());
    if given.len() < 2 {
        bail!(
            "usage: forced_oom DIR OUT [PRECISION] [TOKENS_PER_PASS] [SAMPLESxLENGTH] [PASS,PASS,...] [STREAMED]"
        );
    }
    let on_gpu = match text(2, "nf4").as_str() {
        "cpu" => None,
        "f32" => Some(Precision::F32),
        "bf16" => Some(Precision::Bf16),
        "f16" => Some(Precision::F16),
        "nf4" => Some(Precision::Nf4),
        other => bail!("precision is {other}, expected cpu, f32, bf16, f16 or nf4"),
    };
    let texts = text(4, "512x256");
    let (samples, length) = texts.split_once('x').context("expected SAMPLESxLENGTH")?;
    let (samples, length) = (samples.parse()?, length.parse()?);
    let break_off = text(5, "1,4").split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok(Arguments {
        model,
        out,
        on_gpu,
        tokens_per_pass: text(3, "16384").parse()?,
        samples,
        length,
        break_off,
        streamed: text(6, "0").parse()?,
    })
}

/// An engine whose memory runs out in the middle of some passes.
struct Forced {
    inner: Box<dyn Engine>,
    break_off: Vec<usize>,
    passes: usize,
    /// Where the engine itself has nothing to halve: tokens of a pass, and the least that they may be.
    processor: Option<(usize, usize)>,
}

impl Engine for Forced {
    fn geometry(&self) -> &RoutingGeometry {
        self.inner.geometry()
    }

    fn run(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), ModelError> {
        let is_broken_off = self.break_off.contains(&self.passes);
        self.passes += 1;
        if !is_broken_off {
            return self.inner.run(batch, sink);
        }
        let left = self.geometry().layers().len() / 2;
        match self.inner.run(batch, &mut Breaking { inner: sink, left }) {
            Err(ModelError::Sink(error)) if error.inner().is::<BrokenOff>() => {
                Err(ModelError::OutOfMemory { what: "a pass that was broken off on purpose" })
            }
            other => other,
        }
    }

    fn usage(&self) -> EngineUsage {
        self.inner.usage()
    }

    fn halve(&mut self) -> Result<Option<usize>, ModelError> {
        let Some((tokens, least)) = &mut self.processor else { return self.inner.halve() };
        let half = *tokens / 2;
        Ok((half >= *least).then(|| {
            *tokens = half;
            half
        }))
    }
}

/// Ends a pass after some layers.
struct Breaking<'a> {
    inner: &'a mut dyn RoutingSink,
    left: usize,
}

#[derive(Debug)]
struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off on purpose")
    }
}

impl std::error::Error for BrokenOff {}

impl RoutingSink for Breaking<'_> {
    fn wants(&self) -> Planes {
        self.inner.wants()
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.inner.begin(batch)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        if self.left == 0 {
            return Err(SinkError::new(BrokenOff));
        }
        self.left -= 1;
        self.inner.record(view)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Err(SinkError::new(BrokenOff))
    }
}

fn plan(arguments: &Arguments, config: &ModelConfig) -> Result<Plan> {
    let Arguments { samples, length, .. } = *arguments;
    let batch = random_batch(samples, length, config.vocab(), 1)?;
    let lines: Vec<String> = batch
        .token_ids()
        .chunks(length)
        .map(|ids| {
            let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
            serde_json::json!({ "input_ids": ids }).to_string()
        })
        .collect();
    std::fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("random.jsonl");
    std::fs::write(&path, lines.join("\n"))?;
    let settings = CorpusSettings {
        traces: samples,
        max_length: length,
        vocabulary: Some(config.vocab()),
        ..CorpusSettings::default()
    };
    let source = SourceSpec { name: "random".into(), path, column: None, listed: vec![] };
    let corpus = moetrace_corpus::plan(&[source], None, &settings, &mut |_| {})?;
    let content = ContentSettings {
        traces: settings.traces,
        max_length: settings.max_length,
        min_chars: settings.min_chars,
        seed: settings.seed,
        shard_tokens: samples.div_ceil(SHARDS) * length,
        columns: TraceColumns::default(),
        weights: WeightPrecision::Half,
        hidden_rows: 0,
    };
    let model = ModelFacts {
        name: "forced".into(),
        revision: None,
        family: config.family().to_string(),
        config_hash: String::new(),
        weights_hash: String::new(),
        total_parameters: Some(config.total_parameters()),
        active_parameters: Some(config.active_parameters()),
        weight_bytes: None,
        engine: if arguments.on_gpu.is_some() { "cuda" } else { "cpu" }.into(),
        precision: arguments.on_gpu.unwrap_or_default().to_string(),
        compute_dtype: arguments.on_gpu.unwrap_or_default().compute_dtype().to_string(),
        quantisation: None,
        router_dtype: "model".into(),
        hub: None,
        renormalised: None,
    };
    Ok(Plan::new(content, model, None, config.geometry().clone(), corpus))
}

fn load(arguments: &Arguments, cache: &Path) -> Result<Box<dyn Engine>> {
    let checkpoint = Checkpoint::open(&arguments.model, &CheckpointSettings::default())?;
    let Some(precision) = arguments.on_gpu else {
        return Ok(Box::new(CpuEngine::load(&checkpoint, &CpuSettings::default())?));
    };
    let toolkits: Vec<PathBuf> = std::env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    let libraries = Libraries::new(&toolkits, &[]);
    let device = Device::open(libraries.driver()?, 0)?;
    let compiler = Compiler::new(libraries.nvrtc()?, Some(cache));
    let gpu = Gpu { device, compiler, cublaslt: libraries.cublaslt()? };
    let tokens_per_pass = arguments.tokens_per_pass.max(arguments.length);
    let settings = CudaSettings { precision, tokens_per_pass, ..CudaSettings::default() };
    let config = ModelConfig::read(&arguments.model)?;
    let mut placement = Placement::resident(&config, tokens_per_pass);
    placement.longest_text = arguments.length;
    placement.layers.iter_mut().rev().take(arguments.streamed).for_each(|place| *place = Place::Host);
    Ok(Box::new(CudaEngine::load_placed(&checkpoint, &settings, &placement, gpu)?))
}

/// One run into a folder below OUT, with these passes broken off.
fn run(arguments: &Arguments, plan: &Plan, name: &str, break_off: &[usize]) -> Result<RunFolder> {
    let folder = RunFolder::new(arguments.out.join(name));
    let tokens_per_pass = arguments.tokens_per_pass;
    let device = if arguments.on_gpu.is_some() { "cuda:0" } else { "cpu" };
    let execution = Execution { tokens_per_pass, threads: 2, device: device.into() };
    let mut engine = Some(Forced {
        inner: load(arguments, &arguments.out.join("kernels"))?,
        break_off: break_off.into(),
        passes: 0,
        processor: arguments.on_gpu.is_none().then_some((tokens_per_pass, arguments.length)),
    });
    let run = Collect {
        fs: &RealFs,
        folder: &folder,
        plan,
        settings: Vec::new(),
        execution: &execution,
        metrics: MetricsSettings::default(),
        range: None,
        repair: false,
        vocabulary: None,
        process: None,
        holder: name,
        stop: &AtomicBool::new(false),
    };
    let again = || ModelError::OutOfMemory { what: "a second engine" };
    let mut load = || engine.take().map(|engine| Box::new(engine) as Box<dyn Engine>).ok_or_else(again);
    let outcome = collect(&run, &mut load, &mut |event| {
        if let RunEvent::Halved { shard, from, to, usage, why, .. } = event {
            println!(
                "{name}: {}: {why}: {from} to {to}, {} device bytes before",
                shard.name, usage.device_bytes
            );
        }
    })?;
    println!("{name}: {} of {} shards, halved: {:?}", outcome.committed, outcome.shards, outcome.halved);
    for shard in &plan.shards {
        let record = folder.commit(&shard.name)?.context("a shard is not committed")?;
        println!(
            "{name}: {}: {} passes of {} tokens, halved {} times, {:?}",
            record.shard, record.passes, record.execution.tokens_per_pass, record.halvings, record.usage
        );
    }
    Ok(folder)
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    if arguments.out.exists() {
        bail!("{} is there already; what is committed would not be run again", arguments.out.display());
    }
    let plan = plan(&arguments, &ModelConfig::read(&arguments.model)?)?;
    let whole = run(&arguments, &plan, "whole", &[])?;
    let forced = run(&arguments, &plan, "forced", &arguments.break_off)?;
    let report = compare(&whole, &forced, FidelitySettings::default(), Trust::Nothing)?.fidelity;
    let rows: u64 = report.layers.iter().map(|layer| layer.all.rows).sum();
    let others: u64 = report.layers.iter().map(|layer| layer.all.rows - layer.all.exact_sets).sum();
    println!("{others} of {rows} rows have other experts: {:.2e}", others as f64 / rows.max(1) as f64);
    let same = |shard: &moetrace_run::Shard| -> Result<bool> {
        let read = |folder: &RunFolder| folder.commit(&shard.name).map(|record| record.map(|r| r.files));
        Ok(read(&whole)? == read(&forced)?)
    };
    let same = plan.shards.iter().map(same).collect::<Result<Vec<_>>>()?;
    let alike = same.iter().filter(|same| **same).count();
    println!("{alike} of {} shards have the same bytes", plan.shards.len());
    Ok(())
}
