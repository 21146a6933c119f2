//! What the CUDA engine would take, counted without a GPU.

use moetrace_cuda::Architecture;
use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{
    Checkpoint, CheckpointSettings, ComputeDtype, CudaMemoryPlan, CudaSettings, Family, LARGEST_PASS,
    ModelConfig, Nf4Settings, Precision, Quantisation,
};
use moetrace_routing::Planes;
use serde_json::json;

const HOPPER: Architecture = Architecture::Sm90a;

pub(crate) fn deepseek() -> ModelConfig {
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
    // 4.127 bit for 15.38 billion weights, those of the last block left out, and the embedding in bf16.
    assert!((8.3e9..8.4e9).contains(&(memory.weights as f64)), "{memory:?}");
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
    // Routing ends with the last router: 64 experts and the shared block behind it are for losses alone.
    let block = 3 * 2048 * (64 * 1408 + 2 * 1408);
    assert_eq!(of(Precision::Bf16, true), 2 * config.total_parameters());
    assert_eq!(of(Precision::F32, true), 4 * config.total_parameters());
    assert_eq!(of(Precision::Bf16, true) - of(Precision::Bf16, false), 2 * (head + block));
    let in_four_bits = of(Precision::Nf4, true) - of(Precision::Nf4, false) - 2 * head;
    // 4.127 bit each.
    assert!((0.515..0.517).contains(&(in_four_bits as f64 / block as f64)), "{in_four_bits}");
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
fn every_gpu_takes_the_same_buffers_and_wider_activations_and_planes_take_more() {
    let config = deepseek();
    let buffers = |settings: CudaSettings, architecture| {
        CudaMemoryPlan::new(&config, None, &settings, architecture).unwrap().memory(8192).buffers
    };
    let nf4 = settings(Precision::Nf4);
    let portable = CudaSettings { portable: true, ..nf4 };
    for architecture in Architecture::ALL {
        assert_eq!(buffers(nf4, architecture), buffers(nf4, HOPPER), "{architecture}");
        assert_eq!(buffers(portable, architecture), buffers(nf4, HOPPER), "{architecture}, portable");
    }
    // Twice the width, and room for gates and ups, which a product each writes out.
    let exact = CudaSettings { compute: Some(ComputeDtype::F32), ..nf4 };
    assert!(buffers(exact, HOPPER) > 2 * buffers(nf4, HOPPER));
    let logits = CudaSettings { planes: Planes { logits: true, ..Planes::default() }, ..nf4 };
    assert!(buffers(logits, HOPPER) > buffers(nf4, HOPPER));
}

#[test]
fn a_pass_in_one_piece_is_counted_up_to_what_products_were_asked_for() {
    let config = deepseek();
    let plan = CudaMemoryPlan::new(&config, None, &settings(Precision::Nf4), HOPPER).unwrap();
    assert_eq!(plan.memory(usize::MAX), plan.memory(LARGEST_PASS));
}
