//! Shapes that a `config.json` gives by several fields together.

use serde_json::Value;

use super::fields::Fields;
use super::{HEAD_WIDTH, HEADS, LAYERS, SHARED, THETA, WIDTH};
use crate::family::{DenseLayers, FamilyRules, SharedExperts};
use crate::{ModelError, StorageType};

/// Query heads, key and value heads, and the width of a head.
pub(super) fn attention_shape(
    fields: &Fields<'_>,
    hidden: usize,
) -> Result<(usize, usize, usize), ModelError> {
    let heads = fields.whole("num_attention_heads", HEADS)?;
    let kv_heads = fields.whole_or("num_key_value_heads", heads, 1..=heads)?;
    let refuse = |field, found: usize, expected: String| {
        Err(ModelError::FieldRange {
            file: fields.file.to_owned(),
            field,
            found: found.to_string(),
            expected,
        })
    };
    if !heads.is_multiple_of(kv_heads) {
        return refuse("num_key_value_heads", kv_heads, format!("a divisor of {heads} attention heads"));
    }
    let head_width = match fields.get("head_dim") {
        Some(_) => fields.whole("head_dim", HEAD_WIDTH)?,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return refuse("hidden_size", hidden, format!("a multiple of {heads} attention heads")),
    };
    if !head_width.is_multiple_of(2) {
        return refuse("head_dim", head_width, "an even number, for the rotation".to_owned());
    }
    Ok((heads, kv_heads, head_width))
}

/// Whether each layer has experts.
pub(super) fn moe_layers(
    fields: &Fields<'_>,
    rules: &FamilyRules,
    layers: usize,
) -> Result<Vec<bool>, ModelError> {
    let moe: Vec<bool> = match rules.dense_layers {
        DenseLayers::Never => vec![true; layers],
        DenseLayers::FirstAndFrequency => {
            let first = fields.whole_or("first_k_dense_replace", 0, 0..=*LAYERS.end())?;
            let frequency = fields.whole_or("moe_layer_freq", 1, LAYERS)?;
            (0..layers).map(|l| l >= first && l.is_multiple_of(frequency)).collect()
        }
        DenseLayers::ListAndStep => {
            let dense = fields.layer_list("mlp_only_layers", layers)?;
            let step = fields.whole_or("decoder_sparse_step", 1, LAYERS)?;
            (0..layers).map(|l| dense.binary_search(&l).is_err() && (l + 1).is_multiple_of(step)).collect()
        }
    };
    if !moe.contains(&true) {
        return Err(ModelError::FieldRange {
            file: fields.file.to_owned(),
            field: "num_hidden_layers",
            found: layers.to_string(),
            expected: "at least one layer with experts".to_owned(),
        });
    }
    Ok(moe)
}

/// Width of the block that every token goes through, 0 for none.
pub(super) fn shared_width(
    fields: &Fields<'_>,
    rules: &FamilyRules,
    expert_width: usize,
) -> Result<usize, ModelError> {
    match rules.shared {
        SharedExperts::None => Ok(0),
        SharedExperts::Added => Ok(fields.whole_or("n_shared_experts", 0, SHARED)? * expert_width),
        SharedExperts::Gated => fields.whole("shared_expert_intermediate_size", WIDTH),
    }
}

/// `rope_theta` stands at the top level, or (transformers 5) inside `rope_parameters`.
pub(super) fn rope_theta(fields: &Fields<'_>, rules: &FamilyRules) -> Result<f64, ModelError> {
    for nested in ["rope_parameters", "rope_scaling"] {
        let object = fields.get(nested).and_then(Value::as_object);
        if let Some(object) = object.filter(|object| object.contains_key("rope_theta")) {
            return Fields { file: fields.file, object }.number_or("rope_theta", rules.rope_theta, THETA);
        }
    }
    fields.number_or("rope_theta", rules.rope_theta, THETA)
}

/// Whether bitsandbytes quantised the scales too.
pub(super) fn double_quant(fields: &Fields<'_>) -> bool {
    let said = fields.get("quantization_config").and_then(|found| found.get("bnb_4bit_use_double_quant"));
    said.and_then(Value::as_bool).unwrap_or(false)
}

/// A hint, from which no result is computed: a name that is none of these is passed over.
pub(super) fn stored_type(fields: &Fields<'_>) -> Option<StorageType> {
    let name = fields.get("torch_dtype").or_else(|| fields.get("dtype"))?;
    match name.as_str()? {
        "bfloat16" => Some(StorageType::Bf16),
        "float16" => Some(StorageType::F16),
        "float32" => Some(StorageType::F32),
        _ => None,
    }
}
