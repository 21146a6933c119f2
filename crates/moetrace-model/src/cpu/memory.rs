//! What the CPU engine will hold, before it holds it.

use super::attention::QUERY_BLOCK;
use super::experts::JOB_ROWS;
use super::head::HEAD_ROWS;
use super::matrix::STRIP_ELEMENTS;
use super::product::padded_rows;
use super::{CpuSettings, Precision};
use crate::checkpoint::{ExpertLayout, TensorRole, for_each_expected};
use crate::{ComputeDtype, ModelConfig, Quantisation};

/// Freed blocks that glibc keeps for each thread rather than give back: its largest `M_MMAP_THRESHOLD`. With it
/// the estimate lay 1 to 38 % above the measured peak of a model of 112 million parameters.
const KEPT_BY_ALLOCATOR: u64 = 32 << 20;

/// Bytes that a CPU engine takes, by what they grow with. Pages of a mapped checkpoint come on top while it is
/// loaded; the system takes them back when it needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// All weights in the precision of the run.
    pub weights: u64,
    /// Scratch that does not grow with the pass: one job per thread, and widened weights under bf16.
    pub fixed: u64,
    /// Activations and routing of each token of a pass.
    pub per_token: u64,
    /// Attention scores of each token of the longest sample.
    pub per_token_of_longest_sample: u64,
    /// Language-model logits, only where losses are asked for.
    pub head: u64,
}

impl MemoryEstimate {
    /// Bytes of a run with passes of `tokens`, the longest sample being `longest`.
    pub fn total(&self, tokens: u64, longest: u64, losses: bool) -> u64 {
        let head = if losses { self.head } else { 0 };
        let activations = self.per_token.saturating_mul(tokens);
        let scores = self.per_token_of_longest_sample.saturating_mul(longest);
        [self.fixed, activations, scores, head]
            .iter()
            .fold(self.weights, |sum, part| sum.saturating_add(*part))
    }
}

/// Weights under NF4: half a byte an element and its scales for what is quantised, `element` bytes for the rest.
fn four_bit_weights(config: &ModelConfig, element: u64, quantisation: Quantisation) -> u64 {
    let layout = ExpertLayout::per_expert(config.family().rules());
    let mut total = 0u64;
    let visited = for_each_expected(config, |_| layout, &mut |_, shape, role| {
        let elements = shape.iter().product::<usize>();
        // Routers through 4 bits are held dense again.
        let packed = matches!(role, TensorRole::Projection);
        total += if packed { quantisation.nf4.bytes(elements) as u64 } else { elements as u64 * element };
        Ok(())
    });
    if visited.is_err() { u64::MAX } else { total }
}

/// Estimates from shapes alone; nothing is allocated.
pub(super) fn estimate(config: &ModelConfig, settings: &CpuSettings) -> MemoryEstimate {
    let bytes = |elements: usize| (elements as u64).saturating_mul(4);
    let d = config.hidden();
    let queries = config.heads() * config.head_width();
    let keys = config.kv_heads() * config.head_width();
    let widest = config.expert_width().max(config.shared_width()).max(config.dense_width());
    let threads = settings.threads.max(1) as u64;
    let compute = settings.compute.unwrap_or(settings.precision.compute_dtype());
    let element = if compute == ComputeDtype::F32 { 4 } else { 2 };
    let weights = match settings.precision {
        Precision::Nf4 => four_bit_weights(config, element, settings.quantisation),
        _ => config.total_parameters().saturating_mul(element),
    };
    // A job holds its gathered input, gate and up; under bf16 also its block's three matrices as f32, and
    // one projection matrix is widened for all threads together; under NF4 a strip of one matrix.
    let job = bytes(JOB_ROWS * (d + 2 * widest));
    let widened = match settings.precision {
        Precision::F32 => 0,
        Precision::Nf4 => bytes((2 * STRIP_ELEMENTS).min(d * widest.max(queries))) * threads,
        Precision::Bf16 | Precision::F16 => bytes(3 * d * widest) * threads + bytes(d * queries),
    };
    // The results of each expert that got a token take at least this many rows.
    let padding = bytes(padded_rows(1, d) * d).saturating_mul(config.experts() as u64);
    // Residual, normed input, block output and one temporary; queries, keys, values before and after the
    // rotation and the attended heads twice; K experts' results and the shared block's.
    let blocks = config.chosen() + usize::from(config.shared_width() > 0);
    let activations = 4 * d + 4 * queries + 4 * keys + blocks * d + 2 * config.head_width();
    let routing = 3 * config.experts() + 8 * config.chosen() + 4;
    let widened_head = if compute == ComputeDtype::F32 { 0 } else { bytes(config.vocab() * d) };
    MemoryEstimate {
        weights,
        fixed: job * threads + widened + padding + KEPT_BY_ALLOCATOR * threads,
        per_token: bytes(activations + routing),
        per_token_of_longest_sample: bytes(QUERY_BLOCK) * threads,
        head: bytes(HEAD_ROWS * config.vocab()) + widened_head,
    }
}
