//! What the CUDA engine would take, counted without a GPU.

use moetrace_cuda::Architecture;
use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{
    Checkpoint, CheckpointSettings, ComputeDtype, CudaMemoryPlan, CudaSettings, Family, LARGEST_PASS,
    ModelConfig, Nf4Settings, Precision, Quantisation,
};
use moetrace_routing::Planes;
use proptest::prelude::*;
use serde_json::json;

const HOPPER: Architecture = Architecture::Sm90a;

fn deepseek() -> ModelConfig {
    let config = json!({
        "model_type": "deepseek", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
        "moe_layer_freq": 1, "vocab_size": 102_400, "norm_topk_prob": false, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 10000, "scoring_func": "softmax", "bos_token_id": 100_000
    });
    ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
}

fn settings(precision: Precision) -> CudaSettings {
    CudaSettings { precision, ..CudaSettings::default() }
}

#[test]
fn deepseek_in_four_bits_takes_what_an_h200_showed_and_little_more() {
    let config = deepseek();
    let plan = CudaMemoryPlan::new(&config, None, &settings(Precision::Nf4), HOPPER).unwrap();
    let memory = plan.memory(40_960);
    // 4.127 bit for 15.95 billion weights, and the embedding in bf16.
    assert!((8.6e9..8.7e9).contains(&(memory.weights as f64)), "{memory:?}");
    let measured = 11.2 * f64::from(1 << 30);
    let ratio = memory.total() as f64 / measured;
    assert!((1.0..1.1).contains(&ratio), "{memory:?}: {ratio:.3} of what was measured");
    assert_eq!(memory.total(), memory.weights + memory.buffers + memory.context_reserve);
}

#[test]
fn weights_are_as_many_bytes_as_the_precision_says() {
    let config = deepseek();
    let of = |precision, nll| {
        let planes = Planes { nll, ..Planes::default() };
        let settings = CudaSettings { planes, ..settings(precision) };
        CudaMemoryPlan::new(&config, None, &settings, HOPPER).unwrap().memory(512).weights
    };
    let head = 102_400 * 2048;
    assert_eq!(of(Precision::Bf16, true), 2 * config.total_parameters());
    assert_eq!(of(Precision::F32, true), 4 * config.total_parameters());
    assert_eq!(of(Precision::Bf16, true) - of(Precision::Bf16, false), 2 * head, "the head is not loaded");
    assert_eq!(of(Precision::Nf4, true) - of(Precision::Nf4, false), 2 * head);
}

#[test]
fn a_checkpoint_tells_how_it_is_quantised_itself() {
    let plain = Quantisation {
        nf4: Nf4Settings { double_quant: false, ..Nf4Settings::default() },
        ..Quantisation::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let synthetic = SyntheticSettings { quantisation: Some(plain), ..SyntheticSettings::default() };
    write_checkpoint(dir.path(), &tiny_config(Family::DeepSeek), &synthetic).unwrap();
    let config = ModelConfig::read(dir.path()).unwrap();
    let checkpoint = Checkpoint::open(dir.path(), &CheckpointSettings { mmap: false }).unwrap();
    let weights = |checkpoint, quantisation| {
        let settings = CudaSettings { quantisation, ..settings(Precision::Nf4) };
        CudaMemoryPlan::new(&config, checkpoint, &settings, HOPPER).unwrap().memory(512).weights
    };
    assert_eq!(weights(Some(&checkpoint), Quantisation::default()), weights(None, plain));
    assert!(weights(None, plain) > weights(None, Quantisation::default()));
}

#[test]
fn a_gpu_without_the_grouped_kernel_and_wider_activations_take_more() {
    let config = deepseek();
    let buffers = |settings: CudaSettings, architecture| {
        CudaMemoryPlan::new(&config, None, &settings, architecture).unwrap().memory(8192).buffers
    };
    let nf4 = settings(Precision::Nf4);
    let exact = CudaSettings { compute: Some(ComputeDtype::F32), ..nf4 };
    assert!(buffers(nf4, Architecture::Sm80) > buffers(nf4, HOPPER));
    assert!(buffers(exact, HOPPER) > buffers(nf4, Architecture::Sm80));
    let logits = CudaSettings { planes: Planes { logits: true, ..Planes::default() }, ..nf4 };
    assert!(buffers(logits, HOPPER) > buffers(nf4, HOPPER));
}

proptest! {
    #[test]
    fn the_largest_pass_fits_and_the_next_does_not(gigabytes in 8.0f64..40.0, least in 1usize..5000) {
        let config = deepseek();
        let plan = CudaMemoryPlan::new(&config, None, &settings(Precision::Nf4), HOPPER).unwrap();
        let (bytes, most) = ((gigabytes * 1e9) as u64, 40_960);
        match plan.largest_pass(bytes, least..=most) {
            None => prop_assert!(plan.memory(least).total() > bytes),
            Some(tokens) => {
                prop_assert!((least..=most).contains(&tokens));
                prop_assert!(tokens.is_multiple_of(512) || tokens == least);
                prop_assert!(plan.memory(tokens).total() <= bytes);
                let next = (tokens + 1).next_multiple_of(512);
                prop_assert!(next > most || plan.memory(next).total() > bytes);
            }
        }
    }
}

#[test]
fn no_pass_is_planned_beyond_what_products_were_asked_for() {
    let config = deepseek();
    let plan = CudaMemoryPlan::new(&config, None, &settings(Precision::Nf4), HOPPER).unwrap();
    assert_eq!(plan.largest_pass(u64::MAX, 1..=usize::MAX), Some(LARGEST_PASS));
    assert_eq!(plan.memory(usize::MAX), plan.memory(LARGEST_PASS));
    assert_eq!(plan.largest_pass(u64::MAX, LARGEST_PASS + 1..=usize::MAX), None);
}
