//! The engine as its users see it, whatever type it computes in.

use half::{bf16, f16};
use moetrace_routing::{Planes, RoutingGeometry, RoutingSink, TokenBatch};

use super::memory::LARGEST_PASS;
use super::model::{Model, Parts, Run};
use super::operations::Gpu;
use super::placement::Placement;
use crate::checkpoint::{Checkpoint, ExpertLayout, check_precision};
use crate::cpu::Probe;
use crate::{
    ComputeDtype, Engine, EngineUsage, ModelConfig, ModelError, Precision, Quantisation, RouterDtype,
};

/// How the CUDA engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaSettings {
    /// How the weights are held.
    pub precision: Precision,
    /// The type of activations; [`Precision::compute_dtype`] unless given. Another than the weights' own is
    /// possible with 4-bit weights only.
    pub compute: Option<ComputeDtype>,
    /// How a dense checkpoint is quantised under [`Precision::Nf4`].
    pub quantisation: Quantisation,
    /// In what type the router computes.
    pub router_dtype: RouterDtype,
    /// Most tokens of a pass: all memory is taken for them, once.
    pub tokens_per_pass: usize,
    /// What sinks may ask for: losses take the language-model head, logits room.
    pub planes: Planes,
    /// Whether to use only kernels that every supported GPU has, as if this one were no H100: slower, to compare with.
    pub portable: bool,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            compute: None,
            quantisation: Quantisation::default(),
            router_dtype: RouterDtype::default(),
            tokens_per_pass: 16_384,
            planes: Planes::default(),
            portable: false,
        }
    }
}

/// A model on a GPU.
pub struct CudaEngine {
    config: ModelConfig,
    settings: CudaSettings,
    model: Box<dyn Run>,
}

impl std::fmt::Debug for CudaEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaEngine")
            .field("config", &self.config)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl CudaEngine {
    /// With all weights on the device, for passes of [`CudaSettings::tokens_per_pass`]: reads the configuration beside
    /// the checkpoint, compares every tensor with it, loads them all, and takes the memory of passes.
    ///
    /// # Errors
    /// As [`CpuEngine::load`](crate::CpuEngine::load); [`ModelError::Cuda`], above all where memory runs out.
    pub fn load(checkpoint: &Checkpoint, settings: &CudaSettings, gpu: Gpu) -> Result<Self, ModelError> {
        let config = ModelConfig::read(checkpoint.dir())?;
        Self::load_placed(checkpoint, settings, &Placement::resident(&config, settings.tokens_per_pass), gpu)
    }

    /// The same with weights and hidden states where `placement` says, which also says how large passes are.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`ModelError::NotPlanned`] for weights on disk that would be quantised when they are
    /// loaded, and for experts that come in groups to more than one chunk of a pass.
    pub fn load_placed(
        checkpoint: &Checkpoint,
        settings: &CudaSettings,
        placement: &Placement,
        gpu: Gpu,
    ) -> Result<Self, ModelError> {
        let config = ModelConfig::read(checkpoint.dir())?;
        let layouts = check(checkpoint, &config, settings, placement.tokens_per_chunk)?;
        let in_chunks = placement.tokens_per_chunk < placement.tokens_per_pass;
        if in_chunks && placement.expert_groups > 1 && !placement.is_resident() {
            return Err(ModelError::NotPlanned { what: "chunks of passes whose experts come in groups" });
        }
        let parts = Parts { checkpoint, config: &config, layouts: &layouts, settings, placement };
        let model: Box<dyn Run> = match settings.precision.computing_in(settings.compute)? {
            ComputeDtype::F32 => Box::new(Model::<f32>::load(&parts, gpu)?),
            ComputeDtype::Bf16 => Box::new(Model::<bf16>::load(&parts, gpu)?),
            ComputeDtype::F16 => Box::new(Model::<f16>::load(&parts, gpu)?),
        };
        Ok(Self { config, settings: *settings, model })
    }

    /// Compares configuration, headers and settings as [`load`](Self::load) does, and reads no weight.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for what only a tensor's values or the GPU can show.
    pub fn check(checkpoint: &Checkpoint, settings: &CudaSettings) -> Result<(), ModelError> {
        check(checkpoint, &ModelConfig::read(checkpoint.dir())?, settings, 1).map(drop)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it computes.
    pub fn settings(&self) -> &CudaSettings {
        &self.settings
    }

    /// Bytes of the weights that stay on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    /// Bytes of all buffers on the device that passes work in.
    pub fn buffer_bytes(&self) -> u64 {
        self.model.buffer_bytes()
    }

    /// As [`Engine::run`], and shows `probe` the intermediate tensors (router scores aside); computes the whole model,
    /// so [`CudaSettings::planes`] must have losses and logits.
    ///
    /// # Errors
    /// As [`Engine::run`]; [`ModelError::NotPlanned`].
    pub fn run_with_probe(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
        probe: &mut dyn Probe,
    ) -> Result<(), ModelError> {
        self.model.run(batch, sink, Some(probe))
    }
}

impl CudaEngine {
    /// As [`Engine::run`], and says how many milliseconds each stage took on the device, all layers together. Marks
    /// between stages cost some microseconds each.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_timed(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
    ) -> Result<Vec<(&'static str, f32)>, ModelError> {
        self.model.run_timed(batch, sink)
    }
}

impl Engine for CudaEngine {
    fn geometry(&self) -> &RoutingGeometry {
        self.config.geometry()
    }

    fn run(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), ModelError> {
        self.model.run(batch, sink, None)
    }

    fn usage(&self) -> EngineUsage {
        self.model.usage()
    }

    fn halve(&mut self) -> Result<Option<usize>, ModelError> {
        self.model.halve()
    }
}

fn check(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    settings: &CudaSettings,
    tokens_per_chunk: usize,
) -> Result<Vec<ExpertLayout>, ModelError> {
    settings.precision.computing_in(settings.compute)?;
    // What kernels hold in registers, and what algorithms were tried for.
    let limits = [
        ("experts of a layer", config.experts(), 512),
        ("experts of a token", config.chosen(), 32),
        ("the width of a head", config.head_width(), 256),
        ("tokens that are computed at once", tokens_per_chunk, LARGEST_PASS),
    ];
    for (what, found, limit) in limits {
        if found > limit {
            return Err(ModelError::GpuLimit { what, found, limit });
        }
    }
    check_precision(config, checkpoint, settings.precision)
}
