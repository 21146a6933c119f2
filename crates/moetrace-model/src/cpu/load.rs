//! A checkpoint's tensors into the weights of an engine.

use std::cell::RefCell;

use candle_core::Tensor;

use super::CpuSettings;
use super::matrix::Matrix;
use super::read::Part;
use super::weights::{AttentionWeights, Block, LayerWeights, MoeWeights, Projection, SwiGlu, Weights};
use crate::checkpoint::{self, Checkpoint, ExpertLayout, LayerNames, TensorRole};
use crate::family::{QkNorm, SharedExperts};
use crate::{ComputeDtype, ModelConfig, ModelError, Precision, Quantisation};

/// Reads tensors of one checkpoint in one precision.
pub(super) struct Loader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) config: &'a ModelConfig,
    /// What dense tensors are rounded to.
    pub(super) compute: ComputeDtype,
    /// How tensors are quantised that are not so in the checkpoint.
    pub(super) quantisation: Option<Quantisation>,
    /// Stored bytes of one tensor at a time; kept, so that loading leaves no holes in the heap.
    pub(super) scratch: RefCell<Vec<u8>>,
}

/// What can be known to be wrong before a weight is read.
pub(super) fn check(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    settings: &CpuSettings,
) -> Result<Vec<ExpertLayout>, ModelError> {
    settings.compute_dtype()?;
    checkpoint::check_precision(config, checkpoint, settings.precision)
}

pub(super) fn load(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    settings: &CpuSettings,
) -> Result<Weights, ModelError> {
    let layouts = check(checkpoint, config, settings)?;
    // A 4-bit checkpoint is taken as it stands: what it left dense stays dense.
    let quantises = settings.precision == Precision::Nf4 && !checkpoint.is_four_bit();
    let quantisation = quantises.then_some(settings.quantisation);
    let compute = settings.compute_dtype()?;
    let loader = Loader { checkpoint, config, compute, quantisation, scratch: RefCell::default() };
    let embedding = loader.matrix("model.embed_tokens.weight")?;
    let layers = layouts.iter().enumerate();
    let layers = layers.map(|(layer, layout)| loader.layer(LayerNames { layer, layout: *layout }));
    Ok(Weights {
        layers: layers.collect::<Result<_, _>>()?,
        final_norm: loader.vector("model.norm.weight")?,
        head: if config.has_tied_head() { embedding.clone() } else { loader.matrix("lm_head.weight")? },
        embedding,
    })
}

impl Loader<'_> {
    fn layer(&self, names: LayerNames) -> Result<LayerWeights, ModelError> {
        Ok(LayerWeights {
            input_norm: self.vector(&names.of("input_layernorm.weight"))?,
            attention: self.attention(names)?,
            post_attention_norm: self.vector(&names.of("post_attention_layernorm.weight"))?,
            block: if self.config.is_moe(names.layer) {
                Block::Moe(self.moe(names)?)
            } else {
                Block::Dense(self.swiglu(&names.of("mlp"))?)
            },
        })
    }

    fn attention(&self, names: LayerNames) -> Result<AttentionWeights, ModelError> {
        let projection = |name: &str, biased: bool| -> Result<Projection, ModelError> {
            let weight = self.projection(&names.of(&format!("self_attn.{name}.weight")))?;
            let bias =
                biased.then(|| self.vector(&names.of(&format!("self_attn.{name}.bias")))).transpose()?;
            Ok(Projection { weight, bias })
        };
        let (qkv_bias, normed) =
            (self.config.has_qkv_bias(), self.config.family().rules().qk_norm != QkNorm::None);
        let norm = |name: &str| {
            normed.then(|| self.vector(&names.of(&format!("self_attn.{name}.weight")))).transpose()
        };
        Ok(AttentionWeights {
            query: projection("q_proj", qkv_bias)?,
            key: projection("k_proj", qkv_bias)?,
            value: projection("v_proj", qkv_bias)?,
            output: projection("o_proj", self.config.has_output_bias())?,
            query_norm: norm("q_norm")?,
            key_norm: norm("k_norm")?,
        })
    }

    fn moe(&self, names: LayerNames) -> Result<MoeWeights, ModelError> {
        let rules = self.config.family().rules();
        let (shared, shared_gate) = match rules.shared {
            SharedExperts::Added if self.config.shared_width() > 0 => {
                (Some(self.swiglu(&names.moe("shared_experts"))?), None)
            }
            SharedExperts::None | SharedExperts::Added => (None, None),
            SharedExperts::Gated => (
                Some(self.swiglu(&names.moe("shared_expert"))?),
                Some(self.gate(&names.moe("shared_expert_gate.weight"), TensorRole::SharedGate)?),
            ),
        };
        let experts = (0..self.config.experts()).map(|expert| {
            if names.layout.fused {
                return self.fused_expert(names, expert);
            }
            let [gate, up, down] = rules.expert_projections;
            let name = |projection| names.expert(expert, projection);
            self.stacked(&name(gate), &name(up), &name(down))
        });
        let experts = experts.collect::<Result<_, _>>()?;
        let router = self.gate(&names.moe("gate.weight"), TensorRole::Router)?;
        Ok(MoeWeights { router, experts, shared, shared_gate })
    }

    fn swiglu(&self, module: &str) -> Result<SwiGlu, ModelError> {
        let name = |projection: &str| format!("{module}.{projection}.weight");
        self.stacked(&name("gate_proj"), &name("up_proj"), &name("down_proj"))
    }

    fn stacked(&self, gate: &str, up: &str, down: &str) -> Result<SwiGlu, ModelError> {
        let down = self.projection(down)?;
        let storage = |name: &str| self.checkpoint.tensor(name).map(|entry| entry.storage);
        let gate_up = match (self.four_bit(gate)?, self.four_bit(up)?) {
            (Some(gate), Some(up)) => Matrix::Nf4(vec![gate, up]),
            (None, None) if storage(gate) == storage(up) => {
                let [rows, columns] = self.rows_and_columns(gate);
                let parts = [Part::whole(gate), Part::whole(up)];
                Matrix::Dense(self.tensor(&parts, &[2 * rows, columns], true)?)
            }
            // Of unlike halves both are held dense; a quantised one is restored.
            _ => Matrix::Dense(Tensor::cat(&[self.turned(gate)?, self.turned(up)?], 1)?),
        };
        Ok(SwiGlu { gate_up, down })
    }

    /// One expert out of the two tensors that hold all of a layer's.
    fn fused_expert(&self, names: LayerNames, expert: usize) -> Result<SwiGlu, ModelError> {
        let (d, f) = (self.config.hidden(), self.config.expert_width());
        let (gate_up, down) = (names.moe("experts.gate_up_proj"), names.moe("experts.down_proj"));
        let part = |name, number, elements| Part { name, number, elements: Some(elements) };
        if !self.quantises(TensorRole::FusedExperts) {
            let gate_up = self.tensor(&[part(&gate_up, expert, 2 * f * d)], &[2 * f, d], true)?;
            let down = self.tensor(&[part(&down, expert, d * f)], &[d, f], true)?;
            return Ok(SwiGlu { gate_up: Matrix::Dense(gate_up), down: Matrix::Dense(down) });
        }
        // Each projection by itself, as in a checkpoint of separate experts: scales are averaged over a tensor.
        let gate = self.quantised(&part(&gate_up, 2 * expert, f * d), &[f, d])?;
        let up = self.quantised(&part(&gate_up, 2 * expert + 1, f * d), &[f, d])?;
        let down = Matrix::Nf4(vec![self.quantised(&part(&down, expert, d * f), &[d, f])?]);
        let gate_up = Matrix::Nf4(vec![gate, up]);
        Ok(SwiGlu { gate_up, down })
    }
}
