//! No token's result depends on its batch, two runs give the same bits, passes take no memory, and one that fails
//! leaves nothing behind.

use std::path::Path;

use moetrace_cuda::Device;
use moetrace_model::synthetic::{SyntheticSettings, write_checkpoint};
use moetrace_model::{CudaEngine, CudaSettings, Engine as _, ModelError, Precision};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};
use serde_json::json;

use super::support::{engine, open, settings};
use crate::recorder::{Layer, Recorder, batch, tokens};
use crate::support::{alone, asked};

/// Layers with experts of the checkpoint: more than may be under way to the host at a time.
const MOE_LAYERS: usize = 9;

fn checkpoint(dir: &Path) {
    let config = json!({
        "model_type": "deepseek", "hidden_act": "silu", "hidden_size": 1024, "vocab_size": 8000,
        "num_hidden_layers": MOE_LAYERS + 1, "num_attention_heads": 8, "num_key_value_heads": 8,
        "intermediate_size": 1024, "moe_intermediate_size": 256, "n_routed_experts": 16, "n_shared_experts": 2,
        "num_experts_per_tok": 6, "first_k_dense_replace": 1, "moe_layer_freq": 1, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "norm_topk_prob": false, "tie_word_embeddings": false
    });
    write_checkpoint(dir, &config, &SyntheticSettings::default()).unwrap();
}

fn part(layer: &Layer, rows: std::ops::Range<usize>) -> Layer {
    let k = layer.experts.len() / layer.margins.len();
    Layer {
        number: layer.number,
        experts: layer.experts[rows.start * k..rows.end * k].to_vec(),
        weights: layer.weights[rows.start * k..rows.end * k].to_vec(),
        margins: layer.margins[rows.clone()].to_vec(),
        gate_entropy: layer.gate_entropy[rows].to_vec(),
        ..Layer::default()
    }
}

fn run(engine: &mut CudaEngine, samples: &[Vec<u32>]) -> Vec<Layer> {
    let mut recorder = Recorder::default();
    engine.run(&batch(samples), &mut recorder).unwrap();
    recorder.layers
}

#[test]
fn a_texts_routing_has_the_same_bits_alone_among_others_and_again() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let lengths = [1, 7, 960, 512, 512, 65, 2000, 300];
    let texts = lengths.iter().enumerate().map(|(seed, length)| tokens(seed as u32, *length, 8000));
    let rest = (20_000 - lengths.iter().sum::<usize>()) / 512;
    let samples: Vec<Vec<u32>> =
        texts.chain((0..rest).map(|seed| tokens(100 + seed as u32, 512, 8000))).collect();
    let ways =
        [(Precision::Bf16, false), (Precision::Nf4, false), (Precision::F16, false), (Precision::Bf16, true)];
    for (precision, portable) in ways {
        let what = format!("{precision}, portable {portable}");
        let wide = CudaSettings { portable, ..settings(precision, 20_000) };
        let mut large = engine(dir.path(), wide);
        // Made for smaller passes: their size is free to change between runs.
        let mut small = engine(dir.path(), CudaSettings { tokens_per_pass: 2000, ..wide });
        let all = run(&mut large, &samples);
        assert!(all == run(&mut large, &samples), "{what}: a second run differs");
        let mut start = 0;
        for (number, length) in lengths.iter().enumerate() {
            let expected: Vec<Layer> = all.iter().map(|layer| part(layer, start..start + length)).collect();
            for (engine, size) in [(&mut large, 20_000), (&mut small, 2000)] {
                let same = run(engine, &samples[number..=number]) == expected;
                assert!(same, "{what}: {length} tokens alone, in passes up to {size}, differ");
            }
            start += length;
        }
    }
}

/// Looks how much memory is free whenever something is recorded.
struct Watch<'a> {
    device: &'a Device,
    free: Vec<usize>,
}

impl RoutingSink for Watch<'_> {
    fn wants(&self) -> Planes {
        Planes::default()
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        self.free.push(self.device.memory().unwrap().0);
        Ok(())
    }
    fn record(&mut self, _: &RoutingView<'_>) -> Result<(), SinkError> {
        self.free.push(self.device.memory().unwrap().0);
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn passes_take_no_memory_and_too_large_ones_are_refused() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let device = open().device;
    let free = device.memory().unwrap().0;
    let mut engine = engine(dir.path(), settings(Precision::Nf4, 4096));
    let mut recorder = Recorder::default();
    engine.run(&batch(&[tokens(1, 4096, 8000)]), &mut recorder).unwrap();
    let taken = free.saturating_sub(device.memory().unwrap().0);
    let held = (engine.weight_bytes() + engine.buffer_bytes()) as usize;
    println!("{held} bytes held by weights and buffers, {taken} taken");
    // Besides: kernels, cuBLASLt, the tables of codes, and pages that allocations do not fill.
    assert!(held <= taken && taken - held < 1 << 30, "{held} bytes planned, {taken} taken");
    let mut watch = Watch { device: &device, free: Vec::new() };
    for seed in 0..3 {
        engine.run(&batch(&[tokens(seed, 4000, 8000), tokens(seed, 96, 8000)]), &mut watch).unwrap();
    }
    assert_eq!(watch.free.len(), 3 * (1 + MOE_LAYERS));
    assert!(watch.free.windows(2).all(|pair| pair[0] == pair[1]), "free memory moved: {:?}", watch.free);
    let error = engine.run(&batch(&[tokens(1, 4097, 8000)]), &mut recorder).unwrap_err();
    assert!(matches!(error, ModelError::PassTooLarge { found: 4097, expected: 4096 }), "{error}");
}

#[test]
fn an_empty_pass_tells_the_sink_of_every_layer() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let mut recorder = Recorder::default();
    engine(dir.path(), settings(Precision::Bf16, 64)).run(&batch(&[]), &mut recorder).unwrap();
    assert_eq!((recorder.began, recorder.ended, recorder.layers.len()), (1, 1, MOE_LAYERS));
}

/// Makes the embedding of a token no number.
fn spoil(dir: &Path, token: usize) {
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("model.embed_tokens.weight").unwrap();
    let row = view.data().len() / view.shape()[0];
    let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize + token * row;
    bytes[start..start + row].fill(0xFF);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_router_that_sees_no_number_names_its_layer_and_the_next_pass_is_well() {
    if !asked() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    spoil(dir.path(), 7999);
    for (precision, nll) in [(Precision::F32, false), (Precision::Bf16, false), (Precision::F32, true)] {
        let mut engine = engine(dir.path(), settings(precision, 512));
        let well = [tokens(1, 200, 7000)];
        let first = run(&mut engine, &well);
        let mut ids = tokens(2, 100, 7000);
        ids[70] = 7999;
        let mut spoiled = Recorder::wanting(Planes { nll, ..Planes::default() });
        let error = engine.run(&batch(&[tokens(3, 50, 7000), ids]), &mut spoiled).unwrap_err();
        let ModelError::NotFinite { layer, row, .. } = error else { panic!("{precision}: {error}") };
        // The fast attention kernels spread it over the 64 keys of a tile, within its text.
        let rows = if precision == Precision::F32 { 120..=120 } else { 50..=120 };
        assert!(layer.index() == 1 && rows.contains(&row), "{precision}: layer {layer}, row {row}");
        assert_eq!((spoiled.layers.len(), spoiled.ended), (0, 0));
        assert!(first == run(&mut engine, &well), "{precision}: the pass after a failed one differs");
    }
}
