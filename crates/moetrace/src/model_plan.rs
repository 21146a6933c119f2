//! How a model would be computed, decided before its texts are known and, for one of the Hub, before its weights are here.
//!
//! Every tensor's shape follows from `config.json`, and a checkpoint whose headers say otherwise is refused when it is
//! opened. So memory is laid out without asking the Hub for the header of each file, of which the largest models have more
//! than a hundred; and offline too.

use std::path::Path;

use moetrace_model::{
    Checkpoint, CheckpointSettings, ComputeDtype, CpuEngine, CpuSettings, ModelConfig, ModelError, Precision,
    Preset, RouterDtype, StorageType,
};
use moetrace_routing::WeightPrecision;
use moetrace_run::{ContentSettings, Execution, RunFolder};
use moetrace_trace::TraceColumns;

use crate::args::{CollectArgs, ComputeDtypeArg, PrecisionArg, RouterDtypeArg, Weights};
use crate::failure::Failure;
use crate::inputs::Inputs;
use crate::on_gpu::{OnGpu, RunOnGpu};
use crate::prepare::Settings;
use crate::progress::Progress;
use crate::quantisation::quantisation;

/// Tokens of a shard: some seconds to minutes of work, so that little is lost when a run is killed.
const CPU_SHARD_TOKENS: usize = 16_384;
const GPU_SHARD_TOKENS: usize = 262_144;

/// Tokens of a pass on the processor.
const CPU_PASS_TOKENS: usize = 4096;

/// Tokens that a text is cut at, unless a flag or a preset that was asked for says otherwise.
const MAX_LENGTH: usize = 512;

/// From so many bytes of files a parameter on, weights are in f32; 16-bit ones take little more than 2.
const F32_FROM: u64 = 3;

/// What is known of the weights.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    /// They are here.
    Here(&'a Checkpoint),
    /// The Hub lists files of so many bytes.
    Listed(u64),
}

impl Stored<'_> {
    /// The checkpoint, if it is here.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Self::Here(checkpoint) => Some(checkpoint),
            Self::Listed(_) => None,
        }
    }

    /// Whether they are in 4 bits, as the files or else the configuration have it.
    pub(crate) fn is_four_bit(&self, config: &ModelConfig) -> bool {
        self.checkpoint().map_or(config.is_four_bit(), Checkpoint::is_four_bit)
    }

    /// What they are held in unless a flag says otherwise: 4 bits if any tensor is in these, else what most bytes are
    /// stored in.
    fn precision(&self, config: &ModelConfig) -> Precision {
        if self.is_four_bit(config) {
            return Precision::Nf4;
        }
        match self {
            Self::Here(checkpoint) => precision_of(checkpoint),
            Self::Listed(bytes) if bytes / config.total_parameters().max(1) >= F32_FROM => Precision::F32,
            Self::Listed(_) if config.stored_type() == Some(StorageType::F16) => Precision::F16,
            Self::Listed(_) => Precision::Bf16,
        }
    }
}

/// How a model would be computed.
pub(crate) struct ModelPlan {
    /// The model's own numbers.
    pub(crate) config: ModelConfig,
    /// How it is computed; on a GPU the same in all that decides results.
    pub(crate) cpu: CpuSettings,
    /// The GPU, if one computes.
    pub(crate) gpu: Option<OnGpu>,
    /// Tokens that a text is cut at.
    pub(crate) max_length: usize,
    /// Passes and threads.
    pub(crate) execution: Execution,
    /// Where the run goes.
    pub(crate) folder: RunFolder,
    /// What it records.
    pub(crate) content: ContentSettings,
}

impl ModelPlan {
    /// From the configuration, what is known of the weights, and the arguments; `imagined` is the kind of a GPU that need
    /// not be here. What the engine would refuse is refused.
    pub(crate) fn new(
        args: &CollectArgs,
        inputs: &Inputs,
        (config, stored): (ModelConfig, Stored<'_>),
        imagined: Option<&'static Preset>,
        settings: &mut Settings,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let cpu = cpu_settings(args, &config, stored, settings)?;
        match stored {
            Stored::Here(checkpoint) => CpuEngine::check(checkpoint, &cpu)?,
            Stored::Listed(_) if config.is_four_bit() && cpu.precision != Precision::Nf4 => {
                let (dir, found) = (inputs.model.clone(), cpu.precision);
                return Err(ModelError::DensePrecision { dir, found }.into());
            }
            Stored::Listed(_) => {}
        }
        let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(inputs.short_name()));
        settings.resolve("out", out.display());
        let folder = RunFolder::new(out);
        let max_length = max_length(args, settings);
        let run = RunOnGpu { args, config: &config, stored, cpu: &cpu, max_length, imagined };
        let gpu = run.prepare(&folder, settings, progress)?;
        let content = content(args, &folder, (max_length, gpu.is_some()), settings);
        let execution = if let Some(gpu) = &gpu {
            gpu.execution(cpu.threads)
        } else {
            let tokens_per_pass = cpu_tokens_per_pass(args, max_length, settings);
            Execution { tokens_per_pass, threads: cpu.threads, device: "cpu".into() }
        };
        Ok(Self { config, cpu, gpu, max_length, execution, folder, content })
    }

    /// The same from what is here: the checkpoint, or what the Hub lists of it.
    pub(crate) fn ahead(
        args: &CollectArgs,
        inputs: &Inputs,
        imagined: Option<&'static Preset>,
        settings: &mut Settings,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let config = ModelConfig::read(&inputs.model)?;
        if let Some(bytes) = inputs.missing_weights() {
            return Self::new(args, inputs, (config, Stored::Listed(bytes)), imagined, settings, progress);
        }
        let checkpoint = Checkpoint::open(&inputs.model, &CheckpointSettings { mmap: !args.no_mmap })?;
        Self::new(args, inputs, (config, Stored::Here(&checkpoint)), imagined, settings, progress)
    }

    /// What computes, as manifests call it.
    pub(crate) fn engine(&self) -> &'static str {
        if self.gpu.is_some() { "cuda" } else { "cpu" }
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

fn cpu_settings(
    args: &CollectArgs,
    config: &ModelConfig,
    stored: Stored<'_>,
    settings: &mut Settings,
) -> Result<CpuSettings, Failure> {
    let precision = match args.precision {
        Some(PrecisionArg::Nf4) => Precision::Nf4,
        Some(PrecisionArg::Bf16) => Precision::Bf16,
        Some(PrecisionArg::F16) => Precision::F16,
        Some(PrecisionArg::F32) => Precision::F32,
        None => stored.precision(config),
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

/// What most bytes of a dense checkpoint are stored in.
fn precision_of(checkpoint: &Checkpoint) -> Precision {
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
