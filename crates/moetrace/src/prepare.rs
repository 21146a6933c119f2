//! From inputs to a plan: model, tokenizer, texts, shards. Nothing is written but the cache.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use moetrace_corpus::{CorpusSettings, TextTokenizer};
use moetrace_metrics::MetricsSettings;
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Engine, ModelConfig, ModelError, Precision,
    Preset,
};
use moetrace_routing::TokenId;
use moetrace_run::{Execution, ModelFacts, Plan, ResolvedSetting, RunFolder, TokenizerFacts};

use crate::args::CollectArgs;
use crate::failure::{Failure, code};
use crate::inputs::{Inputs, corpus_settings};
use crate::model_plan::{ModelPlan, Stored};
use crate::on_gpu::OnGpu;
use crate::progress::Progress;
use crate::quantisation::described;
use crate::quantised_cache::{self, Wanted};

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
        let config = ModelConfig::read(&inputs.model)?;
        let checkpoint = Checkpoint::open(&inputs.model, &CheckpointSettings { mmap: !args.no_mmap })?;
        let tokenizer = open_tokenizer(&inputs.model)?;
        let known = (config, Stored::Here(&checkpoint));
        let model = ModelPlan::new(args, &inputs, known, imagined, &mut settings, progress)?;
        let corpus_settings = CorpusSettings {
            max_length: model.max_length,
            keep_text: !args.no_tokens,
            vocabulary: Some(model.config.vocab()),
            bos: model.config.bos_token_id().map(TokenId),
            ..corpus_settings(args)
        };
        let corpus =
            moetrace_corpus::plan(&inputs.sources, tokenizer.as_ref(), &corpus_settings, &mut |event| {
                progress.corpus(&event);
            })?;
        let facts = model_facts(&inputs, &model, &checkpoint)?;
        let tokenizer_facts = tokenizer
            .as_ref()
            .map(|t| TokenizerFacts { hash: t.hash().to_owned(), bos_token_id: t.bos_id().map(|id| id.0) });
        let ModelPlan { config, cpu, gpu, execution, folder, content, .. } = model;
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

fn model_facts(inputs: &Inputs, model: &ModelPlan, checkpoint: &Checkpoint) -> Result<ModelFacts, Failure> {
    let (config, cpu) = (&model.config, &model.cpu);
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
        engine: model.engine().into(),
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
