//! Weights in memory: read from the checkpoint store, converted once to the precision they are used in.

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};
use half::bf16;

use super::decode::decode;
use crate::checkpoint::{self, Checkpoint, LayerNames, StorageType};
use crate::family::{QkNorm, SharedExperts};
use crate::{ModelConfig, ModelError, Precision};

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

/// A matrix `[in, out]` (the checkpoint's transposed) and its bias `[out]`.
pub(super) struct Projection {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

/// A feed-forward block `down(silu(gate x) * up x)`.
pub(super) struct SwiGlu {
    /// Gate beside up, `[D, 2F]`: one product instead of two.
    pub(super) gate_up: Tensor,
    /// `[F, D]`.
    pub(super) down: Tensor,
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

/// Reads tensors of one checkpoint in one precision.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    precision: Precision,
    /// Stored bytes of one tensor at a time; kept, so that loading leaves no holes in the heap.
    scratch: RefCell<Vec<u8>>,
}

pub(super) fn load(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    precision: Precision,
) -> Result<Weights, ModelError> {
    let layouts = checkpoint::check(config, checkpoint)?;
    let loader = Loader { checkpoint, config, precision, scratch: RefCell::default() };
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
            let weight = self.turned(&names.of(&format!("self_attn.{name}.weight")))?;
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
                Some(self.matrix(&names.moe("shared_expert_gate.weight"))?),
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
        Ok(MoeWeights { router: self.matrix(&names.moe("gate.weight"))?, experts, shared, shared_gate })
    }

    fn swiglu(&self, module: &str) -> Result<SwiGlu, ModelError> {
        let name = |projection: &str| format!("{module}.{projection}.weight");
        self.stacked(&name("gate_proj"), &name("up_proj"), &name("down_proj"))
    }

    fn stacked(&self, gate: &str, up: &str, down: &str) -> Result<SwiGlu, ModelError> {
        let down = self.turned(down)?;
        let (f, d) = down.dims2()?;
        let storage = |name: &str| self.checkpoint.tensor(name).map(|entry| entry.storage);
        let gate_up = if storage(gate) == storage(up) {
            self.tensor(&[Part::whole(gate), Part::whole(up)], &[2 * f, d], true)?
        } else {
            Tensor::cat(&[self.turned(gate)?, self.turned(up)?], 1)?
        };
        Ok(SwiGlu { gate_up, down })
    }

    /// One expert out of the two tensors that hold all of a layer's.
    fn fused_expert(&self, names: LayerNames, expert: usize) -> Result<SwiGlu, ModelError> {
        let (d, f) = (self.config.hidden(), self.config.expert_width());
        let turned = |name: &str, shape: [usize; 2]| {
            let part = Part { name, number: expert, elements: Some(shape[0] * shape[1]) };
            self.tensor(&[part], &shape, true)
        };
        Ok(SwiGlu {
            gate_up: turned(&names.moe("experts.gate_up_proj"), [2 * f, d])?,
            down: turned(&names.moe("experts.down_proj"), [d, f])?,
        })
    }

    /// The transposed of a matrix, `[in, out]`: products then read it without repacking.
    fn turned(&self, name: &str) -> Result<Tensor, ModelError> {
        self.tensor(&[Part::whole(name)], &self.shape(name), true)
    }

    /// A matrix in the storage type of the precision.
    fn matrix(&self, name: &str) -> Result<Tensor, ModelError> {
        self.tensor(&[Part::whole(name)], &self.shape(name), false)
    }

    /// A norm's weight or a bias: rounded to the precision, kept as f32, since it is added and multiplied
    /// element by element.
    fn vector(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.matrix(name)?.to_dtype(DType::F32)?)
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.checkpoint.tensor(name).map(|entry| entry.shape.to_vec()).unwrap_or_default()
    }

    /// Reads parts of one storage type, one below the other, as a tensor of `shape`, transposed if `turned`.
    fn tensor(&self, parts: &[Part<'_>], shape: &[usize], turned: bool) -> Result<Tensor, ModelError> {
        let mut bytes = self.scratch.borrow_mut();
        bytes.clear();
        let mut storage = StorageType::F32;
        for part in parts {
            storage = self.append(part, &mut bytes)?;
        }
        let (shape, turn) = match *shape {
            [rows, columns] if turned => (vec![columns, rows], Some([rows, columns])),
            _ => (shape.to_vec(), None),
        };
        let tensor = match self.precision {
            Precision::F32 => Tensor::from_vec(decode(&bytes, storage, turn, |v| v), shape, &Device::Cpu)?,
            Precision::Bf16 => {
                Tensor::from_vec(decode(&bytes, storage, turn, bf16::from_f32), shape, &Device::Cpu)?
            }
        };
        Ok(tensor)
    }

    fn append(&self, part: &Part<'_>, bytes: &mut Vec<u8>) -> Result<StorageType, ModelError> {
        let entry = self.checkpoint.tensor(part.name).ok_or_else(|| ModelError::UnknownTensor {
            dir: self.checkpoint.dir().to_owned(),
            tensor: part.name.to_owned(),
        })?;
        let len = part.elements.map_or(entry.bytes, |elements| elements * entry.storage.size());
        let start = bytes.len();
        bytes.resize(start + len, 0);
        self.checkpoint.read_part_into(part.name, part.number * len, &mut bytes[start..])?;
        Ok(entry.storage)
    }
}

/// Some of a tensor's elements.
struct Part<'a> {
    name: &'a str,
    /// Which of its equal parts.
    number: usize,
    /// Elements of each part; all of the tensor's if not given.
    elements: Option<usize>,
}

impl<'a> Part<'a> {
    fn whole(name: &'a str) -> Self {
        Self { name, number: 0, elements: None }
    }
}
