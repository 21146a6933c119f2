//! The `quantization_config` of a checkpoint that is written.

use moetrace_nf4::ElementType;
use serde_json::{Value, json};

use crate::Quantisation;

/// What transformers writes for bitsandbytes in 4 bits, with the modules that were left out.
///
/// Module names are matched by their last part, so `gate` means routers and not `gate_proj`. They must be
/// listed: transformers refuses a linear module without quantised weights that is not.
pub(crate) fn quantization_config(quantisation: Quantisation, compute: ElementType) -> Value {
    let skipped: &[&str] =
        if quantisation.router { &["lm_head"] } else { &["lm_head", "gate", "shared_expert_gate"] };
    json!({
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "bnb_4bit_compute_dtype": compute.torch_name(),
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": quantisation.nf4.double_quant,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": true,
        "load_in_8bit": false,
        "quant_method": "bitsandbytes"
    })
}
