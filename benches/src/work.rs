//! Floating-point operations of a pass, as the peers count them: two for each weight that a token meets.
//!
//! Products of queries with keys and of probabilities with values are left out, as is the language-model head.

use moetrace_model::ModelConfig;
use serde_json::{Value, json};

/// Operations per token of the whole base model: also of the last layer's experts, at which a trace ends.
pub fn model_flops(config: &ModelConfig) -> u64 {
    (0..config.layers()).map(|layer| attention_flops(config) + block_flops(config, layer)).sum()
}

/// Operations per token up to the last router, where a pass ends that records routing and nothing else.
pub fn traced_flops(config: &ModelConfig) -> u64 {
    let Some(last) = (0..config.layers()).rfind(|layer| config.is_moe(*layer)) else { return 0 };
    let before: u64 = (0..last).map(|layer| attention_flops(config) + block_flops(config, layer)).sum();
    before + attention_flops(config) + router_flops(config)
}

fn attention_flops(config: &ModelConfig) -> u64 {
    let heads = 2 * config.heads() + 2 * config.kv_heads();
    2 * (config.hidden() * heads * config.head_width()) as u64
}

fn router_flops(config: &ModelConfig) -> u64 {
    2 * (config.hidden() * config.experts()) as u64
}

/// Router, chosen and shared experts, or the dense block.
fn block_flops(config: &ModelConfig, layer: usize) -> u64 {
    if !config.is_moe(layer) {
        return 6 * (config.hidden() * config.dense_width()) as u64;
    }
    let width = config.chosen() * config.expert_width() + config.shared_width();
    router_flops(config) + 6 * (config.hidden() * width) as u64
}

/// The `config.json` of a model of DeepSeek-MoE-16B's width with so many layers, of which the first `dense` have no
/// experts.
pub fn deepseek_config(layers: usize, dense: usize, vocab: usize) -> Value {
    json!({
        "model_type": "deepseek", "hidden_act": "silu", "hidden_size": 2048, "vocab_size": vocab,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
        "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": dense, "moe_layer_freq": 1,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "norm_topk_prob": false, "scoring_func": "softmax",
        "max_position_embeddings": 4096, "attention_bias": false, "tie_word_embeddings": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(layers: usize, dense: usize) -> ModelConfig {
        ModelConfig::parse(deepseek_config(layers, dense, 102_400).to_string().as_bytes(), "config.json")
            .unwrap()
    }

    #[test]
    fn a_token_of_deepseek_moe_takes_what_the_pytorch_peer_counts() {
        // 2 ((L-1) (4 H H + H E + 3 H S I + 3 K H I) + 4 H H + 3 H D) with L 28, H 2048, E 64, K 6, I 1408, S 2, D 10944.
        assert_eq!(model_flops(&parsed(28, 1)), 4_818_206_720);
    }

    #[test]
    fn a_trace_ends_before_the_last_experts() {
        let config = parsed(2, 0);
        let blocks = 6 * 2048 * (6 * 1408 + 2 * 1408);
        assert_eq!(model_flops(&config) - traced_flops(&config), blocks);
    }
}
