//! Rotary position embedding, rotate-half form (Su et al. 2021, arXiv 2104.09864, as in `LlamaRotaryEmbedding`).

use candle_core::{Device, Tensor};

use crate::ComputeDtype;

/// Cosines and sines of each row's position, `[N, head width / 2]` each.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Angles are f32 products as in the reference: at large positions their rounding is part of the model.
    pub(super) fn new(
        positions: &[u32],
        head_width: usize,
        theta: f64,
        compute: ComputeDtype,
    ) -> candle_core::Result<Self> {
        let half = head_width / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_width as f32)).collect();
        let angles = || positions.iter().flat_map(|p| frequencies.iter().map(move |f| *p as f32 * f));
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
