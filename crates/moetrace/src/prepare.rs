//! From inputs to a plan: model, tokenizer, texts, shards. Nothing is written but the cache.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use moetrace_corpus::{CorpusSettings, TextTokenizer};
use moetrace_metrics::MetricsSettings;
use moetrace_model::{
    Checkpoint, CheckpointSettings, ComputeDtype, CpuEngine, CpuSettings, Engine, ModelConfig, ModelError,
    Precision, Preset, RouterDtype, StorageType,
};
use moetrace_routing::{TokenId, WeightPrecision};
use moetrace_run::{
    ContentSettings, Execution, ModelFacts, Plan, ResolvedSetting, RunFolder, TokenizerFacts,
};
use moetrace_trace::TraceColumns;

use crate::args::{CollectArgs, ComputeDtypeArg, PrecisionArg, RouterDtypeArg, Weights};
use crate::failure::{Failure, code};
use crate::inputs::Inputs;
use crate::on_gpu::{OnGpu, RunOnGpu};
use crate::progress::Progress;
use crate::quantisation::{described, quantisation};
use crate::quantised_cache::{self, Wanted};

/// Tokens of a shard: some seconds to minutes of work, so that little is lost when a run is killed.
const CPU_SHARD_TOKENS: usize = 16_384;
const GPU_SHARD_TOKENS: usize = 262_144;

/// Tokens of a pass on the processor.
const CPU_PASS_TOKENS: usize = 4096;

/// Tokens that a text is cut at, unless a flag or a preset that was asked for says otherwise.
const MAX_LENGTH: usize = 512;

/// Everything a run needs, resolved.
pub(crate) struct Prepared {
    /// What to do.
    pub(crate) plan: Plan,
    /// Where.
    pub(crate) folder: RunFolder,
    /// How.
    pub(crate) execution: Execution,
    /// What to count.
    pub(crate) metrics: MetricsSettings,
    /// The model's own numbers.
    pub(crate) config: ModelConfig,
    /// The checked checkpoint.
    pub(crate) checkpoint: Checkpoint,
    /// How it is computed; on a GPU the same in all that decides results.
    pub(crate) cpu: CpuSettings,
    /// The GPU, if one computes.
    pub(crate) gpu: Option<OnGpu>,
    /// Its tokenizer.
    pub(crate) tokenizer: Option<TextTokenizer>,
    /// Every setting with its source, automatic ones resolved.
    pub(crate) settings: Vec<ResolvedSetting>,
}

impl Prepared {
    /// Reads what the arguments named, which is here by now.
    pub(crate) fn new(
        args: &CollectArgs,
        settings: Settings,
        inputs: Inputs,
        progress: &mut Progress,
    ) -> Result<Self, Failure> {
        Self::for_gpu(args, settings, inputs, None, progress)
    }

    /// The same for a GPU of a kind, which need not be here.
    pub(crate) fn for_gpu(
        args: &CollectArgs,
        mut settings: Settings,
        inputs: Inputs,
        imagined: Option<&'static Preset>,
        progress: &mut Progress,
    ) -> Result<Self, Failure> {
        let config = ModelConfig::read(&inputs.model).map_err(Failure::from)?;
        let checkpoint = Checkpoint::open(&inputs.model, &CheckpointSettings { mmap: !args.no_mmap })?;
        let tokenizer = open_tokenizer(&inputs.model)?;
        let cpu = cpu_settings(args, &checkpoint, &mut settings)?;
        CpuEngine::check(&checkpoint, &cpu)?;
        let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(inputs.short_name()));
        settings.resolve("out", out.display());
        let folder = RunFolder::new(out);
        let max_length = max_length(args, &mut settings);
        let run =
            RunOnGpu { args, config: &config, checkpoint: &checkpoint, cpu: &cpu, max_length, imagined };
        let gpu = run.prepare(&folder, &mut settings, progress)?;
        let content = content(args, &folder, (max_length, gpu.is_some()), &mut settings);
        let corpus_settings = CorpusSettings {
            traces: args.traces,
            max_length,
            min_chars: args.min_chars,
            seed: args.seed,
            strict: args.strict,
            keep_text: !args.no_tokens,
            vocabulary: Some(config.vocab()),
            bos: config.bos_token_id().map(TokenId),
            file_budget: args.file_budget,
            ..CorpusSettings::default()
        };
        let corpus =
            moetrace_corpus::plan(&inputs.sources, tokenizer.as_ref(), &corpus_settings, &mut |event| {
                progress.corpus(&event);
            })?;
        let engine = if gpu.is_some() { "cuda" } else { "cpu" };
        let facts = model_facts(&inputs, engine, &config, &checkpoint, &cpu)?;
        let tokenizer_facts = tokenizer
            .as_ref()
            .map(|t| TokenizerFacts { hash: t.hash().to_owned(), bos_token_id: t.bos_id().map(|id| id.0) });
        let execution = if let Some(gpu) = &gpu {
            gpu.execution(cpu.threads)
        } else {
            let tokens_per_pass = cpu_tokens_per_pass(args, max_length, &mut settings);
            Execution { tokens_per_pass, threads: cpu.threads, device: "cpu".into() }
        };
        let mut plan = Plan::new(content, facts, tokenizer_facts, config.geometry().clone(), corpus);
        plan.origins = inputs.origins;
        let metrics = MetricsSettings { include_bos: false, seed: args.seed };
        Ok(Self {
            plan,
            folder,
            execution,
            metrics,
            config,
            checkpoint,
            cpu,
            gpu,
            tokenizer,
            settings: settings.0,
        })
    }

    /// Before a dense checkpoint is loaded in 4 bits: says so, or takes the quantised form from the cache.
    pub(crate) fn quantised(&mut self, args: &CollectArgs, progress: &mut Progress) -> Result<(), Failure> {
        if self.cpu.precision != Precision::Nf4 || self.checkpoint.is_four_bit() {
            return Ok(());
        }
        if !args.cache_quantized {
            let model = crate::show::quoted(&self.checkpoint.dir().display().to_string());
            progress.line(&format!(
                "quantising on load; 'moetrace quantize {model} --out DIR' does it once, --cache-quantized keeps it"
            ));
            return Ok(());
        }
        let wanted = Wanted {
            model: self.checkpoint.dir(),
            facts: &self.plan.model,
            quantisation: self.cpu.quantisation,
            threads: self.cpu.threads,
        };
        let folder = quantised_cache::take(&cache()?, &wanted, progress)?;
        self.checkpoint = Checkpoint::open(&folder, &CheckpointSettings { mmap: !args.no_mmap })?;
        Ok(())
    }

    /// Loads the model.
    pub(crate) fn load(&self) -> Result<Box<dyn Engine>, ModelError> {
        match &self.gpu {
            Some(gpu) => gpu.load(&self.checkpoint),
            None => Ok(Box::new(CpuEngine::load(&self.checkpoint, &self.cpu)?)),
        }
    }
}

/// The size of a pass, given as tokens or as texts of full length.
pub(crate) fn asked_tokens(args: &CollectArgs, max_length: usize, settings: &mut Settings) -> Option<usize> {
    let Some(batch_size) = args.batch_size else { return args.tokens_per_pass };
    settings.came_from("tokens-per-pass", "batch-size times max-length");
    Some(batch_size.saturating_mul(max_length))
}

fn cpu_tokens_per_pass(args: &CollectArgs, max_length: usize, settings: &mut Settings) -> usize {
    let tokens = asked_tokens(args, max_length, settings).unwrap_or(CPU_PASS_TOKENS);
    settings.resolve("tokens-per-pass", tokens);
    tokens
}

/// A preset that was asked for sets the length; one that is known by a GPU's name does not, since a run's content must
/// not depend on the GPU at hand.
fn max_length(args: &CollectArgs, settings: &mut Settings) -> usize {
    let of_preset = args.preset.filter(|_| args.max_length.is_none());
    if let Some(preset) = of_preset {
        settings.came_from("max-length", &format!("preset {}", preset.name));
    }
    let length = args.max_length.or(of_preset.map(|preset| preset.max_length)).unwrap_or(MAX_LENGTH);
    settings.resolve("max-length", length);
    length
}

/// The list of settings, automatic values filled in as they are decided.
pub(crate) struct Settings(pub(crate) Vec<ResolvedSetting>);

impl Settings {
    pub(crate) fn resolve(&mut self, name: &str, value: impl std::fmt::Display) {
        if let Some(setting) = self.0.iter_mut().find(|s| s.name == name) {
            setting.value = value.to_string();
        }
    }

    pub(crate) fn came_from(&mut self, name: &str, source: &str) {
        if let Some(setting) = self.0.iter_mut().find(|s| s.name == name) {
            setting.source = source.into();
        }
    }
}

pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("MOETRACE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|c| c.join("moetrace")))
        .or_else(|| set("HOME").map(|h| h.join(".cache/moetrace")))
        .ok_or_else(|| {
            let what = "no cache folder: neither MOETRACE_CACHE nor XDG_CACHE_HOME nor HOME is set";
            Failure::new(
                code::NO_OUTPUT,
                "E-CACHE",
                what,
                "set MOETRACE_CACHE to a folder that can be written",
            )
        })
}

/// The model's tokenizer, if it has one.
pub(crate) fn open_tokenizer(model: &Path) -> Result<Option<TextTokenizer>, Failure> {
    // Data sets of token ids need none; a text source without one is refused when it is planned.
    if model.join("tokenizer.json").exists() { Ok(Some(TextTokenizer::open(model)?)) } else { Ok(None) }
}

fn cpu_settings(
    args: &CollectArgs,
    checkpoint: &Checkpoint,
    settings: &mut Settings,
) -> Result<CpuSettings, Failure> {
    let precision = match args.precision {
        Some(PrecisionArg::Nf4) => Precision::Nf4,
        Some(PrecisionArg::Bf16) => Precision::Bf16,
        Some(PrecisionArg::F16) => Precision::F16,
        Some(PrecisionArg::F32) => Precision::F32,
        None => own_precision(checkpoint),
    };
    let router_dtype = match args.router_dtype {
        RouterDtypeArg::Model => RouterDtype::Model,
        RouterDtypeArg::F32 => RouterDtype::F32,
    };
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(available);
    let compute = args.compute_dtype.map(|dtype| match dtype {
        ComputeDtypeArg::Bf16 => ComputeDtype::Bf16,
        ComputeDtypeArg::F16 => ComputeDtype::F16,
        ComputeDtypeArg::F32 => ComputeDtype::F32,
    });
    let quantisation = quantisation(&args.quantisation)?;
    let cpu = CpuSettings { precision, compute, quantisation, router_dtype, threads };
    settings.resolve("precision", precision);
    settings.resolve("compute-dtype", cpu.compute_dtype()?);
    settings.resolve("threads", threads);
    Ok(cpu)
}

/// 4 bits if any tensor has them; else what most bytes are stored in.
fn own_precision(checkpoint: &Checkpoint) -> Precision {
    if checkpoint.is_four_bit() {
        return Precision::Nf4;
    }
    let bytes = |storage| -> usize {
        checkpoint.tensors().filter(|tensor| tensor.storage == storage).map(|tensor| tensor.bytes).sum()
    };
    let (f32, bf16, f16) = (bytes(StorageType::F32), bytes(StorageType::Bf16), bytes(StorageType::F16));
    if bf16 > f32.max(f16) {
        Precision::Bf16
    } else if f16 > f32 {
        Precision::F16
    } else {
        Precision::F32
    }
}

fn content(
    args: &CollectArgs,
    folder: &RunFolder,
    (max_length, on_gpu): (usize, bool),
    settings: &mut Settings,
) -> ContentSettings {
    // A run keeps the shard size it was begun with, whatever this machine's default would be.
    let manifest = folder.manifest().ok().filter(|_| !args.fresh && args.shard_tokens.is_none());
    let begun_with = manifest.and_then(|m| m.identity.get("shard_tokens")?.parse().ok());
    let usual = if on_gpu { GPU_SHARD_TOKENS } else { CPU_SHARD_TOKENS };
    let shard_tokens = args.shard_tokens.or(begun_with).unwrap_or(usual);
    settings.resolve("shard-tokens", shard_tokens);
    if begun_with.is_some() {
        settings.came_from("shard-tokens", "manifest of the run");
    }
    ContentSettings {
        traces: args.traces,
        max_length,
        min_chars: args.min_chars,
        seed: args.seed,
        shard_tokens,
        columns: TraceColumns {
            token_ids: !args.no_tokens,
            text: !args.no_tokens,
            logits: args.router_logits,
            shared_gate: true,
            nll: args.nll,
            hidden: args.hidden > 0,
            ..TraceColumns::default()
        },
        weights: match args.weights {
            Weights::F16 => WeightPrecision::Half,
            Weights::F32 => WeightPrecision::Full,
        },
        hidden_rows: args.hidden,
    }
}

fn model_facts(
    inputs: &Inputs,
    engine: &str,
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    cpu: &CpuSettings,
) -> Result<ModelFacts, Failure> {
    let mut weights = blake3::Hasher::new();
    for file in checkpoint.files() {
        weights.update(hash(file)?.as_bytes());
    }
    Ok(ModelFacts {
        name: inputs.name.clone(),
        revision: inputs.model_hub.as_ref().map(|hub| hub.commit.clone()),
        family: config.family().to_string(),
        config_hash: hash(&checkpoint.config_file())?.to_hex().to_string(),
        weights_hash: weights.finalize().to_hex().to_string(),
        total_parameters: Some(config.total_parameters()),
        active_parameters: Some(config.active_parameters()),
        weight_bytes: Some(CpuEngine::memory_estimate(config, cpu).weights),
        engine: engine.into(),
        precision: cpu.precision.to_string(),
        compute_dtype: cpu.compute_dtype()?.to_string(),
        quantisation: match cpu.precision {
            Precision::Nf4 if checkpoint.is_four_bit() => Some("as the checkpoint is stored".into()),
            Precision::Nf4 => Some(described(cpu.quantisation)),
            _ => None,
        },
        router_dtype: cpu.router_dtype.to_string(),
        renormalised: Some(config.renormalises()),
        hub: inputs.model_hub.clone(),
    })
}

/// Bytes of a file that are hashed together, on all threads: a checkpoint of 30 GB is otherwise half a minute.
const HASHED_AT_ONCE: usize = 16 << 20;

/// The hash of a file.
pub(crate) fn hash(path: &Path) -> Result<blake3::Hash, Failure> {
    let hashed = || -> std::io::Result<blake3::Hash> {
        let (mut hasher, mut file) = (blake3::Hasher::new(), std::fs::File::open(path)?);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            (&mut file).take(HASHED_AT_ONCE as u64).read_to_end(&mut buffer)?;
            if buffer.is_empty() {
                return Ok(hasher.finalize());
            }
            hasher.update_rayon(&buffer);
        }
    };
    hashed().map_err(|error| {
        let what = format!("cannot read {}: {error}", path.display());
        Failure::new(code::IO, "E-MODEL", what, "check the file and its permissions")
    })
}
