//! A run on a GPU: whether there is one for it, its settings, and the engine on it.

use moetrace_cuda::Architecture;
use moetrace_model::{
    Checkpoint, CpuSettings, CudaEngine, CudaMemoryPlan, CudaSettings, Engine, ModelConfig, ModelError,
};
use moetrace_routing::Planes;
use moetrace_run::{Execution, RunFolder};

use crate::args::CollectArgs;
use crate::device::{Asked, Choice, DeviceArg, Fit, FoundGpu, processor_instead};
use crate::failure::Failure;
use crate::prepare::{Settings, asked_tokens, cache};
use crate::progress::Progress;
use crate::show::bytes;

/// The GPU of a run.
pub(crate) struct OnGpu {
    /// Which.
    pub(crate) found: FoundGpu,
    /// How the run fits onto it.
    pub(crate) fit: Fit,
    settings: CudaSettings,
}

impl OnGpu {
    /// What is logged with each shard.
    pub(crate) fn execution(&self, threads: usize) -> Execution {
        let facts = &self.found.facts;
        let device = format!("cuda:{}, {}", facts.ordinal, facts.name);
        Execution { tokens_per_pass: self.fit.tokens_per_pass, threads, device }
    }

    /// Loads the model onto the GPU.
    pub(crate) fn load(&self, checkpoint: &Checkpoint) -> Result<Box<dyn Engine>, ModelError> {
        Ok(Box::new(CudaEngine::load(checkpoint, &self.settings, self.found.gpu()?)?))
    }
}

/// A run that may be done on a GPU.
pub(crate) struct RunOnGpu<'a> {
    pub(crate) args: &'a CollectArgs,
    pub(crate) config: &'a ModelConfig,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) cpu: &'a CpuSettings,
    pub(crate) max_length: usize,
}

impl RunOnGpu<'_> {
    /// The GPU, tried, with passes that fit; `None` where the processor computes.
    pub(crate) fn prepare(
        &self,
        folder: &RunFolder,
        settings: &mut Settings,
        progress: &Progress,
    ) -> Result<Option<OnGpu>, Failure> {
        let device = self.device(folder, settings);
        let limited = self.args.max_memory.and_then(|limit| limit.gpu);
        let kernels = cache().ok().map(|cache| cache.join("kernels"));
        let Choice { gpu, line } = Choice::new(device, limited, kernels.as_deref())?;
        if let Some(line) = line {
            progress.line(&line);
        }
        let on_gpu = match gpu {
            Some(found) => self.fitted(device, found, settings, progress)?,
            None => None,
        };
        match &on_gpu {
            Some(gpu) => self.tell(gpu, settings),
            None => self.tell_processor(settings),
        }
        Ok(on_gpu)
    }

    /// What was asked for; a run that the processor began is continued by it, unless another device is asked for.
    fn device(&self, folder: &RunFolder, settings: &mut Settings) -> DeviceArg {
        if self.args.device != DeviceArg::Auto || self.args.fresh {
            return self.args.device;
        }
        let begun_with = folder.manifest().ok().and_then(|manifest| manifest.identity.get("engine").cloned());
        if begun_with.as_deref() == Some("cpu") {
            settings.came_from("device", "manifest of the run");
            return DeviceArg::Cpu;
        }
        DeviceArg::Auto
    }

    /// The run on this GPU; `None` if nobody asked for a GPU and the model is too large for this one.
    fn fitted(
        &self,
        device: DeviceArg,
        found: FoundGpu,
        settings: &mut Settings,
        progress: &Progress,
    ) -> Result<Option<OnGpu>, Failure> {
        let args = self.args;
        let tokens = asked_tokens(args, self.max_length, settings);
        let asked =
            Asked { limit: args.max_memory, preset: args.preset, tokens, max_length: self.max_length };
        let mut cuda = self.settings();
        let architecture = found.architecture();
        let plan = self.plan(&cuda, architecture)?;
        let fit = CudaEngine::check(self.checkpoint, &cuda).map_err(Failure::from);
        let fit = match fit.and_then(|()| Fit::new(&plan, &found.facts, asked)) {
            Ok(fit) => fit,
            Err(too_large) if device == DeviceArg::Auto && asked.leaves_all_open() => {
                progress.line(&processor_instead(&too_large.what));
                return Ok(None);
            }
            Err(refused) => return Err(refused),
        };
        // A text that is longer than a pass is a pass of its own.
        cuda.tokens_per_pass = fit.tokens_per_pass.max(self.max_length);
        Ok(Some(OnGpu { found, fit, settings: cuda }))
    }

    fn plan(&self, cuda: &CudaSettings, architecture: Architecture) -> Result<CudaMemoryPlan<'_>, Failure> {
        Ok(CudaMemoryPlan::new(self.config, Some(self.checkpoint), cuda, architecture)?)
    }

    fn settings(&self) -> CudaSettings {
        let (cpu, args) = (self.cpu, self.args);
        CudaSettings {
            precision: cpu.precision,
            compute: cpu.compute,
            quantisation: cpu.quantisation,
            router_dtype: cpu.router_dtype,
            planes: Planes {
                logits: args.router_logits,
                shared_gate: true,
                hidden: args.hidden > 0,
                nll: args.nll,
            },
            ..CudaSettings::default()
        }
    }

    fn tell(&self, gpu: &OnGpu, settings: &mut Settings) {
        let (facts, fit) = (&gpu.found.facts, &gpu.fit);
        settings.resolve("device", format_args!("cuda:{}, {}", facts.ordinal, facts.name));
        settings.resolve("max-memory", bytes(fit.limit));
        if let Some(source) = &fit.limit_source {
            settings.came_from("max-memory", source);
        }
        settings.resolve("preset", fit.preset.map_or("none", |preset| preset.name));
        if self.args.preset.is_none() {
            settings.came_from("preset", "name of the GPU");
        }
        settings.resolve("tokens-per-pass", fit.tokens_per_pass);
        if self.args.tokens_per_pass.is_none() && self.args.batch_size.is_none() {
            settings.came_from("tokens-per-pass", "memory plan");
        }
    }

    fn tell_processor(&self, settings: &mut Settings) {
        settings.resolve("device", "cpu");
        settings.resolve("max-memory", "none: no GPU is used");
        if self.args.preset.is_none() {
            settings.resolve("preset", "none");
        }
    }
}
