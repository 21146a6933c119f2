//! Which tensors a configuration asks for, by the names that the reference implementations give them.

use std::collections::HashSet;

use super::Checkpoint;
use crate::family::{FamilyRules, QkNorm, SharedExperts};
use crate::{Family, ModelConfig, ModelError, Precision, Quantisation};

/// What a tensor does in the model; decides whether NF4 touches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorRole {
    /// Token embeddings `[V, D]`.
    Embedding,
    /// The language-model head `[V, D]`.
    Head,
    /// The weight of an RMSNorm.
    Norm,
    /// A bias.
    Bias,
    /// A projection of attention, of a dense block, of a shared or of a routed expert `[out, in]`.
    Projection,
    /// The same of all routed experts of a layer `[E, out, in]`.
    FusedExperts,
    /// A router `[E, D]`.
    Router,
    /// The gate of a shared expert `[1, D]`.
    SharedGate,
}

/// Hears a tensor's name, shape and role.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(String, &[usize], TensorRole) -> Result<(), ModelError>;

/// How one layer's experts are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpertLayout {
    /// Module of the MoE block: the family's own, or `mlp` (transformers 5 names all of them so).
    pub(crate) block: &'static str,
    /// `experts.gate_up_proj` `[E, 2F, D]` and `experts.down_proj` `[E, D, F]` instead of E times three.
    pub(crate) fused: bool,
}

impl TensorRole {
    /// Whether [`Precision::Nf4`](crate::Precision::Nf4) quantises tensors of this role.
    ///
    /// Embeddings, norms, biases and the head stay as they are. So do routers and shared gates, unless
    /// `quantisation` asks for bitsandbytes' behaviour, which quantises every linear module but the head; a
    /// `DeepSeek` v1 router is no linear module.
    pub fn is_quantised(self, family: Family, quantisation: Quantisation) -> bool {
        match self {
            Self::Embedding | Self::Head | Self::Norm | Self::Bias => false,
            Self::Projection | Self::FusedExperts => true,
            Self::Router => quantisation.router && family.rules().router_is_linear,
            Self::SharedGate => quantisation.router,
        }
    }
}

impl ExpertLayout {
    /// The way published checkpoints are stored.
    pub(crate) fn per_expert(rules: &FamilyRules) -> Self {
        Self { block: rules.moe_block, fused: false }
    }
}

/// Names of one layer's tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNames {
    pub(crate) layer: usize,
    pub(crate) layout: ExpertLayout,
}

impl LayerNames {
    pub(crate) fn of(self, part: &str) -> String {
        format!("model.layers.{}.{part}", self.layer)
    }

    /// A tensor of the MoE block.
    pub(crate) fn moe(self, part: &str) -> String {
        format!("model.layers.{}.{}.{part}", self.layer, self.layout.block)
    }

    /// One projection of one expert, stored by itself.
    pub(crate) fn expert(self, expert: usize, projection: &str) -> String {
        self.moe(&format!("experts.{expert}.{projection}.weight"))
    }
}

/// How each layer's experts are stored in `checkpoint`, one entry per decoder layer.
pub(crate) fn expert_layouts(config: &ModelConfig, checkpoint: &Checkpoint) -> Vec<ExpertLayout> {
    let rules = config.family().rules();
    let of_layer = |layer: usize| {
        let own = LayerNames { layer, layout: ExpertLayout::per_expert(rules) };
        let block =
            if checkpoint.tensor(&own.moe("gate.weight")).is_some() { rules.moe_block } else { "mlp" };
        let names = LayerNames { layer, layout: ExpertLayout { block, fused: true } };
        let fused = checkpoint.tensor(&names.moe("experts.gate_up_proj")).is_some();
        ExpertLayout { block, fused }
    };
    (0..config.layers()).map(of_layer).collect()
}

/// Calls `visit` with every tensor and shape that the configuration asks for, layer by layer, and stops at
/// its first error; nothing is collected, since the number of layers and experts comes from a file.
pub(crate) fn for_each_expected(
    config: &ModelConfig,
    layout_of: impl Fn(usize) -> ExpertLayout,
    visit: Visit<'_>,
) -> Result<(), ModelError> {
    let (d, vocab) = (config.hidden(), config.vocab());
    visit("model.embed_tokens.weight".to_owned(), &[vocab, d], TensorRole::Embedding)?;
    for layer in 0..config.layers() {
        let names = LayerNames { layer, layout: layout_of(layer) };
        visit(names.of("input_layernorm.weight"), &[d], TensorRole::Norm)?;
        attention(config, names, visit)?;
        visit(names.of("post_attention_layernorm.weight"), &[d], TensorRole::Norm)?;
        if config.is_moe(layer) {
            experts(config, names, visit)?;
        } else {
            swiglu(&names.of("mlp"), d, config.dense_width(), visit)?;
        }
    }
    visit("model.norm.weight".to_owned(), &[d], TensorRole::Norm)?;
    if config.has_tied_head() {
        return Ok(());
    }
    visit("lm_head.weight".to_owned(), &[vocab, d], TensorRole::Head)
}

fn attention(config: &ModelConfig, names: LayerNames, visit: Visit<'_>) -> Result<(), ModelError> {
    let d = config.hidden();
    let (queries, keys) = (config.heads() * config.head_width(), config.kv_heads() * config.head_width());
    for (projection, width) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
        visit(names.of(&format!("self_attn.{projection}.weight")), &[width, d], TensorRole::Projection)?;
        if config.has_qkv_bias() {
            visit(names.of(&format!("self_attn.{projection}.bias")), &[width], TensorRole::Bias)?;
        }
    }
    visit(names.of("self_attn.o_proj.weight"), &[d, queries], TensorRole::Projection)?;
    if config.has_output_bias() {
        visit(names.of("self_attn.o_proj.bias"), &[d], TensorRole::Bias)?;
    }
    let (query_norm, key_norm) = match config.family().rules().qk_norm {
        QkNorm::None => return Ok(()),
        QkNorm::FullWidth => (queries, keys),
        QkNorm::PerHead => (config.head_width(), config.head_width()),
    };
    visit(names.of("self_attn.q_norm.weight"), &[query_norm], TensorRole::Norm)?;
    visit(names.of("self_attn.k_norm.weight"), &[key_norm], TensorRole::Norm)
}

fn experts(config: &ModelConfig, names: LayerNames, visit: Visit<'_>) -> Result<(), ModelError> {
    let rules = config.family().rules();
    let (d, e, f) = (config.hidden(), config.experts(), config.expert_width());
    visit(names.moe("gate.weight"), &[e, d], TensorRole::Router)?;
    if names.layout.fused {
        visit(names.moe("experts.gate_up_proj"), &[e, 2 * f, d], TensorRole::FusedExperts)?;
        visit(names.moe("experts.down_proj"), &[e, d, f], TensorRole::FusedExperts)?;
    } else {
        let [gate, up, down] = rules.expert_projections;
        for expert in 0..e {
            visit(names.expert(expert, gate), &[f, d], TensorRole::Projection)?;
            visit(names.expert(expert, up), &[f, d], TensorRole::Projection)?;
            visit(names.expert(expert, down), &[d, f], TensorRole::Projection)?;
        }
    }
    match rules.shared {
        SharedExperts::Added if config.shared_width() > 0 => {
            swiglu(&names.moe("shared_experts"), d, config.shared_width(), visit)
        }
        SharedExperts::None | SharedExperts::Added => Ok(()),
        SharedExperts::Gated => {
            swiglu(&names.moe("shared_expert"), d, config.shared_width(), visit)?;
            visit(names.moe("shared_expert_gate.weight"), &[1, d], TensorRole::SharedGate)
        }
    }
}

fn swiglu(module: &str, d: usize, width: usize, visit: Visit<'_>) -> Result<(), ModelError> {
    visit(format!("{module}.gate_proj.weight"), &[width, d], TensorRole::Projection)?;
    visit(format!("{module}.up_proj.weight"), &[width, d], TensorRole::Projection)?;
    visit(format!("{module}.down_proj.weight"), &[d, width], TensorRole::Projection)
}

/// Compares the checkpoint with its configuration: every expected tensor is there with its shape, and no
/// other is. Rotary buffers are passed over, and so is the head of a tied model.
pub(crate) fn check(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<Vec<ExpertLayout>, ModelError> {
    let layouts = expert_layouts(config, checkpoint);
    let mut seen = HashSet::new();
    for_each_expected(config, |layer| layouts[layer], &mut |tensor, expected, _| {
        let Some(entry) = checkpoint.tensor(&tensor) else {
            let (file, expected) = (checkpoint.dir().display().to_string(), expected.to_vec());
            return Err(ModelError::MissingTensor { file, tensor, expected });
        };
        if entry.shape != expected {
            let (found, expected) = (entry.shape.to_vec(), expected.to_vec());
            let file = entry.file.display().to_string();
            return Err(ModelError::Shape { file, tensor, found, expected });
        }
        seen.insert(tensor);
        Ok(())
    })?;
    let extra = checkpoint.tensors().find(|entry| {
        let passed_over = entry.name.ends_with(".rotary_emb.inv_freq")
            || (entry.name == "lm_head.weight" && config.has_tied_head());
        !passed_over && !seen.contains(entry.name)
    });
    match extra {
        None => Ok(layouts),
        Some(entry) => Err(ModelError::ExtraTensor {
            file: entry.file.display().to_string(),
            tensor: entry.name.to_owned(),
            model_type: config.family().model_type(),
        }),
    }
}

/// As [`check`], and whether the checkpoint can be held in that precision.
pub(crate) fn check_precision(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    precision: Precision,
) -> Result<Vec<ExpertLayout>, ModelError> {
    let layouts = check(config, checkpoint)?;
    let four_bit = checkpoint.is_four_bit();
    if four_bit && precision != Precision::Nf4 {
        return Err(ModelError::DensePrecision { dir: checkpoint.dir().to_owned(), found: precision });
    }
    if config.is_four_bit() && !four_bit {
        let file = checkpoint.config_file().display().to_string();
        return Err(ModelError::NothingQuantised { file });
    }
    Ok(layouts)
}
