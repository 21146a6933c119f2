//! How many parameters a configuration describes.

use super::ModelConfig;
use crate::ModelError;
use crate::family::{QkNorm, SharedExperts};

impl ModelConfig {
    /// Every weight of the checkpoint, embeddings and head included (a tied head counts once).
    pub fn total_parameters(&self) -> u64 {
        self.parameters(self.experts).unwrap_or(u64::MAX)
    }

    /// The weights that one token goes through: K of the E experts, and the embedding matrix as published
    /// figures count it, whole.
    pub fn active_parameters(&self) -> u64 {
        self.parameters(self.chosen).unwrap_or(u64::MAX)
    }

    pub(super) fn check_products(&self, file: &str) -> Result<(), ModelError> {
        // 8 bytes a weight is more than any precision needs: if that fits 63 bits, every size does.
        let bytes = self.parameters(self.experts).and_then(|n| n.checked_mul(8));
        match bytes.filter(|&n| i64::try_from(n).is_ok()) {
            Some(_) => Ok(()),
            None => Err(ModelError::TooLarge { file: file.to_owned(), what: "all tensor shapes" }),
        }
    }

    fn parameters(&self, experts: usize) -> Option<u64> {
        let routed = self.geometry.layers().len() as u64;
        let dense = self.layers as u64 - routed;
        let moe = self.swiglu(self.expert_width)?.checked_mul(experts as u64)?;
        let router = product(self.hidden, self.experts)?;
        let gate = if self.family.rules().shared == SharedExperts::Gated { self.hidden as u64 } else { 0 };
        let moe = sum(&[moe, router, self.swiglu(self.shared_width)?, gate])?;
        let embeddings = product(self.vocab, self.hidden)?.checked_mul(if self.tied_head { 1 } else { 2 })?;
        sum(&[
            embeddings,
            self.hidden as u64,
            self.attention()?.checked_mul(self.layers as u64)?,
            moe.checked_mul(routed)?,
            self.swiglu(self.dense_width)?.checked_mul(dense)?,
        ])
    }

    /// Attention and both norms of one layer.
    fn attention(&self) -> Option<u64> {
        let queries = self.heads.checked_mul(self.head_width)?;
        let keys = self.kv_heads.checked_mul(self.head_width)?;
        let qk_norm = match self.family.rules().qk_norm {
            QkNorm::None => 0,
            QkNorm::FullWidth => queries.checked_add(keys)?,
            QkNorm::PerHead => self.head_width * 2,
        };
        let biases = match (self.qkv_bias, self.output_bias) {
            (false, _) => 0,
            (true, false) => queries.checked_add(keys.checked_mul(2)?)?,
            (true, true) => queries.checked_add(keys.checked_mul(2)?)?.checked_add(self.hidden)?,
        };
        let projections = product(self.hidden, queries)?.checked_add(product(self.hidden, keys)?)?;
        sum(&[projections.checked_mul(2)?, 2 * self.hidden as u64, qk_norm as u64, biases as u64])
    }

    fn swiglu(&self, width: usize) -> Option<u64> {
        product(self.hidden, width)?.checked_mul(3)
    }
}

fn product(a: usize, b: usize) -> Option<u64> {
    (a as u64).checked_mul(b as u64)
}

fn sum(parts: &[u64]) -> Option<u64> {
    parts.iter().try_fold(0u64, |total, part| total.checked_add(*part))
}
