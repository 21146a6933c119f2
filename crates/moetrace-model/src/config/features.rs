//! Features that a `config.json` can ask for and this crate does not compute: refused, never ignored.

use serde_json::Value;

use super::fields::Fields;
use crate::ModelError;
use crate::family::FamilyRules;

pub(super) fn refuse_unsupported(fields: &Fields<'_>, rules: &FamilyRules) -> Result<(), ModelError> {
    if let Some(found) = fields.get("hidden_act").filter(|v| !matches!(v.as_str(), Some("silu" | "swish"))) {
        return Err(fields.unsupported("hidden_act", found, "silu"));
    }
    if let Some(found) = fields.get("scoring_func").filter(|v| v.as_str() != Some("softmax")) {
        return Err(fields.unsupported("scoring_func", found, "softmax"));
    }
    if let Some(found) = fields.get("clip_qkv") {
        return Err(fields.unsupported("clip_qkv", found, "null"));
    }
    if let Some(found) = fields.get("quantization_config").filter(|found| !is_nf4(found)) {
        return Err(fields.unsupported("quantization_config", found, "bitsandbytes in 4 bits, type nf4"));
    }
    if let Some(found) = fields.get("partial_rotary_factor").filter(|v| v.as_f64() != Some(1.0)) {
        return Err(fields.unsupported("partial_rotary_factor", found, "1"));
    }
    if let Some(found) = fields.get("rope_scaling").filter(|v| !is_plain_rope(v)) {
        return Err(fields.unsupported("rope_scaling", found, "null"));
    }
    if let Some(found) = fields.get("rope_parameters").filter(|v| !is_plain_rope(v)) {
        return Err(fields.unsupported("rope_parameters", found, "rope_type default"));
    }
    refuse_windows(fields, rules)
}

fn refuse_windows(fields: &Fields<'_>, rules: &FamilyRules) -> Result<(), ModelError> {
    if let Some(found) = fields.get("layer_types") {
        let full = |kind: &Value| kind.as_str() == Some("full_attention");
        if !found.as_array().is_some_and(|kinds| kinds.iter().all(full)) {
            return Err(fields.unsupported("layer_types", found, "full_attention in every layer"));
        }
    }
    let switched = fields.flag_or("use_sliding_window", !rules.window_needs_switch)?;
    match fields.get("sliding_window").filter(|_| switched) {
        Some(found) => Err(fields.unsupported("sliding_window", found, "null")),
        None => Ok(()),
    }
}

/// A rotary description (as a dictionary, transformers 5) that only says the default.
fn is_plain_rope(value: &Value) -> bool {
    let Some(object) = value.as_object() else { return false };
    let kind = object.get("rope_type").or_else(|| object.get("type"));
    let plain_kind = kind.is_none_or(|k| k.as_str() == Some("default"));
    plain_kind
        && object.iter().all(|(key, value)| match key.as_str() {
            "rope_type" | "type" | "rope_theta" => true,
            "partial_rotary_factor" => value.as_f64() == Some(1.0),
            _ => value.is_null(),
        })
}

/// A `quantization_config` of bitsandbytes in NF4, as transformers writes it; old ones lack `quant_method`.
fn is_nf4(value: &Value) -> bool {
    let word = |key| value.get(key).and_then(Value::as_str);
    let holds = |key| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    word("quant_method").is_none_or(|method| method == "bitsandbytes")
        && (holds("load_in_4bit") || holds("_load_in_4bit"))
        && !holds("load_in_8bit")
        && word("bnb_4bit_quant_type") == Some("nf4")
}
