//! Weights in memory: read from the checkpoint store, converted once to the precision they are used in.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

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
}

pub(super) fn load(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    precision: Precision,
) -> Result<Weights, ModelError> {
    let layouts = checkpoint::check(config, checkpoint)?;
    let loader = Loader { checkpoint, config, precision };
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
            let weight = self.transposed(&names.of(&format!("self_attn.{name}.weight")))?;
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
        let down = self.transposed(down)?;
        let (f, d) = down.dims2()?;
        let (mut gate_up, storage) = self.bytes(gate, None)?;
        let (up, up_storage) = self.bytes(up, None)?;
        if storage == up_storage {
            gate_up.extend_from_slice(&up);
            let gate_up = self.transpose(&gate_up, storage, [2 * f, d])?;
            return Ok(SwiGlu { gate_up, down });
        }
        let (gate, up) =
            (self.transpose(&gate_up, storage, [f, d])?, self.transpose(&up, up_storage, [f, d])?);
        Ok(SwiGlu { gate_up: Tensor::cat(&[gate, up], 1)?, down })
    }

    /// One expert out of the two tensors that hold all of a layer's.
    fn fused_expert(&self, names: LayerNames, expert: usize) -> Result<SwiGlu, ModelError> {
        let (d, f) = (self.config.hidden(), self.config.expert_width());
        let part = |name: &str, shape: [usize; 2]| {
            let (bytes, storage) = self.bytes(name, Some((expert, shape[0] * shape[1])))?;
            self.transpose(&bytes, storage, shape)
        };
        Ok(SwiGlu {
            gate_up: part(&names.moe("experts.gate_up_proj"), [2 * f, d])?,
            down: part(&names.moe("experts.down_proj"), [d, f])?,
        })
    }

    /// The transposed of a matrix, `[in, out]`: products then read it without repacking.
    fn transposed(&self, name: &str) -> Result<Tensor, ModelError> {
        let shape = self.checkpoint.tensor(name).map(|entry| entry.shape.to_vec()).unwrap_or_default();
        let (bytes, storage) = self.bytes(name, None)?;
        self.transpose(&bytes, storage, shape.try_into().unwrap_or_default())
    }

    fn transpose(
        &self,
        bytes: &[u8],
        storage: StorageType,
        [rows, columns]: [usize; 2],
    ) -> Result<Tensor, ModelError> {
        let shape = [columns, rows];
        let tensor = match self.precision {
            Precision::F32 => {
                let values = transpose(&decode(bytes, storage, |value| value), rows, columns);
                Tensor::from_vec(values, &shape, &Device::Cpu)?
            }
            Precision::Bf16 => {
                let values = transpose(&decode(bytes, storage, bf16::from_f32), rows, columns);
                Tensor::from_vec(values, &shape, &Device::Cpu)?
            }
        };
        Ok(tensor)
    }

    /// A matrix in the storage type of the precision.
    fn matrix(&self, name: &str) -> Result<Tensor, ModelError> {
        let shape = self.checkpoint.tensor(name).map(|entry| entry.shape.to_vec()).unwrap_or_default();
        let (bytes, storage) = self.bytes(name, None)?;
        self.tensor(&bytes, storage, &shape)
    }

    /// A norm's weight or a bias: rounded to the precision, kept as f32, since it is added and multiplied
    /// element by element.
    fn vector(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.matrix(name)?.to_dtype(DType::F32)?)
    }

    /// A tensor's stored bytes, whole or the part with this number among parts of so many elements.
    fn bytes(&self, name: &str, part: Option<(usize, usize)>) -> Result<(Vec<u8>, StorageType), ModelError> {
        let entry = self.checkpoint.tensor(name).ok_or_else(|| ModelError::UnknownTensor {
            dir: self.checkpoint.dir().to_owned(),
            tensor: name.to_owned(),
        })?;
        let len = part.map_or(entry.bytes, |(_, elements)| elements * entry.storage.size());
        let mut bytes = vec![0; len];
        self.checkpoint.read_part_into(name, part.map_or(0, |(number, _)| number * len), &mut bytes)?;
        Ok((bytes, entry.storage))
    }

    fn tensor(&self, bytes: &[u8], storage: StorageType, shape: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = match self.precision {
            Precision::F32 => Tensor::from_vec(decode(bytes, storage, |value| value), shape, &Device::Cpu)?,
            Precision::Bf16 => Tensor::from_vec(decode(bytes, storage, bf16::from_f32), shape, &Device::Cpu)?,
        };
        Ok(tensor)
    }
}

/// Little-endian elements as they are stored to the type they are used in.
fn decode<T>(bytes: &[u8], storage: StorageType, convert: impl Fn(f32) -> T) -> Vec<T> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match storage {
        StorageType::F32 => {
            bytes.as_chunks::<4>().0.iter().map(|b| convert(f32::from_le_bytes(*b))).collect()
        }
        StorageType::F16 => pairs().map(|b| convert(f16::from_le_bytes(*b).to_f32())).collect(),
        StorageType::Bf16 => pairs().map(|b| convert(bf16::from_le_bytes(*b).to_f32())).collect(),
    }
}

/// `[rows, columns]` to `[columns, rows]`, in squares that stay in the cache.
fn transpose<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const SQUARE: usize = 32;
    let mut out = vec![T::default(); values.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in top..rows.min(top + SQUARE) {
                for column in left..columns.min(left + SQUARE) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}
