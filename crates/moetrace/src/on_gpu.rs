//! A run on a GPU: whether there is one for it, its settings, and the engine on it.

use std::path::Path;

use moetrace_cuda::Architecture;
use moetrace_model::{
    Checkpoint, CpuSettings, CudaEngine, CudaMemoryPlan, CudaSettings, Engine, ModelConfig, ModelError,
    Offload, Precision, Preset, Quantisation,
};
use moetrace_routing::Planes;
use moetrace_run::{Execution, RunFolder};

use crate::args::CollectArgs;
use crate::device::{
    Asked, Choice, DeviceArg, DeviceMap, Fit, FoundGpu, GpuFacts, HostMemory, imagined, processor_instead,
};
use crate::failure::{Failure, code};
use crate::model_plan::{Stored, asked_tokens};
use crate::prepare::{Settings, cache};
use crate::progress::Progress;
use crate::show::bytes;

/// The GPU of a run.
pub(crate) struct OnGpu {
    /// What is known of it.
    pub(crate) facts: GpuFacts,
    /// How the run fits onto it.
    pub(crate) fit: Fit,
    /// The GPU itself; none where a plan is made for one that is not here.
    found: Option<FoundGpu>,
    settings: CudaSettings,
}

impl OnGpu {
    /// Whether it is here.
    pub(crate) fn is_here(&self) -> bool {
        self.found.is_some()
    }

    /// What is logged with each shard.
    pub(crate) fn execution(&self, threads: usize) -> Execution {
        let device = format!("cuda:{}, {}", self.facts.ordinal, self.facts.name);
        Execution { tokens_per_pass: self.fit.tokens_per_pass, threads, device }
    }

    /// Loads the model onto the GPU.
    pub(crate) fn load(&self, checkpoint: &Checkpoint) -> Result<Box<dyn Engine>, ModelError> {
        let found = self.found.as_ref().ok_or(ModelError::NotPlanned { what: "a GPU that is not here" })?;
        let engine = CudaEngine::load_placed(checkpoint, &self.settings, &self.fit.placement, found.gpu()?)?;
        Ok(Box::new(engine))
    }
}

/// A run that may be done on a GPU.
pub(crate) struct RunOnGpu<'a> {
    pub(crate) args: &'a CollectArgs,
    pub(crate) config: &'a ModelConfig,
    pub(crate) stored: Stored<'a>,
    pub(crate) cpu: &'a CpuSettings,
    pub(crate) max_length: usize,
    /// The kind of a GPU that need not be here, for a plan.
    pub(crate) imagined: Option<&'static Preset>,
}

impl RunOnGpu<'_> {
    /// The GPU, tried, with passes that fit; `None` where the processor computes.
    pub(crate) fn prepare(
        &self,
        folder: &RunFolder,
        settings: &mut Settings,
        progress: &Progress,
    ) -> Result<Option<OnGpu>, Failure> {
        let map = self.device_map()?;
        if let Some(preset) = self.imagined {
            let asked = self.asked(&map, settings);
            // The card decides speed and memory; limits are those of a preset that was asked for beside it.
            let asked = Asked { preset: asked.preset.or(Some(preset)), ..asked };
            let (facts, cuda) = (imagined(preset), self.settings());
            let fit = self.fit(&facts, preset.architecture, &cuda, asked)?;
            let gpu = OnGpu { facts, fit, found: None, settings: cuda };
            self.tell(&gpu, settings);
            return Ok(Some(gpu));
        }
        let device = self.device(folder, settings);
        let limited = self.args.max_memory.and_then(|limits| limits.gpu);
        let kernels = cache().ok().map(|cache| cache.join("kernels"));
        let Choice { gpu, line } = Choice::new(device, limited, kernels.as_deref())?;
        if let Some(line) = line {
            progress.line(&line);
        }
        let on_gpu = match gpu {
            Some(found) => self.fitted(device, found, self.asked(&map, settings), progress)?,
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

    /// `--device-map`, and `--cpu-offload` for the layers that it does not name.
    fn device_map(&self) -> Result<DeviceMap, Failure> {
        let text = self.args.device_map.as_deref().unwrap_or("auto");
        let mut map = DeviceMap::read(text, self.config).map_err(|why| {
            let help = "docs/memory.md shows each form; --device-map auto leaves it to the plan";
            Failure::new(code::USAGE, "E-SETTING", format!("--device-map: {why}"), help)
        })?;
        if self.args.cpu_offload && map.offload == Offload::Never {
            let what = "--cpu-offload keeps layers off the GPU, --device-map cuda on it; both were given";
            return Err(Failure::new(code::USAGE, "E-USAGE", what, "leave one of the two out"));
        }
        if self.args.cpu_offload {
            map.offload = Offload::Always;
        }
        Ok(map)
    }

    fn asked<'m>(&self, map: &'m DeviceMap, settings: &mut Settings) -> Asked<'m> {
        let args = self.args;
        // What is quantised on load is in no file, unless it is kept.
        let quantises = self.cpu.precision == Precision::Nf4 && !self.stored.is_four_bit(self.config);
        Asked {
            limits: args.max_memory,
            preset: args.preset,
            tokens: asked_tokens(args, self.max_length, settings),
            max_length: self.max_length,
            map,
            holds_layers: *map != DeviceMap::default(),
            reads_disk: !quantises || args.cache_quantized,
            host: HostMemory::read(Path::new("/")),
        }
    }

    /// The run on this GPU; `None` if nobody asked for a GPU and the model is too large for this one.
    fn fitted(
        &self,
        device: DeviceArg,
        found: FoundGpu,
        asked: Asked<'_>,
        progress: &Progress,
    ) -> Result<Option<OnGpu>, Failure> {
        let cuda = self.settings();
        let fit = match self.fit(&found.facts, found.architecture(), &cuda, asked) {
            Ok(fit) => fit,
            Err(too_large) if device == DeviceArg::Auto && asked.leaves_all_open() => {
                progress.line(&processor_instead(&too_large.what));
                return Ok(None);
            }
            Err(refused) => return Err(refused),
        };
        Ok(Some(OnGpu { facts: found.facts.clone(), fit, found: Some(found), settings: cuda }))
    }

    fn fit(
        &self,
        facts: &GpuFacts,
        architecture: Architecture,
        cuda: &CudaSettings,
        asked: Asked<'_>,
    ) -> Result<Fit, Failure> {
        let checkpoint = self.stored.checkpoint();
        if let Some(checkpoint) = checkpoint {
            CudaEngine::check(checkpoint, cuda)?;
        }
        let plan = CudaMemoryPlan::new(self.config, checkpoint, cuda, architecture)?;
        Fit::new(&plan, facts, asked)
    }

    fn settings(&self) -> CudaSettings {
        let (cpu, args) = (self.cpu, self.args);
        let mut quantisation = cpu.quantisation;
        if self.stored.checkpoint().is_none() && self.config.is_four_bit() {
            // The files will say how they are quantised; till then the configuration does.
            quantisation = Quantisation::default();
            quantisation.nf4.double_quant = self.config.has_double_quantised_scales();
        }
        CudaSettings {
            precision: cpu.precision,
            compute: cpu.compute,
            quantisation,
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
        let (facts, fit) = (&gpu.facts, &gpu.fit);
        settings.resolve("device", format_args!("cuda:{}, {}", facts.ordinal, facts.name));
        let limits = &fit.limits;
        let host = if limits.host == u64::MAX { "no bound".to_owned() } else { bytes(limits.host) };
        settings.resolve("max-memory", format_args!("gpu={}, cpu={host}", bytes(limits.device)));
        // What a flag sets for one of them keeps its source there.
        if limits.device_by.is_some() || limits.host_by.is_some() {
            let source = format!("gpu: {}, cpu: {}", limits.device_source(), limits.host_source());
            settings.came_from("max-memory", &source);
        }
        settings.resolve("preset", fit.preset.map_or("none", |preset| preset.name));
        if self.args.preset.is_none() {
            settings.came_from("preset", "name of the GPU");
        }
        settings.resolve("tokens-per-pass", fit.tokens_per_pass);
        let asked = self.args.tokens_per_pass.is_some() || self.args.batch_size.is_some();
        if !asked || fit.placement.expert_groups > 1 {
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
