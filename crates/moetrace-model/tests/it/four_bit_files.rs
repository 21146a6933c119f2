//! 4-bit checkpoints that are damaged, or stored in a way of their own.

use std::fs;
use std::path::Path;

use moetrace_model::synthetic::{SyntheticSettings, write_checkpoint};
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, ModelError, Nf4Error, Precision,
};
use serde_json::{Map, Value, json};

use crate::nf4::prequantised;

const TENSOR: &str = "model.layers.1.mlp.experts.3.up_proj.weight";

/// A safetensors file taken apart.
struct Parts(Vec<(String, String, Vec<usize>, Vec<u8>)>);

impl Parts {
    fn read(dir: &Path) -> Self {
        let bytes = fs::read(dir.join("model.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let parts = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, info)| {
            let at = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize + 8 + length;
            let shape = info["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
            (name, info["dtype"].as_str().unwrap().to_owned(), shape.collect(), bytes[at(0)..at(1)].to_vec())
        });
        Self(parts.collect())
    }

    fn of(&mut self, ending: &str) -> &mut (String, String, Vec<usize>, Vec<u8>) {
        let name = format!("{TENSOR}{ending}");
        self.0.iter_mut().find(|part| part.0 == name).unwrap()
    }

    fn write(&self, dir: &Path) {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, dtype, shape, bytes) in &self.0 {
            let offsets = [data.len(), data.len() + bytes.len()];
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
            data.extend_from_slice(bytes);
        }
        let header = Value::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        fs::write(dir.join("model.safetensors"), file).unwrap();
    }
}

/// Loads the checkpoint of bitsandbytes after `damage`.
fn after(damage: impl FnOnce(&mut Parts)) -> Result<CpuEngine, ModelError> {
    let dir = prequantised();
    let mut parts = Parts::read(dir.path());
    damage(&mut parts);
    parts.write(dir.path());
    CpuEngine::open(dir.path(), &CpuSettings { precision: Precision::Nf4, ..CpuSettings::default() })
}

fn refused(damage: impl FnOnce(&mut Parts)) -> (String, Nf4Error) {
    match after(damage) {
        Err(ModelError::Nf4 { tensor, source, .. }) => (tensor, source),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_part_is_named() {
    for part in ["", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"] {
        let (tensor, error) = refused(|parts| {
            let name = format!("{TENSOR}{part}");
            parts.0.retain(|part| part.0 != name);
        });
        assert_eq!(tensor, TENSOR);
        let expected = if part.is_empty() { "weight" } else { &part[1..] };
        assert!(matches!(error, Nf4Error::PartMissing { part, .. } if part == expected), "{part}: {error}");
    }
}

#[test]
fn a_part_that_is_too_short_or_too_long_is_named() {
    for (part, name) in [
        ("", "weight"),
        (".absmax", "absmax"),
        (".quant_map", "quant_map"),
        (".nested_absmax", "nested_absmax"),
        (".nested_quant_map", "nested_quant_map"),
    ] {
        for longer in [false, true] {
            let (tensor, error) = refused(|parts| {
                let part = parts.of(part);
                let step = if part.1 == "F32" { 4 } else { 1 };
                let length = if longer { part.3.len() + step } else { part.3.len() - step };
                part.3.resize(length, 0);
                part.2 = vec![length / step];
            });
            assert_eq!(tensor, TENSOR);
            assert!(matches!(error, Nf4Error::PartLength { part, .. } if part == name), "{name}: {error}");
        }
    }
}

#[test]
fn a_scale_or_a_value_that_is_not_finite_is_named() {
    for (part, name) in [
        (".quant_map", "quant_map"),
        (".nested_absmax", "nested_absmax"),
        (".nested_quant_map", "nested_quant_map"),
    ] {
        for bad in [f32::NAN, f32::INFINITY] {
            let (tensor, error) = refused(|parts| parts.of(part).3[..4].copy_from_slice(&bad.to_le_bytes()));
            assert_eq!(tensor, TENSOR);
            assert!(matches!(error, Nf4Error::PartNotFinite { part, .. } if part == name), "{error}");
        }
    }
}

#[test]
fn a_scale_that_overflows_when_it_is_restored_is_named() {
    let (tensor, error) = refused(|parts| {
        for ending in [".nested_absmax", ".nested_quant_map"] {
            for value in parts.of(ending).3.as_chunks_mut::<4>().0 {
                *value = 3e38f32.to_le_bytes();
            }
        }
    });
    assert_eq!(tensor, TENSOR);
    assert!(matches!(error, Nf4Error::PartNotFinite { part: "a restored scale", .. }), "{error}");
}

fn with_state(edit: impl Fn(&str) -> String) -> (String, Nf4Error) {
    refused(|parts| {
        let state = parts.of(".quant_state.bitsandbytes__nf4");
        state.3 = edit(std::str::from_utf8(&state.3).unwrap()).into_bytes();
        state.2 = vec![state.3.len()];
    })
}

#[test]
fn a_state_that_is_damaged_or_of_another_shape_is_named() {
    let (tensor, error) = with_state(|state| state[..state.len() - 1].to_owned());
    assert_eq!(tensor, TENSOR);
    assert!(matches!(error, Nf4Error::StateJson { .. }), "{error}");
    let (_, error) = with_state(|state| state.replace("\"nf4\"", "\"fp4\""));
    assert!(matches!(error, Nf4Error::StateKey { key: "quant_type", .. }), "{error}");
    let (_, error) = with_state(|state| state.replace("[48, 64]", "[47, 63]"));
    assert!(matches!(error, Nf4Error::OddElements { found: 2961 }), "{error}");
    let (_, error) = with_state(|state| state.replace("[48, 64]", "[48, 128]"));
    assert!(matches!(error, Nf4Error::PartLength { part: "weight", .. }), "{error}");
    let (_, error) = with_state(|state| state.replace("[48, 64]", "[4611686018427387904, 8]"));
    assert!(matches!(error, Nf4Error::ShapeOverflow { .. }), "{error}");
    // As many elements in another shape: the configuration knows better.
    let error = after(|parts| {
        let state = parts.of(".quant_state.bitsandbytes__nf4");
        state.3 = String::from_utf8(state.3.clone()).unwrap().replace("[48, 64]", "[64, 48]").into_bytes();
    });
    assert!(matches!(error, Err(ModelError::Shape { tensor, .. }) if tensor == TENSOR));
}

#[test]
fn fp4_and_8_bit_checkpoints_are_refused_by_name() {
    let error = after(|parts| {
        let state = parts.of(".quant_state.bitsandbytes__nf4");
        state.0 = state.0.replace("__nf4", "__fp4");
    });
    assert!(
        matches!(&error, Err(ModelError::FourBitCode { tensor, found, .. }) if tensor == TENSOR && found == "fp4")
    );
    let error = after(|parts| {
        let name = format!("{TENSOR}.quant_state.bitsandbytes__nf4");
        parts.0.retain(|part| !part.0.starts_with(TENSOR) || part.0 == TENSOR || part.0 == name);
        parts.0.retain(|part| part.0 != name);
        parts.of("").1 = "I8".to_owned();
    });
    assert!(matches!(error, Err(ModelError::StorageType { tensor, .. }) if tensor == TENSOR));
}

/// `quant_storage`: the same bytes under another type, as fully sharded training wants it.
#[test]
fn codes_stored_under_any_type_are_the_same_codes() {
    let plain = {
        let dir = prequantised();
        let store = Checkpoint::open(dir.path(), &CheckpointSettings::default()).unwrap();
        store.read_nf4(TENSOR).unwrap()
    };
    for (dtype, width) in [("BF16", 2), ("F16", 2), ("F32", 4), ("I8", 1)] {
        let dir = prequantised();
        let mut parts = Parts::read(dir.path());
        let codes = parts.of("");
        codes.1 = dtype.to_owned();
        codes.2 = vec![codes.3.len() / width, 1];
        parts.write(dir.path());
        for settings in [true, false].map(|mmap| CheckpointSettings { mmap }) {
            let store = Checkpoint::open(dir.path(), &settings).unwrap();
            assert!(store.read_nf4(TENSOR).unwrap() == plain, "{dtype}");
        }
    }
}

#[test]
fn a_4_bit_checkpoint_runs_in_nf4_only() {
    let dir = prequantised();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let error = CpuEngine::open(dir.path(), &CpuSettings { precision, ..CpuSettings::default() });
        assert!(matches!(error, Err(ModelError::DensePrecision { found, .. }) if found == precision));
    }
}

#[test]
fn a_configuration_that_promises_4_bits_and_dense_tensors_do_not_go_together() {
    let dir = prequantised();
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    let dense = tempfile::tempdir().unwrap();
    write_checkpoint(dense.path(), &config, &SyntheticSettings::default()).unwrap();
    fs::write(dense.path().join("config.json"), config.to_string()).unwrap();
    for precision in [Precision::F32, Precision::Nf4] {
        let error = CpuEngine::open(dense.path(), &CpuSettings { precision, ..CpuSettings::default() });
        assert!(matches!(error, Err(ModelError::NothingQuantised { .. })), "{error:?}");
    }
}
