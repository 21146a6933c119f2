//! Weights in memory, in the type that they are used in.

use candle_core::Tensor;

use super::matrix::Matrix;

/// All weights of a model.
pub(super) struct Weights {
    /// `[V, D]` in the storage type of the precision.
    pub(super) embedding: Tensor,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) final_norm: Tensor,
    /// `[V, D]`; the embedding itself where the head is tied.
    pub(super) head: Tensor,
}

/// One decoder layer.
pub(super) struct LayerWeights {
    pub(super) input_norm: Tensor,
    pub(super) attention: AttentionWeights,
    pub(super) post_attention_norm: Tensor,
    pub(super) block: Block,
}

/// Query, key, value and output projections with their optional biases and norms.
pub(super) struct AttentionWeights {
    pub(super) query: Projection,
    pub(super) key: Projection,
    pub(super) value: Projection,
    pub(super) output: Projection,
    pub(super) query_norm: Option<Tensor>,
    pub(super) key_norm: Option<Tensor>,
}

/// A matrix and its bias `[out]`.
pub(super) struct Projection {
    pub(super) weight: Matrix,
    pub(super) bias: Option<Tensor>,
}

/// A feed-forward block `down(silu(gate x) * up x)`.
pub(super) struct SwiGlu {
    /// Gate beside up, D to 2F: one product instead of two.
    pub(super) gate_up: Matrix,
    /// F to D.
    pub(super) down: Matrix,
}

/// What follows attention in a layer.
pub(super) enum Block {
    Dense(SwiGlu),
    Moe(MoeWeights),
}

/// Router and experts.
pub(super) struct MoeWeights {
    /// `[E, D]`.
    pub(super) router: Tensor,
    pub(super) experts: Vec<SwiGlu>,
    pub(super) shared: Option<SwiGlu>,
    /// `[1, D]`.
    pub(super) shared_gate: Option<Tensor>,
}

impl Weights {
    /// Bytes of all of them, the shared maps of 4-bit scales not counted.
    pub(super) fn bytes(&self) -> u64 {
        let dense = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        let head = if self.head.id() == self.embedding.id() { 0 } else { dense(&self.head) };
        let ends = dense(&self.embedding) + head + dense(&self.final_norm);
        self.layers.iter().map(LayerWeights::bytes).sum::<u64>() + ends
    }
}

impl LayerWeights {
    fn bytes(&self) -> u64 {
        let dense = |tensor: &Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        let attention = &self.attention;
        let projections = [&attention.query, &attention.key, &attention.value, &attention.output];
        let projections = projections.into_iter();
        let projections = projections.map(|p| p.weight.bytes() + p.bias.as_ref().map_or(0, dense));
        let norms = [Some(&self.input_norm), Some(&self.post_attention_norm)].into_iter();
        let norms = norms.chain([attention.query_norm.as_ref(), attention.key_norm.as_ref()]).flatten();
        let block = |block: &SwiGlu| block.gate_up.bytes() + block.down.bytes();
        let blocks = match &self.block {
            Block::Dense(dense) => block(dense),
            Block::Moe(moe) => {
                let experts = moe.experts.iter().chain(&moe.shared).map(block).sum::<u64>();
                experts + dense(&moe.router) + moe.shared_gate.as_ref().map_or(0, dense)
            }
        };
        projections.sum::<u64>() + norms.map(dense).sum::<u64>() + blocks
    }
}
