//! Where weights and hidden states wait changes no bit, and takes the memory that was planned.

use std::path::Path;

use moetrace_model::synthetic::{SyntheticSettings, write_checkpoint};
use moetrace_model::{
    Checkpoint, CheckpointSettings, CudaEngine, CudaMemoryPlan, CudaSettings, Engine as _, Family,
    ModelConfig, ModelError, Place, Placement, Precision, QuantiseSettings, quantise_checkpoint,
};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};
use serde_json::json;

use super::support::{open, settings};
use crate::recorder::{Recorder, batch, tokens};
use crate::support::{alone, asked};

const LAYERS: usize = 5;
const VOCABULARY: u32 = 3000;
const PASS: usize = 3000;

/// Five layers of 16 experts.
fn write(dir: &Path, family: Family, tied: bool) {
    let mut config = json!({
        "model_type": family.model_type(), "hidden_act": "silu", "hidden_size": 512, "vocab_size": VOCABULARY,
        "num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "intermediate_size": 512, "moe_intermediate_size": 128, "num_experts_per_tok": 4, "rms_norm_eps": 1e-6,
        "n_routed_experts": 16, "num_experts": 16, "num_local_experts": 16, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "shared_expert_intermediate_size": 384, "norm_topk_prob": true,
        "tie_word_embeddings": tied, "rope_theta": 10000.0
    });
    if family == Family::Mixtral || family == Family::Olmoe {
        config["intermediate_size"] = json!(128);
    }
    write_checkpoint(dir, &config, &SyntheticSettings::default()).unwrap();
}

fn texts() -> Vec<Vec<u32>> {
    let lengths = [512, 1, 300, 64, 511, 700, 65, 128, 400, 100];
    lengths.iter().enumerate().map(|(seed, length)| tokens(seed as u32, *length, VOCABULARY)).collect()
}

/// Ways to lay out the same model, by name.
fn placements(config: &ModelConfig) -> Vec<(&'static str, Placement)> {
    let resident = Placement { longest_text: 700, ..Placement::resident(config, PASS) };
    let all = |place| vec![place; LAYERS];
    let mixed = vec![Place::Host, Place::Device, Place::Disk, Place::Host, Place::Device];
    let chunked = Placement { tokens_per_chunk: 1024, ..resident.clone() };
    let parked = Placement { parks_hidden: true, embedding: Place::Host, ..chunked.clone() };
    vec![
        ("chunks", chunked.clone()),
        ("all on the host", Placement { layers: all(Place::Host), ..resident.clone() }),
        ("all on the host, chunks", Placement { layers: all(Place::Host), ..chunked.clone() }),
        ("all on disk, parked", Placement { layers: all(Place::Disk), ..parked.clone() }),
        ("mixed, parked", Placement { layers: mixed.clone(), ..parked }),
        ("mixed", Placement { layers: mixed.clone(), embedding: Place::Host, ..resident.clone() }),
        ("host, 4 groups", Placement { layers: all(Place::Host), expert_groups: 4, ..resident.clone() }),
        ("mixed, 3 groups", Placement { layers: mixed, expert_groups: 3, ..resident.clone() }),
        ("resident, 5 groups", Placement { expert_groups: 5, ..resident }),
    ]
}

fn placed(checkpoint: &Checkpoint, settings: &CudaSettings, placement: &Placement) -> CudaEngine {
    CudaEngine::load_placed(checkpoint, settings, placement, open()).unwrap()
}

fn checkpoint(dir: &Path) -> Checkpoint {
    Checkpoint::open(dir, &CheckpointSettings::default()).unwrap()
}

/// Everything of a pass, and of a second one, which must be the same.
fn run(engine: &mut CudaEngine, samples: &[Vec<u32>], what: &str) -> Recorder {
    let mut first = Recorder::everything();
    let rows = (0..samples.iter().map(Vec::len).sum::<usize>() as u32).step_by(97).collect();
    let batch = batch(samples).with_hidden_rows(rows).unwrap();
    engine.run(&batch, &mut first).unwrap();
    let mut second = Recorder::everything();
    engine.run(&batch, &mut second).unwrap();
    bits_of_losses(&mut first);
    bits_of_losses(&mut second);
    assert!(first.layers == second.layers, "{what}: a second run differs");
    first
}

/// Rows without a loss have NaN, which equals nothing: theirs becomes -1.
fn bits_of_losses(recorder: &mut Recorder) {
    for loss in recorder.layers.iter_mut().filter_map(|layer| layer.nll.as_mut()).flatten() {
        *loss = if loss.is_nan() { -1.0 } else { *loss };
    }
}

fn compare(dir: &Path, settings: &CudaSettings, what: &str) {
    let checkpoint = checkpoint(dir);
    let config = ModelConfig::read(dir).unwrap();
    let resident = Placement::resident(&config, PASS);
    let samples = texts();
    let expected = run(&mut placed(&checkpoint, settings, &resident), &samples, what);
    assert_eq!(expected.layers.len(), config.geometry().layers().len());
    let quantises = settings.precision == Precision::Nf4 && !checkpoint.is_four_bit();
    for (name, placement) in placements(&config) {
        let what = format!("{what}, {name}");
        if quantises && placement.layers.contains(&Place::Disk) {
            let refused = CudaEngine::load_placed(&checkpoint, settings, &placement, open());
            assert!(matches!(refused, Err(ModelError::NotPlanned { .. })), "{what}");
            continue;
        }
        let mut engine = placed(&checkpoint, settings, &placement);
        assert!(run(&mut engine, &samples, &what).layers == expected.layers, "{what}: differs");
        // Passes that are shorter, one of a single chunk, and the long one again.
        for few in [&samples[..4], &samples[2..3]] {
            let short = run(&mut engine, few, &what);
            let alone = run(&mut placed(&checkpoint, settings, &resident), few, &what);
            assert!(short.layers == alone.layers, "{what}: {} texts differ", few.len());
        }
        assert!(run(&mut engine, &samples, &what).layers == expected.layers, "{what}: differs again");
        let usage = engine.usage();
        assert!(usage.passes_ms > 0.0 && usage.waited_ms <= usage.passes_ms, "{what}: {usage:?}");
        assert!(placement.is_resident() || usage.host_bytes > 0, "{what}: {usage:?}");
    }
}

#[test]
fn every_family_has_the_same_bits_wherever_its_weights_are() {
    if !asked() {
        return;
    }
    let _alone = alone();
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), family, family == Family::Olmoe);
        compare(dir.path(), &settings(Precision::Bf16, PASS), &format!("{family} bf16"));
    }
}

#[test]
fn four_bit_weights_have_the_same_bits_wherever_they_are() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let (dir, quantised) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), Family::DeepSeek, false);
    compare(dir.path(), &settings(Precision::Nf4, PASS), "quantised on load");
    let portable = CudaSettings { portable: true, ..settings(Precision::Nf4, PASS) };
    compare(dir.path(), &portable, "quantised on load, portable");
    let out = quantised.path().join("out");
    quantise_checkpoint(dir.path(), &out, &QuantiseSettings::default(), &mut |_| {}).unwrap();
    compare(&out, &settings(Precision::Nf4, PASS), "stored in 4 bits");
    compare(&out, &settings(Precision::Nf4, PASS), "stored in 4 bits");
}

/// Stops a pass at some layer.
struct Stop(usize);

impl RoutingSink for Stop {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, _: &RoutingView<'_>) -> Result<(), SinkError> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| SinkError::new("stopped"))?;
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn a_pass_after_one_that_was_stopped_or_halved_is_well() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), Family::Qwen2Moe, false);
    let checkpoint = checkpoint(dir.path());
    let config = ModelConfig::read(dir.path()).unwrap();
    let settings = settings(Precision::Bf16, PASS);
    let samples = texts();
    let expected =
        run(&mut placed(&checkpoint, &settings, &Placement::resident(&config, PASS)), &samples, "");
    for (name, placement) in placements(&config) {
        let mut engine = placed(&checkpoint, &settings, &placement);
        for layer in 0..LAYERS - 1 {
            engine.run(&batch(&samples), &mut Stop(layer)).unwrap_err();
            assert!(run(&mut engine, &samples, name).layers == expected.layers, "{name}: stopped at {layer}");
        }
        let before = engine.usage().device_bytes;
        let half = engine.halve().unwrap().unwrap();
        assert_eq!(half, 1024, "{name}");
        assert!(engine.usage().device_bytes < before, "{name}: no memory was given back");
        let error = engine.run(&batch(&samples), &mut Stop(0)).unwrap_err();
        assert!(matches!(error, ModelError::PassTooLarge { expected: 1024, .. }), "{name}: {error}");
        for few in [&samples[..4], &samples[5..8]] {
            let whole =
                run(&mut placed(&checkpoint, &settings, &Placement::resident(&config, PASS)), few, name);
            assert!(run(&mut engine, few, name).layers == whole.layers, "{name}: differs when halved");
        }
        assert_eq!(engine.halve().unwrap(), None, "{name}: a text of 700 has no room in 512");
    }
}

#[test]
fn placements_take_the_memory_that_was_planned() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), Family::DeepSeek, false);
    let checkpoint = checkpoint(dir.path());
    let config = ModelConfig::read(dir.path()).unwrap();
    for precision in [Precision::Nf4, Precision::Bf16] {
        for nll in [false, true] {
            let planes = Planes { nll, ..Planes::default() };
            let settings = CudaSettings { planes, ..settings(precision, PASS) };
            let architecture = open().device.architecture();
            let plan = CudaMemoryPlan::new(&config, Some(&checkpoint), &settings, architecture).unwrap();
            for (name, placement) in placements(&config) {
                if precision == Precision::Nf4 && placement.layers.contains(&Place::Disk) {
                    continue;
                }
                let engine = placed(&checkpoint, &settings, &placement);
                let (planned, usage) = (plan.memory_of(&placement), engine.usage());
                assert_eq!(engine.buffer_bytes(), planned.buffers, "{precision} {nll} {name}");
                let device = planned.total() - planned.context_reserve;
                // Numbers beside codes, of some bytes a tensor, are counted as the checkpoint would hold them.
                let near = |found: u64, expected: u64| found.abs_diff(expected) <= expected / 100 + 4096;
                assert!(near(usage.device_bytes, device), "{precision} {nll} {name}: {usage:?}, {planned:?}");
                let host = near(usage.host_bytes, planned.host) || usage.host_bytes <= planned.host;
                assert!(host, "{precision} {nll} {name}: {usage:?}, {planned:?}");
            }
        }
    }
}
