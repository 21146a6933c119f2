//! Mutated inputs through everything that reads a file of others: `fuzz SECONDS [SEED [TARGET]]`, for each target or
//! for one.
//!
//! An input is a sound file with some bytes changed, cut out, repeated or cut off. Whatever comes back is fine
//! but a panic; a process that dies (memory, a signal) shows as such to `cargo xtask fuzz`, which limits memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use benches::{Random, Recorded};
use moetrace_corpus::{CorpusSettings, SourceSpec, TextTokenizer};
use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_model::{
    Checkpoint, CheckpointSettings, CpuEngine, CpuSettings, Engine as _, ModelConfig, Precision,
    Quantisation, synthetic,
};
use moetrace_nf4::{CODE_VALUES, Nf4Tensor, QuantState, Scales};
use moetrace_routing::{LayerIndex, RoutingGeometry, WeightPrecision};
use moetrace_run::{Collect, ContentSettings, Execution, ModelFacts, Plan, RealFs, RunFolder, Trust, replay};
use moetrace_trace::{
    SampleRow, ShardReader, ShardWriter, TraceColumns, TraceSettings, read_rows, write_samples,
};

/// What is mutated, and what reads it.
struct Target {
    name: &'static str,
    input: Input,
}

/// Where the mutated bytes are read from.
enum Input {
    /// From this file, whose contents are sound.
    File(PathBuf, Box<dyn Fn()>),
    /// From memory; the sound bytes first.
    Bytes(Vec<u8>, fn(&[u8])),
}

impl Input {
    fn sound(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::File(path, _) => std::fs::read(path),
            Self::Bytes(bytes, _) => Ok(bytes.clone()),
        }
    }

    /// Whether the reader came back.
    fn survives(&self, bytes: &[u8]) -> std::io::Result<bool> {
        Ok(match self {
            Self::File(path, read) => {
                std::fs::write(path, bytes)?;
                catch_unwind(AssertUnwindSafe(read)).is_ok()
            }
            Self::Bytes(_, read) => catch_unwind(AssertUnwindSafe(|| read(bytes))).is_ok(),
        })
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().context("usage: fuzz SECONDS [SEED]")?.parse()?;
    let mut random = Random(args.next().map_or(Ok(1), |seed| seed.parse())?);
    let only = args.next();
    std::panic::set_hook(Box::new(|_| {}));
    let dir = tempfile::tempdir()?;
    let mut findings = 0;
    let wanted = |target: &Target| only.as_ref().is_none_or(|name| name == target.name);
    for target in targets(dir.path())?.into_iter().filter(wanted) {
        let sound = target.input.sound()?;
        let begun = Instant::now();
        let mut runs = 0u64;
        while begun.elapsed() < Duration::from_secs(seconds) {
            let mutated = mutate(&sound, &mut random);
            if !target.input.survives(&mutated)? {
                findings += 1;
                let keep = std::env::temp_dir().join(format!("moetrace-fuzz-{}-{findings}", target.name));
                std::fs::write(&keep, &mutated)?;
                println!("{}: panic, input kept as {}", target.name, keep.display());
            }
            runs += 1;
        }
        target.input.survives(&sound)?;
        println!("target={} runs={runs} seconds={seconds} findings={findings}", target.name);
    }
    ensure!(findings == 0, "{findings} inputs made a reader panic");
    Ok(())
}

/// Changes some bytes, or cuts, repeats or removes a stretch.
fn mutate(sound: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    let below = |random: &mut Random, n: usize| (random.bits() % n.max(1) as u64) as usize;
    for _ in 0..=below(random, 4) {
        let at = below(random, bytes.len());
        match below(random, 10) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + below(random, 64)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let end = (at + below(random, 64)).min(bytes.len());
                let stretch = bytes[at..end].to_vec();
                bytes.splice(at..at, stretch);
            }
            3 => {
                for (byte, value) in bytes[at..].iter_mut().zip([0xFF; 8]) {
                    *byte = value;
                }
            }
            4..=6 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = b"0123456789-\"{}[],:\x00\xFF"[below(random, 20)];
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(random, 8);
                }
            }
        }
    }
    bytes
}

fn targets(dir: &Path) -> Result<Vec<Target>> {
    let mut all = model_targets(&dir.join("model"))?;
    all.extend(corpus_targets(dir)?);
    all.extend(trace_targets(&dir.join("run"))?);
    all.extend(run_targets(dir, &dir.join("model"))?);
    Ok(all)
}

fn model_targets(dir: &Path) -> Result<Vec<Target>> {
    std::fs::create_dir_all(dir)?;
    let config = synthetic::tiny_config(moetrace_model::Family::DeepSeek);
    synthetic::write_checkpoint(dir, &config, &synthetic::SyntheticSettings::default())?;
    let read = |dir: PathBuf| move || drop(ModelConfig::read(&dir));
    let load = |dir: PathBuf| {
        move || {
            if let Ok(checkpoint) = Checkpoint::open(&dir, &CheckpointSettings { mmap: false }) {
                drop(CpuEngine::load(&checkpoint, &CpuSettings::default()));
            }
        }
    };
    let file = |name, path: PathBuf, read| Target { name, input: Input::File(path, read) };
    let mut all = vec![
        file("config.json", dir.join("config.json"), Box::new(read(dir.into()))),
        file("safetensors", dir.join("model.safetensors"), Box::new(load(dir.into()))),
    ];
    all.extend(four_bit_targets(dir, &config)?);
    Ok(all)
}

fn four_bit_targets(dir: &Path, config: &serde_json::Value) -> Result<Vec<Target>> {
    let out = dir.join("nf4");
    let settings = synthetic::SyntheticSettings {
        quantisation: Some(Quantisation::default()),
        ..synthetic::SyntheticSettings::default()
    };
    synthetic::write_folder(&out, config, &settings, &[], &mut |_| {})?;
    let folder = out.clone();
    let load = move || {
        if let Ok(checkpoint) = Checkpoint::open(&folder, &CheckpointSettings { mmap: false }) {
            let settings = CpuSettings { precision: Precision::Nf4, ..CpuSettings::default() };
            drop(CpuEngine::load(&checkpoint, &settings));
        }
    };
    let state = br#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [48, 64], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.0415}"#;
    Ok(vec![
        Target { name: "nf4", input: Input::File(out.join("model.safetensors"), Box::new(load)) },
        Target { name: "quant_state", input: Input::Bytes(state.to_vec(), parse_state) },
    ])
}

/// A state that is accepted must also be written again, and must be refused with parts of other lengths.
fn parse_state(bytes: &[u8]) {
    let Ok(state) = QuantState::parse(bytes) else { return };
    let again = QuantState::parse(state.to_json().as_bytes());
    assert!(again.is_ok_and(|again| again == state), "a state does not survive being written");
    let scales = Scales::Plain(vec![1.0; 48].into());
    drop(Nf4Tensor::from_parts(state, vec![0; 48 * 32].into(), scales, CODE_VALUES));
}

fn corpus_targets(dir: &Path) -> Result<Vec<Target>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let tokenizer_dir = dir.join("tokenizer");
    std::fs::create_dir_all(&tokenizer_dir)?;
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures.join("model").join(file), tokenizer_dir.join(file))?;
    }
    let opened = tokenizer_dir.clone();
    let mut all = vec![Target {
        name: "tokenizer.json",
        input: Input::File(
            tokenizer_dir.join("tokenizer.json"),
            Box::new(move || {
                if let Ok(tokenizer) = TextTokenizer::open(&opened) {
                    drop(tokenizer.encode("Some text, 12 words\nof two lines."));
                }
            }),
        ),
    }];
    for (name, file) in [
        ("jsonl", "mathematics.jsonl"),
        ("jsonl.gz", "code.jsonl.gz"),
        ("csv", "chinese.csv"),
        ("txt", "verse.txt"),
        ("parquet", "encyclopaedia.parquet"),
        ("arrow", "questions.arrow"),
    ] {
        let copy = dir.join(file);
        std::fs::copy(fixtures.join("datasets").join(file), &copy)?;
        let source = SourceSpec { name: "fuzz".into(), path: copy.clone(), column: None, listed: vec![] };
        let tokenizer = TextTokenizer::open(&fixtures.join("model"))?;
        let settings = CorpusSettings { traces: 2, ..CorpusSettings::default() };
        let read = move || {
            let source = std::slice::from_ref(&source);
            drop(moetrace_corpus::plan(source, Some(&tokenizer), &settings, &mut |_| {}));
        };
        all.push(Target { name, input: Input::File(copy, Box::new(read)) });
    }
    Ok(all)
}

fn trace_targets(dir: &Path) -> Result<Vec<Target>> {
    std::fs::create_dir_all(dir)?;
    let geometry = RoutingGeometry::new(8, 2, 4, vec![LayerIndex(1), LayerIndex(2)])?;
    let recorded = Recorded::new(geometry.clone(), 4, 16, 9)?;
    let settings = TraceSettings::default();
    let mut writer = ShardWriter::new(&geometry, &settings, &"bench".into(), Vec::new(), None)?;
    recorded.play(&mut writer)?;
    let (data, samples) = (dir.join("data.parquet"), dir.join("samples.parquet"));
    std::fs::write(&data, writer.finish()?.data)?;
    let rows: Vec<SampleRow> = recorded.batch.spans().iter().map(sample_row).collect();
    std::fs::write(&samples, write_samples(Vec::new(), "bench", &rows, &settings)?)?;
    let play = |data: PathBuf, samples: PathBuf| {
        move || {
            if let Ok(reader) = ShardReader::open(&data, &samples) {
                let mut metrics = RoutingMetrics::new(reader.geometry(), &MetricsSettings::default());
                drop(reader.play(32, &mut metrics));
            }
            drop(read_rows(&data, 3));
        }
    };
    Ok(vec![
        Target {
            name: "trace data",
            input: Input::File(data.clone(), Box::new(play(data.clone(), samples.clone()))),
        },
        Target { name: "trace samples", input: Input::File(samples.clone(), Box::new(play(data, samples))) },
    ])
}

/// A run of the synthetic model, continued with its manifest or a commit record mutated: everything that resumes,
/// looks at or counts a run.
fn run_targets(dir: &Path, model: &Path) -> Result<Vec<Target>> {
    let source = dir.join("ids.jsonl");
    std::fs::write(&source, "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [4, 5]}\n{\"input_ids\": [6]}\n")?;
    let out = dir.join("synthetic");
    let checkpoint = Checkpoint::open(model, &CheckpointSettings { mmap: false })?;
    let load = move || CpuEngine::load(&checkpoint, &CpuSettings::default());
    let plan = synthetic_plan(&source, load()?.geometry().clone())?;
    let resume = move |out: &Path| -> Result<()> {
        let folder = RunFolder::new(out);
        let run = Collect {
            fs: &RealFs,
            folder: &folder,
            plan: &plan,
            settings: Vec::new(),
            execution: &Execution { tokens_per_pass: 4, threads: 1, device: "cpu".into() },
            metrics: MetricsSettings::default(),
            range: None,
            repair: false,
            vocabulary: None,
            process: None,
            holder: "fuzz",
            stop: &AtomicBool::new(false),
        };
        moetrace_run::collect(&run, &mut || Ok(Box::new(load()?)), &mut |_| {})?;
        Ok(())
    };
    resume(&out)?;
    let folder = RunFolder::new(&out);
    let record = folder.commit_path(&folder.manifest()?.shards[0].name);
    let resume = Rc::new(resume);
    let target = |name: &'static str, file: PathBuf| {
        let (folder, resume) = (folder.clone(), Rc::clone(&resume));
        let read = move || {
            if let Ok(manifest) = folder.manifest() {
                drop(moetrace_run::status(&folder, &manifest));
                drop(replay(&folder, &manifest, &MetricsSettings::default(), Trust::Sizes));
            }
            drop(resume(folder.root()));
        };
        Target { name, input: Input::File(file, Box::new(read)) }
    };
    Ok(vec![target("manifest", folder.manifest_path()), target("commit record", record)])
}

fn synthetic_plan(source: &Path, geometry: RoutingGeometry) -> Result<Plan> {
    let settings = CorpusSettings { traces: 3, min_chars: 0, ..CorpusSettings::default() };
    let source = SourceSpec { name: "ids".into(), path: source.into(), column: None, listed: vec![] };
    let corpus = moetrace_corpus::plan(&[source], None, &settings, &mut |_| {})?;
    let content = ContentSettings {
        traces: settings.traces,
        max_length: settings.max_length,
        min_chars: settings.min_chars,
        seed: settings.seed,
        shard_tokens: 3,
        columns: TraceColumns::default(),
        weights: WeightPrecision::Half,
        hidden_rows: 0,
    };
    let model = ModelFacts {
        name: "synthetic".into(),
        revision: None,
        family: "deepseek".into(),
        config_hash: String::new(),
        weights_hash: String::new(),
        total_parameters: Some(1),
        active_parameters: Some(1),
        weight_bytes: None,
        engine: "cpu".into(),
        precision: "f32".into(),
        compute_dtype: "f32".into(),
        quantisation: None,
        router_dtype: "model".into(),
        hub: None,
        renormalised: None,
    };
    Ok(Plan::new(content, model, None, geometry, corpus))
}

fn sample_row(span: &moetrace_routing::Span) -> SampleRow {
    SampleRow {
        sample_id: span.sample,
        source_file: "fuzz.jsonl".into(),
        source_row: 0,
        label: None,
        tokens: span.len as u32,
        truncated: false,
        begins_with_bos: true,
        text_hash: String::new(),
        text: None,
    }
}
