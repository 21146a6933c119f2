//! What the CUDA engine will hold, before it holds it: from shapes, without a GPU.

use half::{bf16, f16};
use moetrace_cuda::{Architecture, Element, GroupedProduct};

use super::CudaSettings;
use super::arrange::SLOTS;
use super::buffers::{Extent, Sizes};
use super::placement::{Place, Placement};
use super::read_ahead::STAGES;
use crate::checkpoint::{
    Checkpoint, ExpertLayout, StorageType, TensorRole, expert_layouts, for_each_expected,
};
use crate::{ComputeDtype, ModelConfig, ModelError, Precision};

/// Most tokens that a layer computes at once, in a chunk or a pass in one piece: every product's algorithm is asked whether
/// it takes that many rows.
pub const LARGEST_PASS: usize = 65_536;

/// What passes and chunks of automatic size are a multiple of: four tiles of attention.
pub(super) const PASS_STEP: usize = 512;

/// Bytes that no plan counts one by one: the context, kernels, cuBLAS's own memory, and what allocations are rounded up
/// to. With DeepSeek-MoE-16B in 4 bits and bf16 an H200 had 0.56 to 0.60 GB more in use than weights, slots and buffers
/// take, whatever the placement (`examples/cuda_placed.rs`); other cards have smaller contexts. The rest is for kernels
/// that other drivers load larger.
const CONTEXT_RESERVE: u64 = 700_000_000;

/// Bytes, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaMemory {
    /// Weights that stay on the device, as they are held.
    pub weights: u64,
    /// Room on the device that the other weights take turns in.
    pub slots: u64,
    /// Buffers that passes work in, hidden states among them.
    pub buffers: u64,
    /// CUDA's own, and what allocations are rounded up to.
    pub context_reserve: u64,
    /// Page-locked host memory: weights and hidden states that wait there.
    pub host: u64,
    /// Weights that are read from the checkpoint's files in every pass.
    pub disk: u64,
}

impl CudaMemory {
    /// All of it that is on the device.
    pub fn total(&self) -> u64 {
        let held = self.weights.saturating_add(self.slots);
        held.saturating_add(self.buffers).saturating_add(self.context_reserve)
    }
}

/// Bytes of the weights of one decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerBytes {
    /// Attention, norms, router, shared or dense block.
    pub front: u64,
    /// Routed experts; 0 in a dense layer.
    pub experts: u64,
}

impl LayerBytes {
    /// All of it.
    pub fn total(self) -> u64 {
        self.front.saturating_add(self.experts)
    }
}

/// Bytes of all weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightBytes {
    /// Token embedding.
    pub embedding: u64,
    /// Each decoder layer; nothing of what no pass needs.
    pub layers: Vec<LayerBytes>,
    /// Final norm, and the language-model head if losses are wanted: always on the device.
    pub rest: u64,
}

impl WeightBytes {
    /// All of it.
    pub fn total(&self) -> u64 {
        let layers = self.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.total()));
        self.embedding.saturating_add(layers).saturating_add(self.rest)
    }
}

/// What the engine takes for a model, for passes of any size.
#[derive(Debug, Clone)]
pub struct CudaMemoryPlan<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) settings: CudaSettings,
    weights: WeightBytes,
    /// Bytes of an activation.
    pub(super) element: usize,
    /// Whether matrices are restored from 4 bits.
    four_bit: bool,
    /// Whether all experts of a layer are multiplied in one launch.
    grouped: bool,
}

impl<'a> CudaMemoryPlan<'a> {
    /// For a GPU of an architecture. `checkpoint` tells how tensors that it stores in 4 bits are quantised; without one,
    /// the settings do.
    ///
    /// # Errors
    /// [`ModelError::ComputeDtype`].
    pub fn new(
        config: &'a ModelConfig,
        checkpoint: Option<&Checkpoint>,
        settings: &CudaSettings,
        architecture: Architecture,
    ) -> Result<Self, ModelError> {
        let compute = settings.precision.computing_in(settings.compute)?;
        let (element, grouped) = match compute {
            ComputeDtype::F32 => (4, multiplies_grouped::<f32>(config, architecture)),
            ComputeDtype::Bf16 => (2, multiplies_grouped::<bf16>(config, architecture)),
            ComputeDtype::F16 => (2, multiplies_grouped::<f16>(config, architecture)),
        };
        let four_bit = settings.precision == Precision::Nf4;
        Ok(Self {
            config,
            settings: *settings,
            weights: weights(config, checkpoint, settings, element as u64)?,
            four_bit,
            element,
            grouped,
        })
    }

    /// The weights.
    pub fn weights(&self) -> &WeightBytes {
        &self.weights
    }

    /// For passes of at most `tokens` with all weights on the device; those beyond [`LARGEST_PASS`] are counted as that
    /// many.
    pub fn memory(&self, tokens: usize) -> CudaMemory {
        self.memory_of(&Placement::resident(self.config, tokens.clamp(1, LARGEST_PASS)))
    }

    /// For a placement, with as many layers as the model has.
    pub fn memory_of(&self, placement: &Placement) -> CudaMemory {
        let extent = Extent::of(placement);
        let restored =
            if self.four_bit { restored_elements(self.config, placement.expert_groups) } else { 0 };
        let sizes = Sizes::new(self.config, extent, restored, (self.grouped, self.settings.planes));
        let mut memory = CudaMemory {
            weights: self.weights.rest,
            slots: 0,
            buffers: sizes.bytes(self.config, self.element),
            context_reserve: CONTEXT_RESERVE,
            host: sizes.host_bytes(self.config, self.element),
            disk: 0,
        };
        let embedding = self.weights.embedding;
        let as_head = self.settings.planes.nll && self.config.has_tied_head();
        let on_device = placement.embedding == Place::Device || as_head;
        let held = if on_device { &mut memory.weights } else { &mut memory.host };
        *held = held.saturating_add(embedding);
        for (bytes, place) in self.weights.layers.iter().zip(&placement.layers) {
            let held = match place {
                Place::Device => &mut memory.weights,
                Place::Host => &mut memory.host,
                Place::Disk => &mut memory.disk,
            };
            *held = held.saturating_add(bytes.total());
        }
        let slot = self.slot_bytes(placement);
        memory.slots = slot.saturating_mul(SLOTS as u64);
        if placement.layers.contains(&Place::Disk) {
            memory.host = memory.host.saturating_add(slot.saturating_mul(STAGES as u64));
        }
        memory
    }

    /// Bytes of a slot that streamed weights take turns in, 0 if all stay on the device.
    pub(super) fn slot_bytes(&self, placement: &Placement) -> u64 {
        let layers = self.weights.layers.iter().zip(&placement.layers);
        let streamed = layers.filter(|(bytes, place)| **place != Place::Device && bytes.total() > 0);
        // Every tensor begins at a multiple of 256 bytes, in up to four buffers; and a layer has some besides experts'.
        let spare = ((3 * self.config.experts() + 64) * 1024) as u64;
        let experts = self.config.experts();
        let largest = streamed.map(|(bytes, _)| unit_bytes(*bytes, experts, placement.expert_groups)).max();
        largest.map_or(0, |largest| largest.saturating_add(spare))
    }
}

/// Whether the experts of a layer, and the blocks beside them, are multiplied by a grouped kernel.
pub(super) fn multiplies_grouped<T: Element>(config: &ModelConfig, architecture: Architecture) -> bool {
    let (d, f) = (config.hidden(), config.expert_width());
    let widths = [(d, f), (f, d), (d, config.shared_width()), (d, config.dense_width())];
    let mut used = widths.into_iter().filter(|(_, width)| *width > 0);
    used.all(|(depth, width)| GroupedProduct::<T>::supports_on(architecture, depth, width))
}

/// Bytes of the largest part of a layer that is brought in one piece: its front or the largest group of its experts, if
/// there is more than one group.
fn unit_bytes(layer: LayerBytes, experts: usize, groups: usize) -> u64 {
    if groups <= 1 {
        return layer.total();
    }
    let (all, each) = (experts.max(1) as u64, experts.div_ceil(groups) as u64);
    layer.front.max(layer.experts.div_ceil(all).saturating_mul(each))
}

/// What of a model must be there: routing ends with the last router, losses need everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    layers: usize,
    /// The layer whose block nobody needs.
    routed_only: Option<usize>,
}

impl Needed {
    pub(super) fn new(config: &ModelConfig, losses: bool) -> Self {
        let last = config.geometry().layers().last().map(|layer| layer.index());
        match last {
            Some(last) if !losses => Self { layers: last + 1, routed_only: Some(last) },
            _ => Self { layers: config.layers(), routed_only: None },
        }
    }

    /// Decoder layers that run.
    pub(super) fn layers(self) -> std::ops::Range<usize> {
        0..self.layers
    }

    /// Whether what follows attention and the router runs too.
    pub(super) fn block(self, layer: usize) -> bool {
        self.routed_only != Some(layer)
    }

    /// Whether a tensor of a layer must be there.
    fn tensor(self, layer: usize, name: &str) -> bool {
        let of_block = name.contains(".experts.")
            || name.contains(".shared_expert.")
            || name.contains(".shared_experts.");
        self.layers().contains(&layer) && (self.block(layer) || !of_block)
    }
}

/// Bytes of all weights: `element` for each that is held dense, codes and scales for those in 4 bits.
fn weights(
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    settings: &CudaSettings,
    element: u64,
) -> Result<WeightBytes, ModelError> {
    let layouts = match checkpoint {
        Some(checkpoint) => expert_layouts(config, checkpoint),
        None => vec![ExpertLayout::per_expert(config.family().rules()); config.layers()],
    };
    let stored = checkpoint.filter(|checkpoint| checkpoint.is_four_bit());
    let quantises = settings.precision == Precision::Nf4 && stored.is_none();
    let needed = Needed::new(config, settings.planes.nll);
    let layers = vec![LayerBytes::default(); config.layers()];
    let mut total = WeightBytes { embedding: 0, layers, rest: 0 };
    for_each_expected(config, |layer| layouts[layer], &mut |name, shape, role| {
        let elements = shape.iter().product::<usize>();
        let in_four_bits = match stored.and_then(|checkpoint| checkpoint.tensor(&name)) {
            Some(entry) if entry.storage == StorageType::Nf4 => Some(entry.bytes),
            _ if quantises => Some(settings.quantisation.nf4.bytes(elements)),
            _ => None,
        };
        let bytes = match role {
            TensorRole::Head if !settings.planes.nll => Some(0),
            // Routers through 4 bits are held dense again.
            TensorRole::Projection | TensorRole::FusedExperts => in_four_bits.map(|bytes| bytes as u64),
            _ => None,
        };
        let bytes = bytes.unwrap_or(elements as u64 * element);
        let layer = layer_of(&name);
        if layer.is_some_and(|layer| !needed.tensor(layer, &name)) {
            return Ok(());
        }
        let held = match layer.and_then(|layer| total.layers.get_mut(layer)) {
            Some(layer) if name.contains(".experts.") => &mut layer.experts,
            Some(layer) => &mut layer.front,
            None if role == TensorRole::Embedding => &mut total.embedding,
            None => &mut total.rest,
        };
        *held = held.saturating_add(bytes);
        Ok(())
    })?;
    Ok(total)
}

/// The number in `model.layers.N.`
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// Elements of the largest matrix that is restored: gates and ups of a group of experts, as a rule.
pub(super) fn restored_elements(config: &ModelConfig, groups: usize) -> usize {
    let (d, e, f) = (config.hidden(), config.experts(), config.expert_width());
    let (queries, keys) = (config.heads() * config.head_width(), config.kv_heads() * config.head_width());
    let block = |width: usize| 2 * width * d;
    [
        block(f) * e.div_ceil(groups.max(1)),
        block(config.shared_width()),
        block(config.dense_width()),
        (queries + 2 * keys) * d,
        d * queries,
    ]
    .into_iter()
    .max()
    .unwrap_or(0)
}
