//! No token's result depends on its batch, or on how many threads there are.

use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use moetrace_model::{CpuEngine, CpuSettings, Engine, Family, ModelError, Precision, RouterDtype};
use moetrace_routing::{Planes, RoutingGeometry, RoutingSink, RoutingView, SinkError, TokenBatch};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::recorder::{Layer, Recorder, Seen, batch, tokens};

fn engine(config: &Value, precision: Precision, threads: usize) -> CpuEngine {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), config, &SyntheticSettings::default()).unwrap();
    let settings = CpuSettings { precision, threads, ..CpuSettings::default() };
    CpuEngine::open(dir.path(), &settings).unwrap()
}

/// Bits of everything recorded, samples joined: per layer, one list of numbers per plane.
fn joined(parts: &[Vec<Layer>]) -> Vec<[Vec<u32>; 7]> {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let layers = parts[0].len();
    let plane = |layer: usize, of: &dyn Fn(&Layer) -> Vec<u32>| -> Vec<u32> {
        parts.iter().flat_map(|part| of(&part[layer])).collect()
    };
    let optional = |values: &Option<Vec<f32>>| values.as_deref().map(bits).unwrap_or_default();
    (0..layers)
        .map(|l| {
            [
                plane(l, &|part| part.experts.iter().map(|e| u32::from(*e)).collect()),
                plane(l, &|part| bits(&part.weights)),
                plane(l, &|part| bits(&part.margins)),
                plane(l, &|part| bits(&part.gate_entropy)),
                plane(l, &|part| optional(&part.logits)),
                plane(l, &|part| optional(&part.shared_gate)),
                plane(l, &|part| optional(&part.nll)),
            ]
        })
        .collect()
}

fn run(engine: &mut CpuEngine, samples: &[Vec<u32>]) -> Vec<Layer> {
    let mut recorder = Recorder::everything();
    engine.run(&batch(samples), &mut recorder).unwrap();
    assert_eq!((recorder.began, recorder.ended), (1, 1));
    recorder.layers
}

/// Runs `samples` in passes cut at `cuts`, by an engine with `threads`.
fn in_passes(
    config: &Value,
    precision: Precision,
    threads: usize,
    passes: &[&[Vec<u32>]],
) -> Vec<[Vec<u32>; 7]> {
    let mut engine = engine(config, precision, threads);
    joined(&passes.iter().map(|pass| run(&mut engine, pass)).collect::<Vec<_>>())
}

/// Shapes on both sides of every size at which the gemm crate changes its path.
fn awkward_config() -> impl Strategy<Value = (Value, Precision)> {
    let shape = (
        prop::sample::select(Family::ALL.to_vec()),
        prop::sample::select(vec![2usize, 3, 5, 16, 70]), // experts
        prop::sample::select(vec![1usize, 2, 3, 40, 80]), // expert width
        prop::sample::select(vec![4usize, 8, 32, 72]),    // hidden
        prop::sample::select(vec![2usize, 65, 130]),      // vocab
        prop::sample::select(vec![Precision::F32, Precision::Bf16, Precision::F16, Precision::Nf4]),
    );
    shape.prop_map(|(family, experts, width, hidden, vocab, precision)| {
        let mut config = tiny_config(family);
        for field in ["n_routed_experts", "num_experts", "num_local_experts"] {
            if config.get(field).is_some() {
                config[field] = json!(experts);
            }
        }
        let width_field = if config.get("moe_intermediate_size").is_some() {
            "moe_intermediate_size"
        } else {
            "intermediate_size"
        };
        config[width_field] = json!(width);
        config["num_experts_per_tok"] = json!(2.min(experts));
        config["hidden_size"] = json!(hidden);
        config["num_attention_heads"] = json!(2);
        config["vocab_size"] = json!(vocab);
        (config, precision)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_split_into_passes_and_any_thread_count_give_the_same_bits(
        (config, precision) in awkward_config(),
        lengths in prop::collection::vec(prop::sample::select(vec![1usize, 2, 7, 63, 64, 65, 130]), 2..6),
        cut in 0usize..100,
    ) {
        let vocab = config["vocab_size"].as_u64().unwrap() as u32;
        let samples: Vec<_> =
            lengths.iter().enumerate().map(|(i, len)| tokens(i as u32, *len, vocab)).collect();
        let whole = in_passes(&config, precision, 1, &[&samples]);
        prop_assert!(whole == in_passes(&config, precision, 2, &[&samples]), "two threads differ");
        let one_by_one: Vec<&[Vec<u32>]> = samples.chunks(1).collect();
        prop_assert!(whole == in_passes(&config, precision, 2, &one_by_one), "single samples differ");
        let (left, right) = samples.split_at(1 + cut % (samples.len() - 1));
        prop_assert!(whole == in_passes(&config, precision, 1, &[left, right]), "two passes differ");
    }
}

#[test]
fn larger_passes_give_the_same_bits_too() {
    // Wide enough for the gemm crate to split its work over threads and to block K.
    let mut config = tiny_config(Family::DeepSeek);
    for (field, value) in [("hidden_size", 576), ("moe_intermediate_size", 192), ("vocab_size", 500)] {
        config[field] = json!(value);
    }
    let samples: Vec<_> = (0..6).map(|i| tokens(i, 150 + 30 * i as usize, 500)).collect();
    let whole = in_passes(&config, Precision::F32, 2, &[&samples]);
    assert!(whole == in_passes(&config, Precision::F32, 1, &[&samples]));
    assert!(whole == in_passes(&config, Precision::F32, 2, &samples.chunks(1).collect::<Vec<_>>()));
    assert!(whole == in_passes(&config, Precision::F32, 1, &samples.chunks(4).collect::<Vec<_>>()));
}

#[test]
fn a_sample_sees_no_token_of_its_neighbours_or_of_its_future() {
    let mut engine = engine(&tiny_config(Family::Qwen3Moe), Precision::F32, 2);
    let [first, second, other] = [tokens(1, 20, 96), tokens(2, 30, 96), tokens(3, 30, 96)];
    let with_second = run(&mut engine, &[first.clone(), second]);
    let with_other = run(&mut engine, &[first.clone(), other]);
    let alone = run(&mut engine, std::slice::from_ref(&first));
    let prefix = run(&mut engine, &[first[..11].to_vec()]);
    for layer in 0..alone.len() {
        let logits =
            |layers: &[Layer], rows: usize| layers[layer].logits.as_ref().unwrap()[..rows * 8].to_vec();
        assert_eq!(logits(&with_second, 20), logits(&alone, 20));
        assert_eq!(logits(&with_other, 20), logits(&alone, 20));
        for (a, b) in logits(&prefix, 11).iter().zip(logits(&alone, 11)) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn optional_planes_come_only_when_wanted_and_change_nothing_else() {
    for family in Family::ALL {
        let mut engine = engine(&tiny_config(family), Precision::F32, 1);
        let samples = [tokens(1, 9, 96), tokens(2, 4, 96)];
        let batch = batch(&samples).with_hidden_rows(vec![0, 5, 12]).unwrap();
        let (mut plain, mut full) = (Recorder::default(), Recorder::everything());
        engine.run(&batch, &mut plain).unwrap();
        engine.run(&batch, &mut full).unwrap();
        let last = full.layers.len() - 1;
        for (number, (plain, full)) in plain.layers.iter().zip(&mut full.layers).enumerate() {
            assert_eq!(full.logits.take().map(|l| l.len()), Some(13 * 8));
            assert_eq!(full.hidden.take().map(|h| h.len()), Some(3 * 32));
            assert_eq!(full.shared_gate.take().is_some(), family == Family::Qwen2Moe);
            assert_eq!(full.nll.take().is_some(), number == last);
            assert_eq!(plain, full);
        }
    }
}

#[test]
fn a_pass_without_tokens_records_every_layer_empty() {
    let mut engine = engine(&tiny_config(Family::Mixtral), Precision::F32, 1);
    let mut recorder = Recorder::default();
    engine.run(&TokenBatch::default(), &mut recorder).unwrap();
    assert_eq!(recorder.layers.iter().map(|l| l.number).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(recorder.layers.iter().all(|l| l.experts.is_empty()));
}

#[test]
fn a_probe_sees_the_whole_model_and_does_not_change_what_is_recorded() {
    let mut engine = engine(&tiny_config(Family::Olmoe), Precision::F32, 2);
    let batch = batch(&[tokens(4, 150, 96)]);
    let (mut plain, mut probed, mut seen) = (Recorder::default(), Recorder::default(), Seen::default());
    engine.run(&batch, &mut plain).unwrap();
    engine.run_with_probe(&batch, &mut probed, &mut seen).unwrap();
    assert_eq!(plain.layers, probed.layers);
    // Embedding, five places in each layer, final norm, logits.
    assert_eq!(seen.0.len(), 1 + 3 * 5 + 2);
    assert_eq!(seen.0[&moetrace_model::ProbePoint::Logits].len(), 150 * 96);
}

#[test]
fn the_router_in_f32_differs_from_the_models_own_only_when_the_model_is_not() {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), &tiny_config(Family::DeepSeek), &SyntheticSettings::default()).unwrap();
    let weights = |precision, router_dtype| {
        let settings = CpuSettings { precision, router_dtype, ..CpuSettings::default() };
        let mut engine = CpuEngine::open(dir.path(), &settings).unwrap();
        run(&mut engine, &[tokens(1, 40, 96)])[0].weights.clone()
    };
    let f32s = [RouterDtype::Model, RouterDtype::F32].map(|dtype| weights(Precision::F32, dtype));
    assert_eq!(f32s[0], f32s[1]);
    let bf16s = [RouterDtype::Model, RouterDtype::F32].map(|dtype| weights(Precision::Bf16, dtype));
    let is_bf16 = |weight: &f32| weight.to_bits().trailing_zeros() >= 16;
    assert!(bf16s[0].iter().all(is_bf16));
    assert!(!bf16s[1].iter().all(is_bf16));
}

#[test]
fn a_token_outside_the_vocabulary_is_refused_before_the_sink_hears_of_the_pass() {
    let mut engine = engine(&tiny_config(Family::Mixtral), Precision::F32, 1);
    let mut recorder = Recorder::default();
    let error = engine.run(&batch(&[vec![1, 95, 96]]), &mut recorder).unwrap_err();
    assert!(matches!(error, ModelError::TokenRange { row: 2, found: 96, vocab: 96 }), "{error}");
    assert_eq!(recorder.began, 0);
}

/// Fails at its n-th call.
struct Failing(usize);

impl Failing {
    fn call(&mut self) -> Result<(), SinkError> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| SinkError::new("full"))?;
        Ok(())
    }
}

impl RoutingSink for Failing {
    fn wants(&self) -> Planes {
        Planes { nll: true, ..Planes::default() }
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        self.call()
    }
    fn record(&mut self, _: &RoutingView<'_>) -> Result<(), SinkError> {
        self.call()
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.call()
    }
}

#[test]
fn a_failing_sink_stops_the_pass_with_its_own_error() {
    let mut engine: Box<dyn Engine> = Box::new(engine(&tiny_config(Family::DeepSeek), Precision::F32, 1));
    let geometry: RoutingGeometry = engine.geometry().clone();
    let calls = geometry.layers().len() + 2;
    for fail_at in 0..calls {
        let error = engine.run(&batch(&[vec![1, 2]]), &mut Failing(fail_at)).unwrap_err();
        assert!(matches!(&error, ModelError::Sink(_)) && error.to_string() == "full", "{error}");
    }
    engine.run(&batch(&[vec![1, 2]]), &mut Failing(calls)).unwrap();
}

#[test]
fn a_weight_that_is_not_a_number_names_layer_and_row() {
    let dir = tempfile::tempdir().unwrap();
    write_checkpoint(dir.path(), &tiny_config(Family::DeepSeek), &SyntheticSettings::default()).unwrap();
    let checkpoint =
        moetrace_model::Checkpoint::open(dir.path(), &moetrace_model::CheckpointSettings { mmap: false });
    let offset = checkpoint.unwrap().tensor("model.layers.2.mlp.gate.weight").unwrap().offset as usize;
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let mut engine = CpuEngine::open(dir.path(), &CpuSettings::default()).unwrap();
    let mut recorder = Recorder::default();
    let error = engine.run(&batch(&[vec![1, 2]]), &mut recorder).unwrap_err();
    let ModelError::NotFinite { layer, row, .. } = error else { panic!("{error}") };
    assert_eq!((layer.index(), row, recorder.layers.len(), recorder.ended), (2, 0, 1, 0));
}
