//! Fresh random models and texts: the GPU against the CPU engine, in widths of the fast kernels and in others.

use std::path::Path;

use moetrace_model::synthetic::{SyntheticSettings, write_checkpoint};
use moetrace_model::{
    ComputeDtype, CpuSettings, CudaSettings, Family, Precision, QuantiseSettings, quantise_checkpoint,
};
use serde_json::{Value, json};

use super::comparison::compare;
use super::support::settings;
use crate::recorder::tokens;
use crate::support::{alone, asked};

/// Around the tiles of kernels, and longer than them.
const LENGTHS: [usize; 6] = [1, 63, 64, 65, 511, 4097];
const VOCABULARY: u32 = 500;

/// Three layers, the first dense where the family has such; heads of 64 or 128, experts of 128.
fn config(family: Family, head_width: usize) -> Value {
    let mut config = json!({
        "model_type": family.model_type(), "hidden_act": "silu", "hidden_size": 256, "vocab_size": VOCABULARY,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": head_width,
        "intermediate_size": 256, "moe_intermediate_size": 128, "num_experts_per_tok": 4, "rms_norm_eps": 1e-6,
        "n_routed_experts": 16, "num_experts": 16, "num_local_experts": 16, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "shared_expert_intermediate_size": 384, "norm_topk_prob": true,
        "tie_word_embeddings": false, "rope_theta": 10000.0
    });
    if family == Family::Mixtral || family == Family::Olmoe {
        config["intermediate_size"] = json!(128);
    }
    config
}

fn write(dir: &Path, config: &Value, seed: u64) {
    write_checkpoint(dir, config, &SyntheticSettings { seed, ..SyntheticSettings::default() }).unwrap();
}

fn samples() -> Vec<Vec<u32>> {
    let text = |(seed, length): (usize, &usize)| tokens(seed as u32 + 7, *length, VOCABULARY);
    LENGTHS.iter().enumerate().map(text).collect()
}

fn cpu(precision: Precision) -> CpuSettings {
    CpuSettings { precision, threads: 8, ..CpuSettings::default() }
}

#[test]
fn both_engines_agree_on_fresh_models_and_texts() {
    if !asked() {
        return;
    }
    let _alone = alone();
    for (number, family) in Family::ALL.into_iter().enumerate() {
        for head_width in [64, 128] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &config(family, head_width), (number + head_width) as u64);
            let what = format!("{family} {head_width}");
            let gpu = settings(Precision::F32, 6000);
            compare(dir.path(), cpu(Precision::F32), gpu, &samples()).assert_exact(&format!("{what} f32"));
            for (precision, limit) in [(Precision::Bf16, 2e-2), (Precision::F16, 5e-3)] {
                for portable in [false, true] {
                    let gpu = CudaSettings { portable, ..settings(precision, 6000) };
                    let what = format!("{what} {precision}, portable {portable}");
                    compare(dir.path(), cpu(precision), gpu, &samples()).assert_rounded(&what, limit);
                }
            }
        }
    }
}

#[test]
fn four_bit_weights_give_what_the_cpu_gives_with_them() {
    if !asked() {
        return;
    }
    let _alone = alone();
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config(family, 64), 99);
        let compute = Some(ComputeDtype::F32);
        for double_quant in [true, false] {
            let mut cpu = CpuSettings { compute, ..cpu(Precision::Nf4) };
            cpu.quantisation.nf4.double_quant = double_quant;
            cpu.quantisation.router = !double_quant;
            let quantisation = cpu.quantisation;
            let gpu = CudaSettings { compute, quantisation, ..settings(Precision::Nf4, 6000) };
            compare(dir.path(), cpu, gpu, &samples()).assert_exact(&format!("{family} nf4"));
        }
    }
}

/// Shapes of published models that the five above do not have: a dense layer in the middle, other numbers of experts,
/// no shared experts, a tied head; and widths that no fast kernel takes.
#[test]
fn other_shapes_agree_too() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let change = |family, changes: &[(&str, Value)]| {
        let mut config = config(family, 64);
        for (field, value) in changes {
            config[*field] = value.clone();
        }
        config
    };
    let cases = [
        change(Family::Qwen2Moe, &[("mlp_only_layers", json!([1])), ("num_experts", json!(60))]),
        change(Family::Qwen3Moe, &[("num_experts", json!(128)), ("num_experts_per_tok", json!(8))]),
        change(Family::DeepSeek, &[("n_shared_experts", json!(0)), ("tie_word_embeddings", json!(true))]),
        change(Family::Olmoe, &[("num_experts_per_tok", json!(16)), ("head_dim", json!(6))]),
        change(Family::Mixtral, &[("intermediate_size", json!(52)), ("head_dim", json!(24))]),
    ];
    for (number, config) in cases.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), config, number as u64);
        let texts = &samples()[..5];
        for precision in [Precision::F32, Precision::Bf16] {
            let found = compare(dir.path(), cpu(precision), settings(precision, 1000), texts);
            let what = format!("shape {number} in {precision}");
            match precision {
                Precision::F32 => found.assert_exact(&what),
                _ => found.assert_rounded(&what, 2e-2),
            }
        }
    }
}

#[test]
fn a_checkpoint_stored_in_four_bits_runs_as_it_stands() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let (dense, stored) = (root.path().join("dense"), root.path().join("stored"));
    std::fs::create_dir(&dense).unwrap();
    write(&dense, &config(Family::DeepSeek, 64), 5);
    quantise_checkpoint(&dense, &stored, &QuantiseSettings::default(), &mut |_| {}).unwrap();
    let compute = Some(ComputeDtype::F32);
    let cpu = CpuSettings { compute, ..cpu(Precision::Nf4) };
    let gpu = CudaSettings { compute, ..settings(Precision::Nf4, 6000) };
    compare(&stored, cpu, gpu, &samples()).assert_exact("stored in 4 bits");
}
