//! Models in 4 bits: agreement with what bitsandbytes 0.47 made of the same weights, and of its own checkpoint.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{
    Checkpoint, CheckpointSettings, ComputeDtype, CpuEngine, CpuSettings, ElementType, Family, Nf4Settings,
    Precision, ProbePoint, Quantisation, ScaleMap, StorageType,
};
use moetrace_routing::LayerIndex;
use serde_json::json;

use crate::cases::{Array, Case, committed, further_cases, masked, pick, read_expected};
use crate::recorder::{Recorder, Seen, batch_at};

/// From the stored codes and scales: two correct f32 programs.
const TOLERANCE: f32 = 1e-4;
/// Quantising ourselves: a scale's 8-bit code on a rounding tie flips with the order in which the mean of the
/// scales is summed (two in `mixtral_small`, one in `deepseek_small`).
const OWN_TOLERANCE: f32 = 2e-3;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/nf4").join(name)
}

fn unpacked(name: &str) -> Vec<u8> {
    zstd::decode_all(&fs::read(fixture(name)).unwrap()[..]).unwrap()
}

/// Router logits and language-model logits of a run in f32 beside those of the reference, and whether the chosen
/// experts are the same sets wherever the reference's margin is clear.
struct Compared {
    worst_logits: f32,
    worst_router: f32,
}

fn compare(
    case: &Case,
    expected: &HashMap<String, Array>,
    prefix: &str,
    dir: &Path,
    quantisation: Quantisation,
    tolerance: f32,
) -> Compared {
    let settings = CpuSettings {
        precision: Precision::Nf4,
        compute: Some(ComputeDtype::F32),
        quantisation,
        threads: 2,
        ..CpuSettings::default()
    };
    let mut engine = CpuEngine::open(dir, &settings).unwrap();
    let of = |name: &str| &case.expected[name];
    let masked =
        masked(of("input_ids"), case.expected.get("position_ids"), case.expected.get("attention_mask"));
    let (mut recorder, mut seen) = (Recorder::everything(), Seen::default());
    engine.run_with_probe(&batch_at(&masked.samples, &masked.positions), &mut recorder, &mut seen).unwrap();
    let close = |name: &str, found: &[f32]| -> f32 {
        let expected = &expected[&format!("{prefix}.{name}")];
        let expected = pick(&expected.floats, &masked.rows, *expected.shape.last().unwrap());
        assert_eq!(found.len(), expected.len(), "{}: {name}", case.name);
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        let all_close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= tolerance);
        assert!(all_close, "{}: {prefix}.{name} deviates by {worst}, more than {tolerance}", case.name);
        worst
    };
    let mut compared = Compared { worst_logits: 0.0, worst_router: 0.0 };
    compared.worst_logits = close("logits", &seen.0[&ProbePoint::Logits]);
    let last = engine.config().layers();
    close(&format!("hidden.{last}"), &seen.0[&ProbePoint::FinalNorm]);
    for layer in &recorder.layers {
        let point = ProbePoint::RouterLogits(LayerIndex(layer.number as u16));
        let worst = close(&format!("router.{}.logits", layer.number), &seen.0[&point]);
        compared.worst_router = compared.worst_router.max(worst);
        let ids = &expected[&format!("{prefix}.router.{}.topk_ids", layer.number)];
        let k = ids.shape[1];
        let mut clear = 0;
        for (packed, row) in masked.rows.iter().enumerate() {
            // The margin of our own run; a row near a tie may go either way.
            if layer.margins[packed] <= 2e-4 {
                continue;
            }
            clear += 1;
            let found: BTreeSet<u32> =
                layer.experts[packed * k..][..k].iter().map(|id| u32::from(*id)).collect();
            let expected: BTreeSet<u32> = ids.ints[row * k..][..k].iter().copied().collect();
            assert_eq!(found, expected, "{}: {prefix} layer {} row {row}", case.name, layer.number);
        }
        assert!(clear * 4 >= masked.rows.len() * 3, "{}: {clear} clear rows", case.name);
    }
    compared
}

/// Expectation of the committed case, or what lies beside a further one.
fn expected_of(case: &Case, plain: Option<&Path>) -> HashMap<String, Array> {
    match plain {
        Some(dir) => read_expected(&fs::read(dir.join("expected_nf4.safetensors")).unwrap()),
        None => read_expected(&unpacked(&format!("expected/{}.safetensors.zst", case.name))),
    }
}

fn quantising_ourselves(case: &Case, plain: Option<&Path>) {
    let expected = expected_of(case, plain);
    for (prefix, router) in [("routerfp", false), ("hf", true)] {
        // The reference ran on a CPU.
        let nf4 = Nf4Settings { map: ScaleMap::CpuLibrary, ..Nf4Settings::default() };
        let quantisation = Quantisation { nf4, router };
        let compared = compare(case, &expected, prefix, &case.dir, quantisation, OWN_TOLERANCE);
        println!(
            "{} {prefix}: logits within {:.1e}, router logits within {:.1e}",
            case.name, compared.worst_logits, compared.worst_router
        );
    }
}

#[test]
fn deepseek_quantised_on_load_matches() {
    quantising_ourselves(&committed("deepseek_small"), None);
}

#[test]
fn deepseek_with_odd_shapes_quantised_on_load_matches() {
    quantising_ourselves(&committed("deepseek_norm"), None);
}

#[test]
fn mixtral_quantised_on_load_matches() {
    quantising_ourselves(&committed("mixtral_small"), None);
}

#[test]
fn olmoe_quantised_on_load_matches() {
    quantising_ourselves(&committed("olmoe_small"), None);
}

#[test]
fn qwen2_moe_quantised_on_load_matches() {
    quantising_ourselves(&committed("qwen2_moe_small"), None);
}

#[test]
fn qwen3_moe_quantised_on_load_matches() {
    quantising_ourselves(&committed("qwen3_moe_small"), None);
}

#[test]
fn every_further_case_quantised_on_load_matches_too() {
    for case in further_cases() {
        let dir = case.dir.clone();
        quantising_ourselves(&case, Some(&dir));
    }
}

/// The checkpoint that bitsandbytes wrote of `deepseek_small`, as files.
pub(crate) fn prequantised() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let name = "deepseek_small_prequantised";
    fs::copy(fixture(name).join("config.json"), dir.path().join("config.json")).unwrap();
    let bytes = unpacked(&format!("{name}/model.safetensors.zst"));
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

#[test]
fn a_checkpoint_of_bitsandbytes_matches_closely() {
    let (case, dir) = (committed("deepseek_small"), prequantised());
    let expected = expected_of(&case, None);
    let compared = compare(&case, &expected, "routerfp", dir.path(), Quantisation::default(), TOLERANCE);
    println!("prequantised: logits within {:.1e}", compared.worst_logits);
}

#[test]
fn a_checkpoint_of_bitsandbytes_lists_its_tensors_under_their_own_names_and_shapes() {
    let dir = prequantised();
    let checkpoint = Checkpoint::open(dir.path(), &CheckpointSettings::default()).unwrap();
    assert!(checkpoint.is_four_bit());
    let four_bit = checkpoint.tensors().filter(|tensor| tensor.storage == StorageType::Nf4).count();
    // As many linear modules as `expected_nf4.json` counts.
    assert_eq!(four_bit, 172);
    let down = checkpoint.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!(down.shape, [64, 160]);
    // Codes, one byte for 64 elements, one f32 for 256 of those.
    assert_eq!(down.bytes, 64 * 160 / 2 + 160 + 4);
    assert!(checkpoint.tensors().all(|tensor| !tensor.name.contains("absmax")));
}

#[test]
fn memory_of_4_bit_weights_is_that_of_their_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tiny_config(Family::Qwen2Moe);
    for (field, value) in [("hidden_size", 256), ("moe_intermediate_size", 128), ("num_attention_heads", 4)] {
        config[field] = json!(value);
    }
    let element = ElementType::Bf16;
    write_checkpoint(dir.path(), &config, &SyntheticSettings { element, ..SyntheticSettings::default() })
        .unwrap();
    let store = Checkpoint::open(dir.path(), &CheckpointSettings::default()).unwrap();
    let is_quantised = |name: &str| name.contains("_proj.weight");
    let (mut bits, mut quantised) = (0f64, 0);
    for tensor in store.tensors() {
        let elements: usize = tensor.shape.iter().product();
        if is_quantised(tensor.name) {
            // 4 bits, 8 for 64 elements, 32 for 64 * 256.
            bits += elements as f64 * (4.0 + 8.0 / 64.0 + 32.0 / 16384.0);
            quantised += elements;
        } else {
            // Vectors are held as f32, being added and multiplied element by element.
            bits += elements as f64 * if tensor.shape.len() == 1 { 32.0 } else { 16.0 };
        }
    }
    assert!(quantised > 1_000_000);
    let settings = CpuSettings { precision: Precision::Nf4, ..CpuSettings::default() };
    let engine = CpuEngine::load(&store, &settings).unwrap();
    let (found, expected) = (engine.weight_bytes() as f64, bits / 8.0);
    assert!((found / expected - 1.0).abs() < 0.03, "{found} bytes held, {expected} expected");
    let estimated = CpuEngine::memory_estimate(engine.config(), &settings).weights as f64;
    assert!((estimated / expected - 1.0).abs() < 0.03, "{estimated} bytes estimated, {expected} expected");
}
