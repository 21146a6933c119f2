//! The checkpoint store: what it opens, what it refuses, and that nothing makes it panic.

use std::fs;
use std::path::Path;

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, ElementType, Engine, Family, ModelError,
    Precision, StorageType,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::recorder::{Layer, Recorder, batch, tokens};

const WAYS: [CheckpointSettings; 2] = [CheckpointSettings { mmap: true }, CheckpointSettings { mmap: false }];

/// A tensor as it goes into a test file.
type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let values = 0..shape.iter().product::<usize>();
    let bytes = values.flat_map(|i| (i as f32 * 0.01).to_le_bytes()).collect();
    (name.to_owned(), "F32", shape.to_vec(), bytes)
}

fn file_of(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    raw_file(&Value::Object(header).to_string(), &data)
}

fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn open_bytes(bytes: &[u8], settings: CheckpointSettings) -> Result<Checkpoint, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    Checkpoint::open(dir.path(), &settings)
}

#[test]
fn tensors_are_listed_and_read_as_they_are_stored() {
    for settings in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [tensor("b", &[2, 3]), tensor("a", &[4]), tensor("empty", &[0, 5])];
        fs::write(dir.path().join("model.safetensors"), file_of(&tensors)).unwrap();
        let store = Checkpoint::open(dir.path(), &settings).unwrap();
        assert_eq!(store.tensors().map(|t| t.name.to_owned()).collect::<Vec<_>>(), ["a", "b", "empty"]);
        let b = store.tensor("b").unwrap();
        assert_eq!((b.shape, b.bytes, b.storage), (&[2, 3][..], 24, StorageType::F32));
        let mut bytes = [0; 24];
        store.read_into("b", &mut bytes).unwrap();
        assert_eq!(bytes, tensors[0].3[..]);
        let whole = fs::read(b.file).unwrap();
        assert_eq!(&whole[b.offset as usize..][..24], bytes);
        let mut row = [0; 12];
        store.read_part_into("b", 12, &mut row).unwrap();
        assert_eq!(row, bytes[12..]);
        store.read_into("empty", &mut []).unwrap();
        assert_eq!(store.total_bytes(), whole.len() as u64);
        assert_eq!(store.files().count(), 1);

        assert!(matches!(store.read_into("b", &mut row), Err(ModelError::BufferLength { .. })));
        assert!(matches!(store.read_into("c", &mut row), Err(ModelError::UnknownTensor { .. })));
        for start in [13, 24, usize::MAX] {
            let error = store.read_part_into("b", start, &mut row).unwrap_err();
            assert!(matches!(error, ModelError::TensorRange { .. }), "{error}");
        }
    }
}

#[test]
fn every_truncation_of_a_file_is_refused_before_a_tensor_is_touched() {
    let whole = file_of(&[tensor("a", &[3, 4]), tensor("b", &[7])]);
    for settings in WAYS {
        for len in 0..whole.len() {
            let error = open_bytes(&whole[..len], settings).unwrap_err();
            assert!(matches!(error, ModelError::Truncated { .. }), "{len}: {error}");
        }
        let longer = [&whole[..], &[0]].concat();
        let error = open_bytes(&longer, settings).unwrap_err();
        assert!(error.to_string().ends_with("bytes, 1 more than its header says"), "{error}");
        assert!(open_bytes(&whole, settings).is_ok());
    }
}

#[test]
fn every_truncation_of_a_model_is_refused_by_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tiny_config(Family::Mixtral);
    for (field, value) in [("num_hidden_layers", 1), ("num_local_experts", 3), ("vocab_size", 8)] {
        config[field] = json!(value);
    }
    write_checkpoint(dir.path(), &config, &SyntheticSettings::default()).unwrap();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    // Every length of the header, then steps through the body that end one byte short.
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in (0..=header).chain((header..whole.len()).step_by(997)).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..len]).unwrap();
        let error = CpuEngine::open(dir.path(), &CpuSettings::default()).unwrap_err();
        assert!(matches!(error, ModelError::Truncated { .. }), "{len}: {error}");
    }
    fs::write(&path, &whole).unwrap();
    CpuEngine::open(dir.path(), &CpuSettings::default()).unwrap();
}

#[test]
fn lying_headers_are_refused() {
    let entry = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |entry: String| format!(r#"{{"a":{entry}}}"#);
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    for (what, header) in [
        ("shape larger than its bytes", one(entry("F32", "[3]", 0, 8))),
        ("shape smaller than its bytes", one(entry("F32", "[1]", 0, 8))),
        ("overflowing shape", one(entry("F32", "[4294967296, 4294967296, 4]", 0, 8))),
        ("end before start", one(entry("F32", "[2]", 8, 0))),
        ("a hole at the start", one(entry("F32", "[1]", 4, 8))),
        ("overlap", two(entry("F32", "[2]", 0, 8), entry("F32", "[1]", 4, 8))),
        ("a hole between", two(entry("F16", "[1]", 0, 2), entry("F32", "[1]", 4, 8))),
        ("unknown type", one(entry("F33", "[2]", 0, 8))),
        ("negative size", one(entry("F32", "[-2]", 0, 8))),
        ("not an object", "[]".to_owned()),
        ("not JSON", "{\"a\":".to_owned()),
        ("no UTF-8 name", "{\"\u{fffd}".to_owned()),
    ] {
        for settings in WAYS {
            let error = open_bytes(&raw_file(&header, &[0; 8]), settings).unwrap_err();
            assert!(matches!(error, ModelError::Header { .. }), "{what}: {error}");
        }
    }
    let outside = open_bytes(&raw_file(&one(entry("F32", "[400]", 0, 1600)), &[0; 8]), WAYS[0]).unwrap_err();
    assert!(matches!(outside, ModelError::Truncated { .. }), "{outside}");
    let bytes = [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat();
    assert!(matches!(open_bytes(&bytes, WAYS[0]), Err(ModelError::HeaderLength { .. })));
    assert!(matches!(open_bytes(&u64::MAX.to_le_bytes(), WAYS[1]), Err(ModelError::HeaderLength { .. })));
}

#[test]
fn tensors_that_are_not_dense_floats_are_refused_by_name() {
    let ints = ("position".to_owned(), "I64", vec![1], vec![0; 8]);
    let error = open_bytes(&file_of(&[ints]), WAYS[0]).unwrap_err();
    let ModelError::StorageType { tensor, found, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), found.as_str()), ("position", "I64"));
}

#[test]
fn pickles_are_refused_by_name_and_by_their_first_bytes() {
    for name in ["pytorch_model.bin", "model.pt", "model.PTH", "weights.pkl", "last.ckpt"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), b"anything").unwrap();
        let error = Checkpoint::open(dir.path(), &WAYS[0]).unwrap_err();
        let ModelError::Pickle { path } = &error else { panic!("{name}: {error}") };
        assert!(path.ends_with(name));
    }
    for start in
        [&b"PK\x03\x04\x14\0\0\0\x08\0more"[..], b"\x80\x02}q\0X\x05\0\0\0more", b"\x80\x04", b"PK\x03\x04"]
    {
        assert!(matches!(open_bytes(start, WAYS[0]), Err(ModelError::Pickle { .. })), "{start:?}");
    }
    // A safetensors header of 0x180 bytes begins with the same byte as a pickle, and is none.
    let name = "n".repeat(0x180 - r#"{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.len());
    let file =
        raw_file(&format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#), &[0; 4]);
    assert_eq!(file[0], 0x80);
    open_bytes(&file, WAYS[0]).unwrap();
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(empty.path(), &WAYS[0]), Err(ModelError::NoWeights { .. })));
    let nowhere = empty.path().join("nowhere");
    assert!(matches!(Checkpoint::open(&nowhere, &WAYS[0]), Err(ModelError::Io { .. })));
}

fn write_index(dir: &Path, map: &Value) {
    let index = json!({"metadata": {}, "weight_map": map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn indexes_that_leave_the_folder_or_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    fs::write(dir.path().join(one), file_of(&[tensor("a", &[2])])).unwrap();
    fs::write(dir.path().join(two), file_of(&[tensor("b", &[3])])).unwrap();
    let open = |map: Value| {
        write_index(dir.path(), &map);
        Checkpoint::open(dir.path(), &WAYS[0])
    };
    assert_eq!(open(json!({"a": one, "b": two})).unwrap().tensors().count(), 2);
    for name in [
        "../x.safetensors",
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        "x\0.safetensors",
        ".safetensors",
        "x.json",
        "",
        "\u{202e}x.safetensors",
    ] {
        let error = open(json!({"a": one, "b": name})).unwrap_err();
        assert!(matches!(error, ModelError::OutsideFolder { .. }), "{name:?}: {error}");
    }
    for name in ["pytorch_model.bin", "../m.pt"] {
        assert!(matches!(open(json!({"a": name})), Err(ModelError::Pickle { .. })), "{name}");
    }
    assert!(matches!(open(json!({"a": two, "b": two})), Err(ModelError::IndexMismatch { .. })));
    assert!(matches!(open(json!({"a": one, "c": two})), Err(ModelError::IndexMismatch { .. })));
    assert!(matches!(open(json!({"a": "gone.safetensors"})), Err(ModelError::Io { .. })));
    for map in [json!({}), json!(null), json!([]), json!({"a": 7})] {
        assert!(matches!(open(map.clone()), Err(ModelError::WeightMap { .. })), "{map}");
    }
    fs::write(dir.path().join(two), file_of(&[tensor("a", &[2]), tensor("b", &[3])])).unwrap();
    assert!(matches!(open(json!({"a": one, "b": two})), Err(ModelError::Duplicate { .. })));
    fs::write(dir.path().join("model.safetensors.index.json"), "{").unwrap();
    assert!(matches!(Checkpoint::open(dir.path(), &WAYS[0]), Err(ModelError::Json { .. })));
}

/// Tensors of a synthetic model, to be changed and written back.
fn tensors_of(dir: &Path) -> Vec<Tensor> {
    let store = Checkpoint::open(dir, &WAYS[1]).unwrap();
    let read = |name: &str, bytes: usize| {
        let mut buffer = vec![0; bytes];
        store.read_into(name, &mut buffer).unwrap();
        buffer
    };
    store.tensors().map(|t| (t.name.to_owned(), "F32", t.shape.to_vec(), read(t.name, t.bytes))).collect()
}

fn record(dir: &Path, mmap: bool) -> Result<Vec<Layer>, ModelError> {
    let checkpoint = Checkpoint::open(dir, &CheckpointSettings { mmap })?;
    let mut engine = CpuEngine::load(&checkpoint, &CpuSettings::default())?;
    let mut recorder = Recorder::default();
    engine.run(&batch(&[tokens(1, 20, 96)]), &mut recorder)?;
    Ok(recorder.layers)
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named() {
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &tiny_config(family), &SyntheticSettings::default()).unwrap();
        let tensors = tensors_of(dir.path());
        let write = |tensors: &[Tensor]| {
            fs::write(dir.path().join("model.safetensors"), file_of(tensors)).unwrap();
            record(dir.path(), true)
        };
        assert!(write(&tensors).is_ok());
        for at in 0..tensors.len() {
            let mut fewer = tensors.clone();
            let name = fewer.remove(at).0;
            let error = write(&fewer).unwrap_err();
            let ModelError::MissingTensor { tensor, .. } = &error else { panic!("{family} {name}: {error}") };
            // A layer without its gate is looked for under the name that transformers 5 uses.
            assert!(*tensor == name || name.ends_with("gate.weight"), "{name}: {error}");

            let mut reshaped = tensors.clone();
            reshaped[at].2 = vec![1, reshaped[at].2.iter().product()];
            if reshaped[at].2 != tensors[at].2 {
                let error = write(&reshaped).unwrap_err();
                assert!(
                    matches!(&error, ModelError::Shape { tensor, .. } if *tensor == name),
                    "{name}: {error}"
                );
            }
        }
        let with = |name: &str| [&tensors[..], &[tensor(name, &[2, 2])]].concat();
        let error = write(&with("model.layers.9.mlp.gate.weight")).unwrap_err();
        assert!(matches!(error, ModelError::ExtraTensor { .. }), "{error}");
        assert!(write(&with("model.layers.0.self_attn.rotary_emb.inv_freq")).is_ok());
    }
}

#[test]
fn a_tied_head_may_be_stored_or_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tiny_config(Family::Olmoe);
    config["tie_word_embeddings"] = json!(true);
    write_checkpoint(dir.path(), &config, &SyntheticSettings::default()).unwrap();
    let plain = record(dir.path(), true).unwrap();
    let mut tensors = tensors_of(dir.path());
    assert!(tensors.iter().all(|t| t.0 != "lm_head.weight"));
    tensors.push(tensor("lm_head.weight", &[96, 32]));
    fs::write(dir.path().join("model.safetensors"), file_of(&tensors)).unwrap();
    assert_eq!(record(dir.path(), true).unwrap(), plain);
}

#[test]
fn shards_fused_experts_and_both_ways_of_reading_give_the_same_routing() {
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        write_checkpoint(dir.path(), &tiny_config(family), &SyntheticSettings::default()).unwrap();
        let plain = record(dir.path(), true).unwrap();
        assert_eq!(record(dir.path(), false).unwrap(), plain);
        let tensors = tensors_of(dir.path());

        let fused = fuse(&tensors, 8);
        assert!(fused.len() < tensors.len());
        fs::write(dir.path().join("model.safetensors"), file_of(&fused)).unwrap();
        assert_eq!(record(dir.path(), true).unwrap(), plain, "{family} fused");

        fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        let mut map = Map::new();
        for (number, part) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
            let name = format!("model-{:05}-of-00003.safetensors", number + 1);
            fs::write(dir.path().join(&name), file_of(part)).unwrap();
            map.extend(part.iter().map(|t| (t.0.clone(), json!(name))));
        }
        write_index(dir.path(), &Value::Object(map));
        assert_eq!(record(dir.path(), true).unwrap(), plain, "{family} in shards");
        assert_eq!(record(dir.path(), false).unwrap(), plain, "{family} in shards, read");
    }
}

/// Joins each layer's experts as transformers 5 does, under its name of the block.
fn fuse(tensors: &[Tensor], experts: usize) -> Vec<Tensor> {
    let find = |name: &str| tensors.iter().find(|t| t.0 == name);
    let mut out: Vec<Tensor> = tensors.iter().filter(|t| !t.0.contains(".experts.")).cloned().collect();
    for tensor in &mut out {
        tensor.0 = tensor.0.replace("block_sparse_moe", "mlp");
    }
    for (block, names) in
        [("mlp", ["gate_proj", "up_proj", "down_proj"]), ("block_sparse_moe", ["w1", "w3", "w2"])]
    {
        for layer in 0..3 {
            let of = |expert: usize, name: &str| {
                find(&format!("model.layers.{layer}.{block}.experts.{expert}.{name}.weight"))
            };
            let Some(first) = of(0, names[0]) else { continue };
            let (f, d) = (first.2[0], first.2[1]);
            let bytes = |names: &[&str]| -> Vec<u8> {
                (0..experts)
                    .flat_map(|e| names.iter().flat_map(move |n| of(e, n).unwrap().3.clone()))
                    .collect()
            };
            let name = |part: &str| format!("model.layers.{layer}.mlp.experts.{part}");
            out.push((name("gate_up_proj"), "F32", vec![experts, 2 * f, d], bytes(&names[..2])));
            out.push((name("down_proj"), "F32", vec![experts, d, f], bytes(&names[2..])));
        }
    }
    out
}

#[test]
fn half_precision_storage_is_widened_exactly() {
    for element in [ElementType::F16, ElementType::Bf16, ElementType::F32] {
        let dir = tempfile::tempdir().unwrap();
        let settings = SyntheticSettings { element, fused_experts: true, ..SyntheticSettings::default() };
        write_checkpoint(dir.path(), &tiny_config(Family::Qwen2Moe), &settings).unwrap();
        let stored = record(dir.path(), true).unwrap();
        let store = Checkpoint::open(dir.path(), &WAYS[1]).unwrap();
        assert!(store.tensors().all(|t| t.storage.element() == Some(element)));
        let widened: Vec<Tensor> = store
            .tensors()
            .map(|t| {
                let mut bytes = vec![0; t.bytes];
                store.read_into(t.name, &mut bytes).unwrap();
                let pairs = bytes.as_chunks::<2>().0.iter();
                let wide = |values: Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
                let bytes = match element {
                    ElementType::F16 => wide(pairs.map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()),
                    ElementType::Bf16 => {
                        wide(pairs.map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect())
                    }
                    ElementType::F32 => bytes,
                };
                (t.name.to_owned(), "F32", t.shape.to_vec(), bytes)
            })
            .collect();
        fs::write(dir.path().join("model.safetensors"), file_of(&widened)).unwrap();
        assert_eq!(record(dir.path(), true).unwrap(), stored);
    }
}

#[test]
fn impossible_thread_counts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), &tiny_config(Family::Olmoe), &SyntheticSettings::default()).unwrap();
    for threads in [0, 1_000_000] {
        let settings = CpuSettings { threads, ..CpuSettings::default() };
        let error = CpuEngine::open(dir.path(), &settings).unwrap_err();
        assert!(matches!(error, ModelError::Threads { found, .. } if found == threads), "{error}");
    }
}

#[test]
fn memory_estimates_grow_with_the_pass_and_shrink_with_the_precision() {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), &tiny_config(Family::DeepSeek), &SyntheticSettings::default()).unwrap();
    let config = moetrace_model::ModelConfig::read(dir.path()).unwrap();
    let of = |precision| {
        let settings = CpuSettings { precision, threads: 2, ..CpuSettings::default() };
        CpuEngine::memory_estimate(&config, &settings)
    };
    let (wide, narrow) = (of(Precision::F32), of(Precision::Bf16));
    assert_eq!(wide.weights, config.total_parameters() * 4);
    assert_eq!(narrow.weights * 2, wide.weights);
    assert!(wide.total(2048, 512, false) > wide.total(1024, 512, false));
    assert!(wide.total(2048, 512, true) > wide.total(2048, 512, false));
    assert_eq!(wide.total(u64::MAX, u64::MAX, true), u64::MAX);
}

proptest! {
    #[test]
    fn no_change_of_a_file_makes_the_store_panic(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 1..4),
    ) {
        let mut bytes = file_of(&[tensor("a", &[3, 4]), tensor("b", &[7])]);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        for settings in WAYS {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("model.safetensors"), &bytes).unwrap();
            if let Ok(store) = Checkpoint::open(dir.path(), &settings) {
                for entry in store.tensors() {
                    prop_assert!(store.read_into(entry.name, &mut vec![0; entry.bytes]).is_ok());
                }
            }
        }
    }
}
