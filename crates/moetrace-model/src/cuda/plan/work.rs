//! What a layer computes and restores, from shapes.

use super::super::memory::LayerBytes;
use crate::ModelConfig;

/// Work of one layer, its routed experts apart.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct LayerWork {
    /// Operations per token: attention, router, shared or dense block.
    pub(super) front: f64,
    /// Operations per token of the chosen experts.
    pub(super) experts: f64,
    /// Bytes read and written to restore matrices from 4 bits, in every chunk; 0 where they are held dense.
    pub(super) front_restored: f64,
    pub(super) experts_restored: f64,
}

impl LayerWork {
    /// Of layer `layer`, in texts of `longest` tokens, with activations of `element` bytes.
    pub(super) fn new(
        config: &ModelConfig,
        layer: usize,
        longest: usize,
        (bytes, restored_element): (LayerBytes, Option<usize>),
        ends_at_router: bool,
    ) -> Self {
        let d = config.hidden() as f64;
        let width = config.head_width() as f64;
        let (queries, keys) = (config.heads() as f64 * width, config.kv_heads() as f64 * width);
        let attention = d * (2.0 * queries + 2.0 * keys);
        // A token attends to half a text on average, once for its scores and once for values.
        let scores = 4.0 * queries * longest as f64 / 2.0;
        let moe = config.is_moe(layer);
        let (block, router, experts) = if moe {
            let expert = 3.0 * d * config.expert_width() as f64;
            (3.0 * d * config.shared_width() as f64, d * config.experts() as f64, expert)
        } else {
            (3.0 * d * config.dense_width() as f64, 0.0, 0.0)
        };
        let (block, experts) = if ends_at_router { (0.0, 0.0) } else { (block, experts) };
        let restores = |bytes: u64, elements: f64| match restored_element {
            Some(element) if elements > 0.0 => bytes as f64 + elements * element as f64,
            _ => 0.0,
        };
        Self {
            front: 2.0 * (attention + block + router) + scores,
            experts: 2.0 * experts * config.chosen() as f64,
            front_restored: restores(bytes.front, attention + block),
            experts_restored: restores(bytes.experts, experts * config.experts() as f64),
        }
    }

    /// Operations per token, all together.
    pub(super) fn operations(self) -> f64 {
        self.front + self.experts
    }
}
