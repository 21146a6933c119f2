//! A model on the device: its weights, its buffers, and one pass after the other.

use std::collections::VecDeque;

use moetrace_cuda::{Element, Stopwatch, Timeline};
use moetrace_nf4::Target;
use moetrace_routing::{Planes, RoutingPlanes, RoutingSink, RoutingView, TokenBatch};

use super::arrange::Arrange;
use super::buffers::{Buffers, Extent, Hidden, Sizes};
use super::chunk::Chunk;
use super::load::Loader;
use super::operations::{Gpu, Operations};
use super::pass::Asked;
use super::placement::Placement;
use super::read::Reader;
use super::record::{LayerRouting, Pending};
use super::stream::Stream;
use super::weights::Weights;
use super::{CudaMemoryPlan, CudaSettings};
use crate::angles::Angles;
use crate::checkpoint::{Checkpoint, ExpertLayout};
use crate::cpu::{Probe, RouterRules};
use crate::{EngineUsage, ModelConfig, ModelError, Precision};

/// What a model is made of.
pub(super) struct Parts<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) config: &'a ModelConfig,
    pub(super) layouts: &'a [ExpertLayout],
    pub(super) settings: &'a CudaSettings,
    pub(super) placement: &'a Placement,
}

/// A model, whatever type it computes in.
pub(super) trait Run {
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
    fn usage(&self) -> EngineUsage;
    fn halve(&mut self) -> Result<Option<usize>, ModelError>;
}

/// A model that computes in `T`.
pub(super) struct Model<T> {
    pub(super) gpu: Gpu,
    pub(super) config: ModelConfig,
    pub(super) operations: Operations<T>,
    pub(super) weights: Weights<T>,
    pub(super) sizes: Sizes,
    pub(super) buffers: Buffers<T>,
    pub(super) angles: AngleTables,
    pub(super) planes: Planes,
    pub(super) longest_text: usize,
    /// What brings the weights that do not stay on the device.
    pub(super) stream: Option<Stream>,
    /// Of the pass.
    pub(super) chunks: Vec<Chunk>,
    /// Counts chunks whose hidden states came from the host.
    pub(super) turn: usize,
    /// The next of the lanes on which routing goes to the host.
    pub(super) lane: usize,
    /// Routing under way, in its order.
    pub(super) pending: VecDeque<Pending>,
    /// The layer whose chunks are coming.
    pub(super) layer: LayerRouting,
    pub(super) timeline: Timeline,
    pub(super) passes: Stopwatch,
    /// Milliseconds that passes waited for hidden states of buffers that were given back.
    pub(super) waited_before: f64,
}

/// What the tables of cosines and sines hold.
pub(super) struct AngleTables {
    pub(super) angles: Angles,
    /// Rows that are filled.
    pub(super) rows: usize,
    /// Whether row p is that of position p; else row n is that of the pass's row n.
    pub(super) by_position: bool,
}

impl<T: Element + Target> Model<T> {
    pub(super) fn load(parts: &Parts<'_>, gpu: Gpu) -> Result<Self, ModelError> {
        let Parts { checkpoint, config, layouts, settings, placement } = *parts;
        let planes = settings.planes;
        let compute = settings.precision.computing_in(settings.compute)?;
        let rules = RouterRules::new(config, compute, settings.router_dtype);
        let operations = Operations::new(&gpu, config, &rules, (settings.portable, planes.nll))?;
        let plan = CudaMemoryPlan::new(config, Some(checkpoint), settings, gpu.device.architecture())?;
        // A 4-bit checkpoint is taken as it stands: what it left dense stays dense.
        let quantises = settings.precision == Precision::Nf4 && !checkpoint.is_four_bit();
        let reader = Reader { checkpoint, config, quantisation: quantises.then_some(settings.quantisation) };
        let slot_bytes = usize::try_from(plan.slot_bytes(placement)).unwrap_or(usize::MAX);
        // Buffers are made when all is loaded; until then their memory is free for what is quantised.
        let loader = Loader::new(reader, &gpu, plan.memory_of(placement).buffers)?;
        let arrange = Arrange { loader, layouts, placement, losses: planes.nll, slot_bytes };
        let (weights, stream) = arrange.weights()?;
        let fused = operations.grouped.is_some();
        let sizes = Sizes::new(config, Extent::of(placement), weights.restored_elements(), (fused, planes));
        let buffers = Buffers::new(&gpu.device, config, &sizes)?;
        let angles = Angles::new(config.head_width(), config.rope_theta());
        Ok(Self {
            config: config.clone(),
            operations,
            weights,
            sizes,
            buffers,
            angles: AngleTables { angles, rows: 0, by_position: true },
            planes,
            longest_text: placement.longest_text,
            stream,
            chunks: Vec::new(),
            turn: 0,
            lane: 0,
            pending: VecDeque::new(),
            layer: LayerRouting::default(),
            timeline: Timeline::new(&gpu.device),
            passes: Stopwatch::new(&gpu.device),
            waited_before: 0.0,
            gpu,
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
        let (found, expected) = (batch.len(), self.sizes.extent.pass);
        if found > expected {
            return Err(ModelError::PassTooLarge { found, expected });
        }
        let lengths: Vec<usize> = batch.spans().iter().map(|span| span.len).collect();
        let (found, expected) = (lengths.iter().copied().max().unwrap_or(0), self.sizes.extent.chunk);
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
                sink.record(&RoutingView::new(geometry, ordinal, 0, RoutingPlanes::of_no_tokens())?)?;
            }
        } else {
            self.chunks = Chunk::cut(&lengths, expected);
            self.passes.begin()?;
            let mut asked = Asked { batch, planes, logits, probe };
            self.place(&asked, &lengths)?;
            self.layers(&mut asked, sink)?;
            self.passes.end()?;
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

    fn usage(&self) -> EngineUsage {
        let (slots, blobs, waited) = match &self.stream {
            Some(stream) => (stream.device_bytes(), stream.host_bytes(), stream.waited_ms()),
            None => (0, 0, 0.0),
        };
        let parked = match &self.buffers.stream {
            Hidden::Parked(parking) => parking.waited_ms(),
            Hidden::Device(_) => 0.0,
        };
        EngineUsage {
            device_bytes: self.weights.bytes() + slots + self.buffer_bytes(),
            host_bytes: self.weights.embedding.bytes().1
                + blobs
                + self.sizes.host_bytes(&self.config, size_of::<T>()),
            passes_ms: self.passes.total_ms(),
            waited_ms: waited + parked + self.waited_before,
        }
    }

    fn halve(&mut self) -> Result<Option<usize>, ModelError> {
        // The pass that failed may have left operations behind, which use the buffers.
        self.pending.clear();
        self.gpu.device.synchronise()?;
        let kept = (self.operations.grouped.is_some(), self.planes);
        // What takes most goes first: the least that stands in for all may else find no room.
        self.buffers.work = self.gpu.device.nothing();
        self.buffers.restored = self.gpu.device.nothing();
        if let Hidden::Parked(parking) = &self.buffers.stream {
            self.waited_before += parking.waited_ms();
        }
        while let Some(extent) = self.sizes.extent.halved(self.longest_text) {
            self.sizes = Sizes::new(&self.config, extent, self.sizes.restored, kept);
            self.angles.rows = 0;
            // The old ones go first, so that both need not fit.
            let least = Extent { pass: 1, chunk: 1, parked: false };
            self.buffers =
                Buffers::new(&self.gpu.device, &self.config, &Sizes::new(&self.config, least, 0, kept))?;
            match Buffers::new(&self.gpu.device, &self.config, &self.sizes) {
                Ok(buffers) => {
                    self.buffers = buffers;
                    return Ok(Some(self.sizes.extent.pass));
                }
                Err(error) if error.is_out_of_memory() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
