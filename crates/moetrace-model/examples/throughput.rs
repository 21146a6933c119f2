//! Tokens per second of the CPU engine, to be compared with `benches/peer/torch_cpu.py` on the same checkpoint:
//! `cargo run --release --example throughput -- DIR [SAMPLES] [LENGTH] [PASSES] [THREADS] [f32|bf16] [nll]`
//!
//! Writes a random checkpoint of 112 million parameters into DIR first if it holds none.

use std::path::Path;
use std::time::Instant;

use moetrace_model::synthetic::{SyntheticSettings, random_batch, write_checkpoint};
use moetrace_model::{Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Engine, Precision};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};
use serde_json::json;

/// Counts choices, so that nothing can be optimised away.
struct Count {
    wanted: Planes,
    choices: usize,
}

impl RoutingSink for Count {
    fn wants(&self) -> Planes {
        self.wanted
    }
    fn begin(&mut self, _: &TokenBatch) -> Result<(), SinkError> {
        Ok(())
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.choices += view.experts().len();
        Ok(())
    }
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn write_model(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = json!({
        "model_type": "deepseek", "hidden_act": "silu", "hidden_size": 512, "vocab_size": 8192,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 1408,
        "moe_intermediate_size": 256, "n_routed_experts": 32, "n_shared_experts": 2, "num_experts_per_tok": 6,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "norm_topk_prob": false, "tie_word_embeddings": false, "bos_token_id": 1
    });
    std::fs::create_dir_all(dir)?;
    Ok(write_checkpoint(dir, &config, &SyntheticSettings::default())?)
}

/// Memory of this process, where the system tells.
fn resident() -> std::io::Result<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.unwrap_or(0) * 4096)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(
        arguments
            .first()
            .ok_or("usage: throughput DIR [SAMPLES LENGTH PASSES THREADS f32|bf16|f16|nf4 nll]")?,
    );
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |a| a.parse::<usize>());
    let (samples, len, passes, threads) = (number(1, 4)?, number(2, 512)?, number(3, 10)?, number(4, 2)?);
    let precision = match arguments.get(5).map(String::as_str) {
        Some("bf16") => Precision::Bf16,
        Some("f16") => Precision::F16,
        Some("nf4") => Precision::Nf4,
        _ => Precision::F32,
    };
    let nll = arguments.iter().any(|a| a == "nll");
    if !dir.join("config.json").exists() {
        write_model(dir)?;
    }
    // Read, not mapped: the peak of memory is then the engine's own, to hold its estimate against.
    let checkpoint = Checkpoint::open(dir, &CheckpointSettings { mmap: false })?;
    let settings = CpuSettings { precision, threads, ..CpuSettings::default() };
    let mut engine = CpuEngine::load(&checkpoint, &settings)?;
    let estimate = CpuEngine::memory_estimate(engine.config(), &settings);
    let (held, expected) = (engine.weight_bytes(), estimate.weights);
    println!("weights: {held} bytes held, {expected} estimated, {} bytes resident", resident()?);
    let estimate = estimate.total((samples * len) as u64, len as u64, nll) / 1_000_000;
    let batch = random_batch(samples, len, engine.config().vocab(), 1)?;
    let mut sink = Count { wanted: Planes { nll, ..Planes::default() }, choices: 0 };
    engine.run(&batch, &mut sink)?;
    let mut seconds = Vec::new();
    for _ in 0..passes {
        let start = Instant::now();
        engine.run(&batch, &mut sink)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    if seconds.is_empty() {
        return Ok(());
    }
    seconds.sort_by(f64::total_cmp);
    let (best, middle) = (seconds[0], seconds[seconds.len() / 2]);
    let rate = |seconds: f64| batch.len() as f64 / seconds;
    let (million, choices) = (engine.config().total_parameters() / 1_000_000, sink.choices);
    println!(
        "moetrace {million}M {precision} {samples}x{len} threads {threads} nll {nll}: median {:.0} tokens/s, best {:.0}, {choices} choices, estimated {estimate} MB",
        rate(middle),
        rate(best)
    );
    Ok(())
}
