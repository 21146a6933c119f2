//! From arguments to a plan: model, tokenizer, texts, shards. Nothing is written but the cache.

use std::path::{Path, PathBuf};

use moetrace_corpus::{CorpusSettings, SourceSpec, TextTokenizer};
use moetrace_metrics::MetricsSettings;
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Engine, ModelConfig, ModelError, Precision,
    RouterDtype, StorageType,
};
use moetrace_routing::WeightPrecision;
use moetrace_run::{
    ContentSettings, Execution, ModelFacts, Plan, ResolvedSetting, RunFolder, TokenizerFacts,
};
use moetrace_trace::TraceColumns;

use crate::args::{CollectArgs, PrecisionArg, RouterDtypeArg, Weights};
use crate::embedded::{Embedded, MODEL_NAME};
use crate::failure::{Failure, code};
use crate::progress::Progress;

/// Tokens of a CPU shard: some seconds to minutes of work, so that little is lost when a run is killed.
const CPU_SHARD_TOKENS: usize = 16_384;

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
    /// How it is computed.
    pub(crate) cpu: CpuSettings,
    /// Its tokenizer.
    pub(crate) tokenizer: Option<TextTokenizer>,
    /// Every setting with its source, automatic ones resolved.
    pub(crate) settings: Vec<ResolvedSetting>,
}

impl Prepared {
    /// Reads what the arguments name.
    pub(crate) fn new(
        args: &CollectArgs,
        settings: Vec<ResolvedSetting>,
        progress: &mut Progress,
    ) -> Result<Self, Failure> {
        let mut settings = Settings(settings);
        let inputs = Inputs::find(args, &mut settings)?;
        let config = ModelConfig::read(&inputs.model).map_err(Failure::from)?;
        let checkpoint = Checkpoint::open(&inputs.model, &CheckpointSettings { mmap: !args.no_mmap })?;
        let tokenizer = open_tokenizer(&inputs.model)?;
        let cpu = cpu_settings(args, &checkpoint, &mut settings);
        let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&inputs.name));
        settings.resolve("out", out.display());
        let folder = RunFolder::new(out);
        let content = content(args, &folder, &mut settings);
        let specs: Vec<SourceSpec> =
            inputs.datasets.iter().map(|d| SourceSpec::parse(d)).collect::<Result<_, _>>()?;
        let corpus_settings = CorpusSettings {
            traces: args.traces,
            max_length: args.max_length,
            min_chars: args.min_chars,
            seed: args.seed,
            strict: args.strict,
            keep_text: !args.no_tokens,
            ..CorpusSettings::default()
        };
        let corpus = moetrace_corpus::plan(&specs, tokenizer.as_ref(), &corpus_settings, &mut |event| {
            progress.corpus(&event);
        })?;
        let facts = model_facts(&inputs.name, &config, &checkpoint, &cpu)?;
        let tokenizer_facts = tokenizer
            .as_ref()
            .map(|t| TokenizerFacts { hash: t.hash().to_owned(), bos_token_id: t.bos_id().map(|id| id.0) });
        let tokens_per_pass =
            args.batch_size.map_or(args.tokens_per_pass, |b| b.saturating_mul(args.max_length));
        settings.resolve("tokens-per-pass", tokens_per_pass);
        if args.batch_size.is_some() {
            settings.came_from("tokens-per-pass", "batch-size times max-length");
        }
        let execution = Execution { tokens_per_pass, threads: cpu.threads, device: "cpu".into() };
        let plan = Plan::new(content, facts, tokenizer_facts, config.geometry().clone(), corpus);
        let metrics = MetricsSettings { include_bos: false, seed: args.seed };
        Ok(Self {
            plan,
            folder,
            execution,
            metrics,
            config,
            checkpoint,
            cpu,
            tokenizer,
            settings: settings.0,
        })
    }

    /// Loads the model.
    pub(crate) fn load(&self) -> Result<Box<dyn Engine>, ModelError> {
        Ok(Box::new(CpuEngine::load(&self.checkpoint, &self.cpu)?))
    }
}

/// The list of settings, automatic values filled in as they are decided.
struct Settings(Vec<ResolvedSetting>);

impl Settings {
    fn resolve(&mut self, name: &str, value: impl std::fmt::Display) {
        if let Some(setting) = self.0.iter_mut().find(|s| s.name == name) {
            setting.value = value.to_string();
        }
    }

    fn came_from(&mut self, name: &str, source: &str) {
        if let Some(setting) = self.0.iter_mut().find(|s| s.name == name) {
            setting.source = source.into();
        }
    }
}

struct Inputs {
    name: String,
    model: PathBuf,
    datasets: Vec<String>,
}

impl Inputs {
    fn find(args: &CollectArgs, settings: &mut Settings) -> Result<Self, Failure> {
        let needs_embedded = args.model.is_none() || args.dataset.is_empty();
        let embedded = needs_embedded.then(|| Embedded::unpack(&cache()?)).transpose()?;
        let datasets = match &embedded {
            Some(embedded) if args.dataset.is_empty() => {
                settings.resolve("dataset", "the six that come with moetrace");
                embedded.datasets()
            }
            _ => args.dataset.clone(),
        };
        let (name, model) = match (&args.model, &embedded) {
            (Some(dir), _) => (model_name(dir), dir.clone()),
            (None, Some(embedded)) => {
                settings.resolve("model", format!("{MODEL_NAME}, which comes with moetrace"));
                (MODEL_NAME.to_owned(), embedded.model())
            }
            (None, None) => return Err(Failure::new(code::USAGE, "E-MODEL", "no model", "--model DIR")),
        };
        Ok(Self { name, model, datasets })
    }
}

/// The last part of the folder's name: where a model lies on this machine is nobody's business.
fn model_name(dir: &Path) -> String {
    let full = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

fn cache() -> Result<PathBuf, Failure> {
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

fn open_tokenizer(model: &Path) -> Result<Option<TextTokenizer>, Failure> {
    // Data sets of token ids need none; a text source without one is refused when it is planned.
    if model.join("tokenizer.json").exists() { Ok(Some(TextTokenizer::open(model)?)) } else { Ok(None) }
}

fn cpu_settings(args: &CollectArgs, checkpoint: &Checkpoint, settings: &mut Settings) -> CpuSettings {
    let precision = match args.precision {
        Some(PrecisionArg::Bf16) => Precision::Bf16,
        // The checkpoint's own precision, as most of its bytes are stored; f16 has no engine on the CPU yet.
        None if mostly_bf16(checkpoint) => Precision::Bf16,
        Some(PrecisionArg::F32) | None => Precision::F32,
    };
    let router_dtype = match args.router_dtype {
        RouterDtypeArg::Model => RouterDtype::Model,
        RouterDtypeArg::F32 => RouterDtype::F32,
    };
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(available);
    settings.resolve("precision", precision);
    settings.resolve("threads", threads);
    settings.resolve("device", "cpu");
    CpuSettings { precision, router_dtype, threads }
}

fn mostly_bf16(checkpoint: &Checkpoint) -> bool {
    let bf16: usize = checkpoint.tensors().filter(|t| t.storage == StorageType::Bf16).map(|t| t.bytes).sum();
    2 * bf16 as u64 > checkpoint.total_bytes()
}

fn content(args: &CollectArgs, folder: &RunFolder, settings: &mut Settings) -> ContentSettings {
    // A run keeps the shard size it was begun with, whatever this machine's default would be.
    let manifest = folder.manifest().ok().filter(|_| !args.fresh && args.shard_tokens.is_none());
    let begun_with = manifest.and_then(|m| m.identity.get("shard_tokens")?.parse().ok());
    let shard_tokens = args.shard_tokens.or(begun_with).unwrap_or(CPU_SHARD_TOKENS);
    settings.resolve("shard-tokens", shard_tokens);
    if begun_with.is_some() {
        settings.came_from("shard-tokens", "manifest of the run");
    }
    ContentSettings {
        traces: args.traces,
        max_length: args.max_length,
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
        },
        weights: match args.weights {
            Weights::F16 => WeightPrecision::Half,
            Weights::F32 => WeightPrecision::Full,
        },
        hidden_rows: args.hidden,
    }
}

fn model_facts(
    name: &str,
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    cpu: &CpuSettings,
) -> Result<ModelFacts, Failure> {
    let mut weights = blake3::Hasher::new();
    for file in checkpoint.files() {
        weights.update(hash(file)?.as_bytes());
    }
    Ok(ModelFacts {
        name: name.into(),
        revision: None,
        family: config.family().to_string(),
        config_hash: hash(&checkpoint.config_file())?.to_hex().to_string(),
        weights_hash: weights.finalize().to_hex().to_string(),
        total_parameters: config.total_parameters(),
        active_parameters: config.active_parameters(),
        engine: "cpu".into(),
        precision: cpu.precision.to_string(),
        router_dtype: cpu.router_dtype.to_string(),
    })
}

fn hash(path: &Path) -> Result<blake3::Hash, Failure> {
    let mut hasher = blake3::Hasher::new();
    std::fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher)).map_err(
        |error| {
            let what = format!("cannot read {}: {error}", path.display());
            Failure::new(code::IO, "E-MODEL", what, "check the file and its permissions")
        },
    )?;
    Ok(hasher.finalize())
}
