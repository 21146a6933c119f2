//! Random checkpoints: the same for the same seed, and routed neither evenly nor to one expert.

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{CpuEngine, CpuSettings, Engine, Family, ModelError};
use serde_json::json;

use crate::recorder::{Recorder, batch, tokens};

fn bytes(seed: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let settings = SyntheticSettings { seed, ..SyntheticSettings::default() };
    write_checkpoint(dir.path(), &tiny_config(Family::DeepSeek), &settings).unwrap();
    std::fs::read(dir.path().join("model.safetensors")).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    assert!(bytes(1) == bytes(1));
    assert!(bytes(1) != bytes(2));
}

#[test]
fn random_routers_are_neither_flat_nor_collapsed() {
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &tiny_config(family), &SyntheticSettings::default()).unwrap();
        let mut engine = CpuEngine::open(dir.path(), &CpuSettings::default()).unwrap();
        let mut recorder = Recorder::default();
        engine.run(&batch(&[tokens(1, 400, 96)]), &mut recorder).unwrap();
        for layer in &recorder.layers {
            // 8 experts: a flat gate has 3 bits, a certain one 0.
            let entropy = layer.gate_entropy.iter().sum::<f32>() / 400.0;
            assert!((1.0..2.8).contains(&entropy), "{family} layer {}: {entropy}", layer.number);
            let mut counts = [0; 8];
            for expert in &layer.experts {
                counts[usize::from(*expert)] += 1;
            }
            // 400 tokens times 3 choices over 8 experts would be 150 each.
            assert!(counts.iter().all(|count| (10..390).contains(count)), "{family}: {counts:?}");
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_loaded_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tiny_config(Family::Mixtral);
    config["num_local_experts"] = json!(0);
    let error = write_checkpoint(dir.path(), &config, &SyntheticSettings::default()).unwrap_err();
    assert!(matches!(error, ModelError::FieldRange { field: "num_local_experts", .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
