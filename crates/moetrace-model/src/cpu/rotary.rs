//! Rotary position embedding, rotate-half form (Su et al. 2021, arXiv 2104.09864, as in `LlamaRotaryEmbedding`).

use candle_core::{Device, Tensor};

use crate::ComputeDtype;
use crate::angles::Angles;

/// Cosines and sines of each row's position, `[N, head width / 2]` each.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Tables for these rows, rounded to the type of the activations.
    pub(super) fn new(
        positions: &[u32],
        head_width: usize,
        theta: f64,
        compute: ComputeDtype,
    ) -> candle_core::Result<Self> {
        let half = head_width / 2;
        let frequencies = Angles::new(head_width, theta);
        let angles = || positions.iter().flat_map(|position| frequencies.at(*position));
        let table = |values: Vec<f32>| {
            compute.round(Tensor::from_vec(values, (positions.len(), half), &Device::Cpu)?)
        };
        Ok(Self {
            cos: table(angles().map(f32::cos).collect())?,
            sin: table(angles().map(f32::sin).collect())?,
        })
    }

    /// Rotates `[N, heads, head width]`.
    pub(super) fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        candle_nn::rotary_emb::rope_thd(&x.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0)
    }
}
