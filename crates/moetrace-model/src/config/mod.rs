//! A model's `config.json`: one reader for all families.

mod derived;
mod features;
mod fields;
mod sizes;

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use moetrace_routing::{LayerIndex, RoutingGeometry};
use serde_json::Value;

use self::derived::{attention_shape, double_quant, moe_layers, rope_theta, shared_width, stored_type};
use self::features::refuse_unsupported;
use self::fields::{Fields, shortened};
use crate::family::{AttentionBias, Family, Renormalise, SharedExperts};
use crate::{ModelError, StorageType};

/// A configuration is a few kilobytes; more is not a configuration.
const CONFIG_BYTES: u64 = 4 << 20;

// Ranges of every field: a few times the largest published model, so that a hostile file cannot make a
// product overflow or ask for memory that no machine has.
const WIDTH: RangeInclusive<usize> = 1..=1 << 20;
const LAYERS: RangeInclusive<usize> = 1..=4096;
const HEADS: RangeInclusive<usize> = 1..=4096;
const HEAD_WIDTH: RangeInclusive<usize> = 2..=4096;
const VOCAB: RangeInclusive<usize> = 1..=1 << 24;
const EXPERTS: RangeInclusive<usize> = 1..=1 << 16;
const SHARED: RangeInclusive<usize> = 0..=1024;
const EPSILON: RangeInclusive<f64> = 1e-12..=1.0;
const THETA: RangeInclusive<f64> = 1.0..=1e12;

/// A checked configuration of a supported model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    family: Family,
    hidden: usize,
    layers: usize,
    vocab: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    experts: usize,
    chosen: usize,
    expert_width: usize,
    shared_width: usize,
    dense_width: usize,
    moe_layers: Vec<bool>,
    qkv_bias: bool,
    output_bias: bool,
    renormalise: bool,
    tied_head: bool,
    rms_norm_eps: f64,
    rope_theta: f64,
    bos_token_id: Option<u32>,
    four_bit: bool,
    double_quant: bool,
    stored: Option<StorageType>,
    geometry: RoutingGeometry,
}

impl ModelConfig {
    /// Reads `config.json` in a checkpoint's folder.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::FileSize`], and whatever [`parse`](Self::parse) refuses.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        let io = |source| ModelError::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        File::open(&path).map_err(io)?.take(CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Parses the bytes of a configuration; `file` is its name in messages.
    ///
    /// # Errors
    /// [`ModelError::Json`], [`ModelError::ModelType`], [`ModelError::Unsupported`],
    /// [`ModelError::MissingField`], [`ModelError::FieldRange`] or [`ModelError::TooLarge`].
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, ModelError> {
        if bytes.len() as u64 > CONFIG_BYTES {
            let bytes = bytes.len() as u64;
            return Err(ModelError::FileSize { file: file.to_owned(), bytes, limit: CONFIG_BYTES });
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|source| ModelError::Json { file: file.to_owned(), source })?;
        let empty = serde_json::Map::new();
        let fields = Fields { file, object: value.as_object().unwrap_or(&empty) };
        let model_type = fields.get("model_type").unwrap_or(&Value::Null);
        let family = model_type.as_str().and_then(Family::from_model_type).ok_or_else(|| {
            let expected = Family::ALL.map(Family::model_type).join(", ");
            ModelError::ModelType { file: file.to_owned(), found: shortened(model_type), expected }
        })?;
        refuse_unsupported(&fields, family.rules())?;
        let config = Self::from_fields(&fields, family)?;
        config.check_products(file)?;
        Ok(config)
    }

    fn from_fields(fields: &Fields<'_>, family: Family) -> Result<Self, ModelError> {
        let rules = family.rules();
        let hidden = fields.whole("hidden_size", WIDTH)?;
        let layers = fields.whole("num_hidden_layers", LAYERS)?;
        let (heads, kv_heads, head_width) = attention_shape(fields, hidden)?;
        let experts = fields.whole(rules.experts_field, EXPERTS)?;
        let chosen = fields.whole("num_experts_per_tok", 1..=experts)?;
        let expert_width = fields.whole(rules.expert_width_field, WIDTH)?;
        let moe_layers = moe_layers(fields, rules, layers)?;
        let routed = moe_layers.iter().enumerate().filter(|(_, moe)| **moe);
        let routed: Vec<_> = routed.map(|(layer, _)| LayerIndex(layer as u16)).collect();
        let mut geometry = RoutingGeometry::new(experts, chosen, hidden, routed)?;
        if rules.shared == SharedExperts::Gated {
            geometry = geometry.with_shared_gate();
        }
        let every_layer_routes = moe_layers.iter().all(|moe| *moe);
        let attention_bias = fields.flag_or("attention_bias", false)?;
        Ok(Self {
            family,
            hidden,
            layers,
            vocab: fields.whole("vocab_size", VOCAB)?,
            heads,
            kv_heads,
            head_width,
            experts,
            chosen,
            expert_width,
            shared_width: shared_width(fields, rules, expert_width)?,
            dense_width: if every_layer_routes { 0 } else { fields.whole("intermediate_size", WIDTH)? },
            moe_layers,
            qkv_bias: match rules.bias {
                AttentionBias::Never => false,
                AttentionBias::AllByField => attention_bias,
                AttentionBias::QkvByField => fields.flag_or("qkv_bias", true)?,
            },
            output_bias: rules.bias == AttentionBias::AllByField && attention_bias,
            renormalise: match rules.renormalise {
                Renormalise::Always => true,
                Renormalise::Field => fields.flag_or("norm_topk_prob", false)?,
                Renormalise::FieldUnlessSingle => fields.flag_or("norm_topk_prob", false)? && chosen > 1,
            },
            tied_head: fields.flag_or("tie_word_embeddings", false)?,
            rms_norm_eps: fields.number_or("rms_norm_eps", rules.rms_norm_eps, EPSILON)?,
            rope_theta: rope_theta(fields, rules)?,
            bos_token_id: fields
                .get("bos_token_id")
                .and_then(Value::as_u64)
                .and_then(|id| id.try_into().ok()),
            // Any other kind of quantisation has been refused.
            four_bit: fields.get("quantization_config").is_some(),
            double_quant: double_quant(fields),
            stored: stored_type(fields),
            geometry,
        })
    }

    /// The family, which names tensors and orders the router's arithmetic.
    pub fn family(&self) -> Family {
        self.family
    }
    /// D, the width of the residual stream.
    pub fn hidden(&self) -> usize {
        self.hidden
    }
    /// All decoder layers, with experts or without.
    pub fn layers(&self) -> usize {
        self.layers
    }
    /// Entries of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }
    /// H, the query heads.
    pub fn heads(&self) -> usize {
        self.heads
    }
    /// Key and value heads; a divisor of [`heads`](Self::heads).
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }
    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.head_width
    }
    /// E, the routed experts of a layer.
    pub fn experts(&self) -> usize {
        self.experts
    }
    /// K, the experts chosen for each token.
    pub fn chosen(&self) -> usize {
        self.chosen
    }
    /// F, the width of a routed expert.
    pub fn expert_width(&self) -> usize {
        self.expert_width
    }
    /// Width of the block that every token goes through; 0 where there is none.
    pub fn shared_width(&self) -> usize {
        self.shared_width
    }
    /// Width of the feed-forward block in layers without experts; 0 where every layer has experts.
    pub fn dense_width(&self) -> usize {
        self.dense_width
    }
    /// Whether the layer has a router.
    pub fn is_moe(&self, layer: usize) -> bool {
        self.moe_layers.get(layer).copied().unwrap_or(false)
    }
    /// Whether query, key and value projections have a bias.
    pub fn has_qkv_bias(&self) -> bool {
        self.qkv_bias
    }
    /// Whether the output projection of attention has a bias.
    pub fn has_output_bias(&self) -> bool {
        self.output_bias
    }
    /// Whether the K weights of a token are divided by their sum.
    pub fn renormalises(&self) -> bool {
        self.renormalise
    }
    /// Whether the language-model head is the embedding matrix.
    pub fn has_tied_head(&self) -> bool {
        self.tied_head
    }
    /// Added to the mean square in every RMSNorm.
    pub fn rms_norm_eps(&self) -> f64 {
        self.rms_norm_eps
    }
    /// Base of the rotary frequencies.
    pub fn rope_theta(&self) -> f64 {
        self.rope_theta
    }
    /// The token that begins a sequence, if the configuration names one.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos_token_id
    }
    /// Whether `quantization_config` says that the checkpoint is stored in 4 bits (bitsandbytes, NF4).
    pub fn is_four_bit(&self) -> bool {
        self.four_bit
    }
    /// Whether the scales of a checkpoint in 4 bits are stored in 8 bits.
    pub fn has_double_quantised_scales(&self) -> bool {
        self.double_quant
    }
    /// The type that `torch_dtype` (in transformers 5 `dtype`) says the weights were saved in. The files may differ.
    pub fn stored_type(&self) -> Option<StorageType> {
        self.stored
    }
    /// What a listener must know about this model.
    pub fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }
}
