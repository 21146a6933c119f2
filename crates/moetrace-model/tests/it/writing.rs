//! Checkpoints that are written: quantised and random ones, whole, in files, cut short and continued.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint, write_folder};
use moetrace_model::{
    BlockSize, Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, ElementType, Engine, Family,
    ModelError, Nf4Settings, Precision, Quantisation, QuantiseSettings, StorageType, WriteEvent,
    quantise_checkpoint,
};
use serde_json::Value;

use crate::recorder::{Layer, Recorder, batch, tokens};

/// Small files, so that a tiny model has several.
fn small_files(quantisation: Quantisation) -> QuantiseSettings {
    QuantiseSettings { quantisation, shard_bytes: 20_000 }
}

/// Everything recorded; losses are NaN where a text begins, so layers of two runs are compared by [`same`].
fn routed(dir: &Path, quantisation: Quantisation) -> Vec<Layer> {
    let settings =
        CpuSettings { precision: Precision::Nf4, quantisation, threads: 2, ..CpuSettings::default() };
    let mut engine = CpuEngine::open(dir, &settings).unwrap();
    let mut recorder = Recorder::everything();
    engine.run(&batch(&[tokens(1, 70, 96), tokens(2, 5, 96)]), &mut recorder).unwrap();
    recorder.layers
}

fn same(a: &[Layer], b: &[Layer]) -> bool {
    // Numbers are printed with as many digits as tell them apart.
    format!("{a:?}") == format!("{b:?}")
}

/// Every file of a folder by name.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

fn source(family: Family, fused_experts: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        SyntheticSettings { element: ElementType::Bf16, fused_experts, ..SyntheticSettings::default() };
    write_checkpoint(dir.path(), &tiny_config(family), &settings).unwrap();
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), "no weights of ours").unwrap();
    dir
}

#[test]
fn a_quantised_checkpoint_computes_what_quantising_on_load_computes() {
    let nf4 = [
        Nf4Settings::default(),
        Nf4Settings { double_quant: false, ..Nf4Settings::default() },
        Nf4Settings { block: BlockSize::new(128).unwrap(), ..Nf4Settings::default() },
    ];
    for family in Family::ALL {
        for (nf4, router) in nf4.into_iter().zip([false, true, true]) {
            let quantisation = Quantisation { nf4, router };
            let dense = source(family, false);
            let out = dense.path().join("out");
            let settings = small_files(quantisation);
            let written = quantise_checkpoint(dense.path(), &out, &settings, &mut |_| {}).unwrap();
            assert!(written.files > 2, "{family}: {written:?}");
            // A 4-bit checkpoint is taken as it stands, whatever is asked for.
            let found = routed(&out, Quantisation::default());
            assert!(same(&found, &routed(dense.path(), quantisation)), "{family} {quantisation:?}");
        }
    }
}

#[test]
fn experts_in_one_tensor_are_written_as_separate_ones_under_the_reference_names() {
    for family in Family::ALL {
        let (fused, plain) = (source(family, true), source(family, false));
        let [fused, plain] = [fused, plain].map(|dir| {
            let out = dir.path().join("out");
            quantise_checkpoint(dir.path(), &out, &QuantiseSettings::default(), &mut |_| {}).unwrap();
            let names = |dir: &Path| -> BTreeSet<String> {
                let checkpoint = Checkpoint::open(dir, &CheckpointSettings::default()).unwrap();
                checkpoint.tensors().map(|tensor| tensor.name.to_owned()).collect()
            };
            // The random values of the two differ: a tensor's number decides them.
            let on_load = routed(dir.path(), Quantisation::default());
            assert!(same(&routed(&out, Quantisation::default()), &on_load), "{family}");
            names(&out)
        });
        assert_eq!(fused, plain, "{family}");
    }
}

#[test]
fn what_is_quantised_and_what_is_not_is_as_documented() {
    for family in Family::ALL {
        for router in [false, true] {
            let dense = source(family, false);
            let out = dense.path().join("out");
            let settings = small_files(Quantisation { router, ..Quantisation::default() });
            quantise_checkpoint(dense.path(), &out, &settings, &mut |_| {}).unwrap();
            let checkpoint = Checkpoint::open(&out, &CheckpointSettings::default()).unwrap();
            for tensor in checkpoint.tensors() {
                let name = tensor.name;
                let gate = name.ends_with(".gate.weight") || name.ends_with("shared_expert_gate.weight");
                // The router of DeepSeek v1 is a bare parameter.
                let quantised = (name.contains("_proj.weight") || name.contains(".w"))
                    && !name.ends_with("norm.weight")
                    && !gate
                    || gate && router && family != Family::DeepSeek;
                let quantised = quantised
                    && !name.ends_with("embed_tokens.weight")
                    && !name.ends_with("lm_head.weight")
                    && tensor.shape.len() == 2;
                assert_eq!(tensor.storage == StorageType::Nf4, quantised, "{family} {router} {name}");
            }
            let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
            let skipped = &config["quantization_config"]["llm_int8_skip_modules"];
            assert_eq!(skipped.as_array().unwrap().len(), if router { 1 } else { 3 });
        }
    }
}

#[test]
fn small_files_are_copied_and_weights_of_other_kinds_are_not() {
    let dense = source(Family::Olmoe, false);
    let out = dense.path().join("out");
    quantise_checkpoint(dense.path(), &out, &QuantiseSettings::default(), &mut |_| {}).unwrap();
    let names: Vec<String> = files(&out).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    assert!(!dense.path().join("out.partial").exists());
}

#[test]
fn an_existing_folder_and_the_source_itself_are_never_written_into() {
    let dense = source(Family::Mixtral, false);
    let before = files(dense.path());
    let error = quantise_checkpoint(dense.path(), dense.path(), &QuantiseSettings::default(), &mut |_| {});
    assert!(matches!(error, Err(ModelError::OutputExists { .. })), "{error:?}");
    assert!(files(dense.path()) == before);
    let error = write_folder(
        dense.path(),
        &tiny_config(Family::Olmoe),
        &SyntheticSettings::default(),
        &[],
        &mut |_| {},
    );
    assert!(matches!(error, Err(ModelError::OutputExists { .. })), "{error:?}");
    assert!(files(dense.path()) == before);
}

/// `OUT.partial` is ours only with our list inside: the source itself, a link or a stranger's files may have the name.
#[test]
fn a_folder_in_the_place_of_the_partial_one_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SyntheticSettings { element: ElementType::Bf16, ..SyntheticSettings::default() };
    let partial = dir.path().join("x.partial");
    fs::create_dir(&partial).unwrap();
    write_checkpoint(&partial, &tiny_config(Family::Mixtral), &settings).unwrap();
    let before = files(&partial);
    let out = dir.path().join("x");
    let error = quantise_checkpoint(&partial, &out, &QuantiseSettings::default(), &mut |_| {});
    assert!(matches!(error, Err(ModelError::PartialForeign { .. })), "{error:?}");
    let link = dir.path().join("y.partial");
    std::os::unix::fs::symlink(&partial, &link).unwrap();
    let error =
        quantise_checkpoint(&partial, &dir.path().join("y"), &QuantiseSettings::default(), &mut |_| {});
    assert!(matches!(error, Err(ModelError::PartialForeign { .. })), "{error:?}");
    assert!(files(&partial) == before && !out.exists() && !dir.path().join("y").exists());
}

#[test]
fn nothing_of_an_earlier_plan_gets_into_a_later_one() {
    let dense = source(Family::Olmoe, false);
    let settings = small_files(Quantisation::default());
    let out = dense.path().join("out");
    broken_off(dense.path(), &out, &settings, 60);
    let partial = dense.path().join("out.partial");
    fs::write(partial.join("model.safetensors.index.json"), "{}").unwrap();
    fs::write(partial.join("generation_config.json"), "{}").unwrap();
    quantise_checkpoint(dense.path(), &out, &QuantiseSettings::default(), &mut |_| {}).unwrap();
    let names: Vec<String> = files(&out).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
}

#[test]
fn the_index_counts_every_byte_of_every_tensor() {
    let dense = source(Family::Olmoe, false);
    let out = dense.path().join("out");
    quantise_checkpoint(dense.path(), &out, &small_files(Quantisation::default()), &mut |_| {}).unwrap();
    let index: Value =
        serde_json::from_slice(&fs::read(out.join("model.safetensors.index.json")).unwrap()).unwrap();
    let data = |bytes: &[u8]| bytes.len() as u64 - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let shards = files(&out).into_iter().filter(|(name, _)| name.starts_with("model-"));
    let expected: u64 = shards.map(|(_, bytes)| data(&bytes)).sum();
    assert_eq!(index["metadata"]["total_size"], expected);
}

#[test]
fn a_checkpoint_in_4_bits_is_not_quantised_again() {
    let dense = source(Family::Mixtral, false);
    let (once, twice) = (dense.path().join("once"), dense.path().join("twice"));
    quantise_checkpoint(dense.path(), &once, &QuantiseSettings::default(), &mut |_| {}).unwrap();
    let error = quantise_checkpoint(&once, &twice, &QuantiseSettings::default(), &mut |_| {});
    assert!(matches!(error, Err(ModelError::AlreadyFourBit { .. })), "{error:?}");
    assert!(!twice.exists());
}

/// Breaks off when so many tensors are written, as a killed process would.
fn broken_off(dense: &Path, out: &Path, settings: &QuantiseSettings, after: usize) {
    let mut tensors = 0;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        quantise_checkpoint(dense, out, settings, &mut |event| {
            tensors += usize::from(matches!(event, WriteEvent::Tensor { .. }));
            assert!(tensors < after, "killed");
        })
    }));
    assert!(ended.is_err());
    assert!(!out.exists());
}

#[test]
fn a_write_cut_short_anywhere_is_continued_to_the_same_bytes() {
    let dense = source(Family::DeepSeek, false);
    let settings = small_files(Quantisation::default());
    let whole = dense.path().join("whole");
    let written = quantise_checkpoint(dense.path(), &whole, &settings, &mut |_| {}).unwrap();
    let mut kept_in_all = 0;
    for after in (1..=written.tensors).step_by(7) {
        let out = dense.path().join(format!("cut-{after}"));
        broken_off(dense.path(), &out, &settings, after);
        let mut kept = 0;
        quantise_checkpoint(dense.path(), &out, &settings, &mut |event| {
            kept += usize::from(matches!(event, WriteEvent::Kept { .. }));
        })
        .unwrap();
        kept_in_all += kept;
        assert!(files(&out) == files(&whole), "cut after {after}");
    }
    assert!(kept_in_all > written.files);
}

#[test]
fn a_write_with_other_settings_keeps_nothing_of_the_one_cut_short() {
    let dense = source(Family::Olmoe, false);
    let settings = small_files(Quantisation::default());
    let other = small_files(Quantisation {
        nf4: Nf4Settings { double_quant: false, ..Nf4Settings::default() },
        router: false,
    });
    let (out, whole) = (dense.path().join("out"), dense.path().join("whole"));
    broken_off(dense.path(), &out, &settings, 60);
    quantise_checkpoint(dense.path(), &out, &other, &mut |event| {
        assert!(!matches!(event, WriteEvent::Kept { .. }));
    })
    .unwrap();
    quantise_checkpoint(dense.path(), &whole, &other, &mut |_| {}).unwrap();
    assert!(files(&out) == files(&whole));
}

#[test]
fn a_file_damaged_meanwhile_is_written_again() {
    let dense = source(Family::Olmoe, false);
    let settings = small_files(Quantisation::default());
    let (out, whole) = (dense.path().join("out"), dense.path().join("whole"));
    quantise_checkpoint(dense.path(), &whole, &settings, &mut |_| {}).unwrap();
    broken_off(dense.path(), &out, &settings, 60);
    let partial = dense.path().join("out.partial");
    let first = files(&partial).into_iter().find(|(name, _)| name.starts_with("model-00001")).unwrap();
    fs::write(partial.join(&first.0), &first.1[..first.1.len() - 1]).unwrap();
    quantise_checkpoint(dense.path(), &out, &settings, &mut |_| {}).unwrap();
    assert!(files(&out) == files(&whole));
}

#[test]
fn two_writers_of_one_folder_are_told_apart() {
    let dense = source(Family::Olmoe, false);
    let out = dense.path().join("out");
    let mut inner = None;
    quantise_checkpoint(dense.path(), &out, &QuantiseSettings::default(), &mut |_| {
        if inner.is_none() {
            inner = Some(quantise_checkpoint(dense.path(), &out, &QuantiseSettings::default(), &mut |_| {}));
        }
    })
    .unwrap();
    assert!(matches!(inner, Some(Err(ModelError::OutputBusy { .. }))), "{inner:?}");
}

#[test]
fn a_weight_that_is_not_finite_is_named_and_nothing_gets_the_final_name() {
    let dense = source(Family::Mixtral, false);
    let path = dense.path().join("model.safetensors");
    let name = "model.layers.2.block_sparse_moe.experts.5.w3.weight";
    let offset = {
        let checkpoint = Checkpoint::open(dense.path(), &CheckpointSettings { mmap: false }).unwrap();
        checkpoint.tensor(name).unwrap().offset as usize
    };
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset..offset + 2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let out = dense.path().join("out");
    let error =
        quantise_checkpoint(dense.path(), &out, &QuantiseSettings::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, ModelError::Nf4 { tensor, .. } if tensor == name), "{error}");
    assert!(!out.exists());
    let leftovers = files(&dense.path().join("out.partial"));
    assert!(leftovers.iter().all(|(name, _)| !name.contains(".part")), "{leftovers:?}");
    let on_load =
        CpuEngine::open(dense.path(), &CpuSettings { precision: Precision::Nf4, ..CpuSettings::default() });
    assert!(matches!(on_load, Err(ModelError::Nf4 { tensor, .. }) if tensor == name));
}

#[test]
fn random_checkpoints_in_4_bits_have_every_tensor_and_route_neither_evenly_nor_to_one_expert() {
    for family in Family::ALL {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let quantisation = Some(Quantisation::default());
        let settings =
            SyntheticSettings { quantisation, element: ElementType::Bf16, ..SyntheticSettings::default() };
        write_folder(&out, &tiny_config(family), &settings, &[], &mut |_| {}).unwrap();
        for layer in routed(&out, Quantisation::default()) {
            // 8 experts: 3 bits when even, 0 when one takes all.
            let mean = layer.gate_entropy.iter().sum::<f32>() / layer.gate_entropy.len() as f32;
            assert!((0.5..2.9).contains(&mean), "{family} layer {}: {mean} bits", layer.number);
        }
    }
}

#[test]
fn random_checkpoints_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let written = [1, 3].map(|threads| {
        let out = dir.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut config = tiny_config(Family::Qwen2Moe);
        config["vocab_size"] = serde_json::json!(40_000);
        pool.install(|| write_folder(&out, &config, &SyntheticSettings::default(), &[], &mut |_| {}))
            .unwrap();
        files(&out)
    });
    assert!(written[0] == written[1]);
}
