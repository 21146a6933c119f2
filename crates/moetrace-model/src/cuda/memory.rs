//! What the CUDA engine will hold, before it holds it: from shapes, without a GPU.

use std::ops::RangeInclusive;

use half::{bf16, f16};
use moetrace_cuda::{Architecture, Element, GroupedProduct};

use super::CudaSettings;
use super::buffers::Sizes;
use crate::checkpoint::{
    Checkpoint, ExpertLayout, StorageType, TensorRole, expert_layouts, for_each_expected,
};
use crate::{ComputeDtype, ModelConfig, ModelError, Precision};

/// Most tokens of a pass: every product's algorithm is asked whether it takes that many rows.
pub const LARGEST_PASS: usize = 65_536;

/// What passes of automatic size are a multiple of: four tiles of attention.
const PASS_STEP: usize = 512;

/// Bytes that no plan counts one by one. Some 500 MB for the context, kernels and cuBLAS's own memory, which is an
/// estimate; 200 MB for what allocations are rounded up to and for numbers of a few bytes a token. At DeepSeek-MoE-16B's
/// shape in 4 bits and 40,960 tokens a pass, the engine took 11.22 GiB of an H200 beside the context; weights and buffers
/// are planned as 11.20.
const CONTEXT_RESERVE: u64 = 700_000_000;

/// Bytes of device memory, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaMemory {
    /// All weights, as they are held.
    pub weights: u64,
    /// Buffers that passes work in.
    pub buffers: u64,
    /// CUDA's own, and what allocations are rounded up to.
    pub context_reserve: u64,
}

impl CudaMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.buffers).saturating_add(self.context_reserve)
    }
}

/// What the engine takes for a model, for passes of any size.
#[derive(Debug, Clone)]
pub struct CudaMemoryPlan<'a> {
    config: &'a ModelConfig,
    settings: CudaSettings,
    weights: u64,
    /// Elements of the largest matrix that is restored from 4 bits.
    restored: usize,
    /// Bytes of an activation.
    element: usize,
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
            restored: if four_bit { restored_elements(config) } else { 0 },
            element,
            grouped: grouped && !settings.portable,
        })
    }

    /// For passes of at most `tokens`; those beyond [`LARGEST_PASS`] are counted as that many.
    pub fn memory(&self, tokens: usize) -> CudaMemory {
        let tokens = tokens.clamp(1, LARGEST_PASS);
        let sizes = Sizes::new(self.config, tokens, self.restored, (self.grouped, self.settings.planes));
        CudaMemory {
            weights: self.weights,
            buffers: sizes.bytes(self.config, self.element),
            context_reserve: CONTEXT_RESERVE,
        }
    }

    /// The largest pass within `tokens` that takes at most `bytes` in all: a multiple of 512, or the least of `tokens` if
    /// no multiple lies between.
    pub fn largest_pass(&self, bytes: u64, tokens: RangeInclusive<usize>) -> Option<usize> {
        let (least, most) = (*tokens.start(), (*tokens.end()).min(LARGEST_PASS));
        let fits = |tokens: usize| self.memory(tokens).total() <= bytes;
        let steps = least.div_ceil(PASS_STEP)..=most / PASS_STEP;
        let largest = steps.rev().map(|step| step * PASS_STEP).find(|tokens| fits(*tokens));
        largest.or_else(|| (least <= LARGEST_PASS && fits(least)).then_some(least))
    }
}

/// Whether the experts of a layer, and the blocks beside them, are multiplied by the grouped kernel.
pub(super) fn multiplies_grouped<T: Element>(config: &ModelConfig, architecture: Architecture) -> bool {
    let (d, f) = (config.hidden(), config.expert_width());
    let widths = [(d, f), (f, d), (d, config.shared_width()), (d, config.dense_width())];
    let mut used = widths.into_iter().filter(|(_, width)| *width > 0);
    used.all(|(depth, width)| GroupedProduct::<T>::supports_on(architecture, depth, width))
}

/// Bytes of all weights: `element` for each that is held dense, codes and scales for those in 4 bits.
fn weights(
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    settings: &CudaSettings,
    element: u64,
) -> Result<u64, ModelError> {
    let layouts = match checkpoint {
        Some(checkpoint) => expert_layouts(config, checkpoint),
        None => vec![ExpertLayout::per_expert(config.family().rules()); config.layers()],
    };
    let stored = checkpoint.filter(|checkpoint| checkpoint.is_four_bit());
    let quantises = settings.precision == Precision::Nf4 && stored.is_none();
    let mut total = 0u64;
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
        total = total.saturating_add(bytes.unwrap_or(elements as u64 * element));
        Ok(())
    })?;
    Ok(total)
}

/// Elements of the largest matrix that is restored: gates and ups of all experts of a layer, as a rule.
fn restored_elements(config: &ModelConfig) -> usize {
    let (d, e, f) = (config.hidden(), config.experts(), config.expert_width());
    let (queries, keys) = (config.heads() * config.head_width(), config.kv_heads() * config.head_width());
    let block = |width: usize| 2 * width * d;
    [
        block(f) * e,
        block(config.shared_width()),
        block(config.dense_width()),
        (queries + 2 * keys) * d,
        d * queries,
    ]
    .into_iter()
    .max()
    .unwrap_or(0)
}
