//! The CUDA engine: what the CPU engine defines, on an NVIDIA GPU.
//!
//! Values are rounded to the compute type at the same points, but for attention in bf16 and f16 at head widths 64 and
//! 128, whose probabilities are rounded before they are divided by their sum, and for gate and up, which are rounded
//! before they are multiplied where the library multiplies them. In f32 nothing is rounded: a mode to compare with.
//!
//! Nothing is allocated in a pass. The host queues operations ahead of the device and waits only for routing that
//! comes back, up to four layers later; for hidden states, if they are asked for; and where experts are multiplied one by
//! one for how many rows each got.

mod buffers;
mod feed_forward;
mod load;
mod memory;
mod moe;
mod operations;
mod origin;
mod pass;
mod places;
mod preset;
mod quantised;
mod read;
mod record;
mod sections;
mod stored;
mod weights;

use std::collections::VecDeque;

use half::{bf16, f16};
use moetrace_cuda::{CudaError, Element, Timeline};
use moetrace_nf4::Target;
use moetrace_routing::{
    ExpertId, Planes, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, TokenBatch,
};

use self::buffers::{Buffers, Sizes};
use self::load::Loader;
use self::operations::Operations;
use self::pass::Asked;
use self::read::Reader;
use self::record::Pending;
use self::weights::Weights;
use crate::angles::Angles;
use crate::checkpoint::{Checkpoint, ExpertLayout, check_precision};
use crate::cpu::{Probe, RouterRules};
use crate::{ComputeDtype, Engine, ModelConfig, ModelError, Precision, Quantisation, RouterDtype};

pub use self::memory::{CudaMemory, CudaMemoryPlan, LARGEST_PASS};
pub use self::operations::Gpu;
pub use self::preset::{PRESETS, Preset};

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
    /// Reads the configuration beside the checkpoint, compares every tensor with it, loads them all, and takes the
    /// memory of passes.
    ///
    /// # Errors
    /// As [`CpuEngine::load`](crate::CpuEngine::load); [`ModelError::Cuda`], above all where memory runs out.
    pub fn load(checkpoint: &Checkpoint, settings: &CudaSettings, gpu: Gpu) -> Result<Self, ModelError> {
        let config = ModelConfig::read(checkpoint.dir())?;
        let layouts = check(checkpoint, &config, settings)?;
        let parts = Parts { checkpoint, config: &config, layouts: &layouts, settings };
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
        check(checkpoint, &ModelConfig::read(checkpoint.dir())?, settings).map(drop)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it computes.
    pub fn settings(&self) -> &CudaSettings {
        &self.settings
    }

    /// Bytes of all weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    /// Bytes of all buffers that passes work in.
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
}

fn check(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    settings: &CudaSettings,
) -> Result<Vec<ExpertLayout>, ModelError> {
    settings.precision.computing_in(settings.compute)?;
    // What kernels hold in registers, and what algorithms were tried for.
    let limits = [
        ("experts of a layer", config.experts(), 512),
        ("experts of a token", config.chosen(), 32),
        ("the width of a head", config.head_width(), 256),
        ("tokens of a pass", settings.tokens_per_pass, LARGEST_PASS),
    ];
    for (what, found, limit) in limits {
        if found > limit {
            return Err(ModelError::GpuLimit { what, found, limit });
        }
    }
    check_precision(config, checkpoint, settings.precision)
}

/// What a model is made of.
struct Parts<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    layouts: &'a [ExpertLayout],
    settings: &'a CudaSettings,
}

/// A model, whatever type it computes in.
trait Run {
    fn run(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
        probe: Option<&mut dyn Probe>,
    ) -> Result<(), ModelError>;
    fn run_timed(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
    ) -> Result<Vec<(&'static str, f32)>, ModelError>;
    fn weight_bytes(&self) -> u64;
    fn buffer_bytes(&self) -> u64;
}

/// A model that computes in `T`.
struct Model<T> {
    gpu: Gpu,
    config: ModelConfig,
    operations: Operations<T>,
    weights: Weights<T>,
    sizes: Sizes,
    buffers: Buffers<T>,
    angles: AngleTables,
    planes: Planes,
    /// Layers whose routing is under way, in their order.
    pending: VecDeque<Pending>,
    timeline: Timeline,
    /// One layer's, kept for its memory.
    expert_ids: Vec<ExpertId>,
}

/// What the tables of cosines and sines hold.
struct AngleTables {
    angles: Angles,
    /// Rows that are filled.
    rows: usize,
    /// Whether row p is that of position p; else row n is that of the pass's row n.
    by_position: bool,
}

impl<T: Element + Target> Model<T> {
    fn load(parts: &Parts<'_>, gpu: Gpu) -> Result<Self, ModelError> {
        let Parts { checkpoint, config, layouts, settings } = *parts;
        let (tokens, planes) = (settings.tokens_per_pass.max(1), settings.planes);
        let compute = settings.precision.computing_in(settings.compute)?;
        let rules = RouterRules::new(config, compute, settings.router_dtype);
        let operations = Operations::new(&gpu, config, &rules, (settings.portable, planes.nll))?;
        // A 4-bit checkpoint is taken as it stands: what it left dense stays dense.
        let quantises = settings.precision == Precision::Nf4 && !checkpoint.is_four_bit();
        let reader = Reader { checkpoint, config, quantisation: quantises.then_some(settings.quantisation) };
        let weights = Loader::new(reader, &gpu)?.weights(layouts, planes.nll)?;
        let fused = operations.grouped.is_some();
        let sizes = Sizes::new(config, tokens, weights.restored_elements(), (fused, planes));
        let buffers = Buffers::new(&gpu.device, config, &sizes)?;
        let angles = Angles::new(config.head_width(), config.rope_theta());
        let angles = AngleTables { angles, rows: 0, by_position: true };
        let config = config.clone();
        let (pending, expert_ids) = (VecDeque::new(), Vec::with_capacity(tokens * config.chosen()));
        let timeline = Timeline::new(&gpu.device);
        Ok(Self {
            gpu,
            config,
            operations,
            weights,
            sizes,
            buffers,
            angles,
            planes,
            pending,
            timeline,
            expert_ids,
        })
    }
}

impl<T: Element + Target> Run for Model<T> {
    fn run(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
        probe: Option<&mut dyn Probe>,
    ) -> Result<(), ModelError> {
        let vocab = self.config.vocab();
        if let Some(row) = batch.token_ids().iter().position(|id| id.index() >= vocab) {
            return Err(ModelError::TokenRange { row, found: batch.token_ids()[row].0, vocab });
        }
        let (found, expected) = (batch.len(), self.sizes.tokens);
        if found > expected {
            return Err(ModelError::PassTooLarge { found, expected });
        }
        let planes = sink.wants();
        let logits = planes.logits || probe.is_some();
        if (planes.nll || probe.is_some()) && !self.planes.nll {
            return Err(ModelError::NotPlanned { what: "losses" });
        }
        if logits && !self.planes.logits {
            return Err(ModelError::NotPlanned { what: "router logits" });
        }
        sink.begin(batch)?;
        if batch.is_empty() {
            let geometry = self.config.geometry();
            for ordinal in geometry.ordinals() {
                sink.record(&RoutingView::new(geometry, ordinal, 0, RoutingPlanes::default())?)?;
            }
        } else {
            self.place(batch)?;
            self.layers(&mut Asked { batch, planes, logits, probe }, sink)?;
        }
        Ok(sink.end()?)
    }

    fn run_timed(
        &mut self,
        batch: &TokenBatch,
        sink: &mut dyn RoutingSink,
    ) -> Result<Vec<(&'static str, f32)>, ModelError> {
        self.timeline.begin()?;
        let ran = self.run(batch, sink, None);
        let stages = self.timeline.end();
        ran?;
        Ok(stages?)
    }

    fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    fn buffer_bytes(&self) -> u64 {
        self.sizes.bytes(&self.config, size_of::<T>())
    }
}

impl<T: Element> Model<T> {
    /// Puts a batch's tokens, spans and positions onto the device, and embeds the tokens.
    fn place(&mut self, batch: &TokenBatch) -> Result<(), CudaError> {
        let (n, d) = (batch.len(), self.config.hidden());
        // A pass that failed may have left some.
        self.pending.clear();
        let (device, buffers) = (&self.gpu.device, &mut self.buffers);
        let ids: Vec<u32> = batch.token_ids().iter().map(|id| id.0).collect();
        device.write(&ids, &mut buffers.ids.part_mut(0..n)?)?;
        device.write(&[0, n as u32], &mut buffers.whole.all_mut())?;
        let lengths: Vec<usize> = batch.spans().iter().map(|span| span.len).collect();
        buffers.sequences.set(device, &lengths)?;
        let stream = &mut buffers.stream.part_mut(0..n * d)?;
        self.operations.gather.run(self.weights.embedding.all(), d, buffers.ids.part(0..n)?, stream)?;
        self.place_angles(batch.positions())
    }

    /// Tables by position where all positions fit into them, as they do unless positions jump; else by row.
    fn place_angles(&mut self, positions: &[u32]) -> Result<(), CudaError> {
        let (n, room) = (positions.len(), self.sizes.tokens);
        let needed = positions.iter().max().map_or(0, |last| *last as usize + 1);
        let by_position = needed <= room;
        let rows = if by_position { needed } else { n };
        let numbers: Vec<u32> = if by_position { positions.to_vec() } else { (0..n as u32).collect() };
        self.gpu.device.write(&numbers, &mut self.buffers.positions.part_mut(0..n)?)?;
        if by_position && self.angles.by_position && rows <= self.angles.rows {
            return Ok(());
        }
        let at = |row: usize| if by_position { row as u32 } else { positions[row] };
        let table = |of: fn(f32) -> f32| -> Vec<T> {
            let angles = &self.angles.angles;
            (0..rows).flat_map(|row| angles.at(at(row)).map(move |angle| T::narrow(of(angle)))).collect()
        };
        let (cosines, sines) = (table(f32::cos), table(f32::sin));
        let device = &self.gpu.device;
        device.write(&cosines, &mut self.buffers.cosines.part_mut(0..cosines.len())?)?;
        device.write(&sines, &mut self.buffers.sines.part_mut(0..sines.len())?)?;
        (self.angles.rows, self.angles.by_position) = (rows, by_position);
        Ok(())
    }
}
