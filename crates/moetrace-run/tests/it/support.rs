//! A plan of token ids, an engine that routes by arithmetic, and a disk that fails on demand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use moetrace_corpus::{CorpusSettings, SourceSpec};
use moetrace_metrics::MetricsSettings;
use moetrace_model::{Engine, EngineUsage, ModelError};
use moetrace_routing::{
    ExpertId, HiddenRows, LayerIndex, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, TokenBatch,
    WeightPrecision,
};
use moetrace_run::{
    Collect, ContentSettings, Execution, Fs, FsFile, ModelFacts, Outcome, Plan, ProcessUsage, RealFs,
    RunError, RunEvent, RunFolder, ShardRange, collect,
};
use moetrace_trace::TraceColumns;

pub(crate) const HIDDEN: usize = 3;

pub(crate) fn geometry() -> RoutingGeometry {
    RoutingGeometry::new(8, 2, HIDDEN, vec![LayerIndex(1), LayerIndex(2)]).unwrap()
}

/// How many tokens a pass may have after so many were too many.
pub(crate) type Halve = fn(usize) -> Option<usize>;

/// Routes every token by a hash of its id and position: no result depends on the pass it is in.
pub(crate) struct Arithmetic {
    pub(crate) geometry: RoutingGeometry,
    /// Token at which the router breaks down.
    pub(crate) poison: Option<u32>,
    /// Tokens whose id is a multiple of it choose another second expert in the second layer.
    pub(crate) twist: Option<u32>,
    /// Token whose loss is no number.
    pub(crate) lossless: Option<u32>,
    /// Set after so many passes, as a signal would.
    pub(crate) stop_after: Option<(usize, Arc<AtomicBool>)>,
    /// Called before each layer with the passes done and the layer.
    pub(crate) before_layer: Option<Box<dyn FnMut(usize, u16)>>,
    /// Calls of `run`, counted from 0, in whose second layer memory runs out.
    pub(crate) out_of_memory: Vec<usize>,
    /// Most tokens of a pass, where that is limited, and what `halve` makes of it.
    pub(crate) room: Option<(usize, Halve)>,
    /// Bytes it says that it holds for each token of its room; its passes then take a millisecond a token.
    pub(crate) bytes_a_token: u64,
    calls: usize,
    passes: usize,
    tokens: usize,
}

impl Arithmetic {
    pub(crate) fn new() -> Self {
        Self {
            geometry: geometry(),
            poison: None,
            twist: None,
            lossless: None,
            stop_after: None,
            before_layer: None,
            out_of_memory: Vec::new(),
            room: None,
            bytes_a_token: 0,
            calls: 0,
            passes: 0,
            tokens: 0,
        }
    }
}

impl Engine for Arithmetic {
    fn geometry(&self) -> &RoutingGeometry {
        &self.geometry
    }

    fn run(&mut self, batch: &TokenBatch, sink: &mut dyn RoutingSink) -> Result<(), ModelError> {
        let (n, call) = (batch.len(), self.calls);
        self.calls += 1;
        if let Some((room, _)) = self.room
            && n > room
        {
            return Err(ModelError::PassTooLarge { found: n, expected: room });
        }
        sink.begin(batch)?;
        for ordinal in self.geometry.ordinals() {
            if let Some(hook) = &mut self.before_layer {
                hook(self.passes, ordinal.0);
            }
            if ordinal.0 == 1 && self.out_of_memory.contains(&call) {
                return Err(ModelError::OutOfMemory { what: "a pass of arithmetic" });
            }
            let (mut experts, mut weights, mut margins, mut entropy) = (vec![], vec![], vec![], vec![]);
            for (id, position) in batch.token_ids().iter().zip(batch.positions()) {
                let h = id.0.wrapping_mul(0x9E37_79B9).rotate_left(*position % 32) ^ u32::from(ordinal.0);
                let first = (h % 8) as u16;
                let step = (h >> 8) as u16 % 7;
                let twisted = ordinal.0 == 1 && self.twist.is_some_and(|n| id.0.is_multiple_of(n));
                let step = if twisted { (step + 1) % 7 } else { step };
                experts.extend([ExpertId(first), ExpertId((first + 1 + step) % 8)]);
                let top = 0.5 + f32::from((h >> 16) as u16) / 262_144.0;
                weights.extend([top, 0.9 - top]);
                let poisoned = self.poison == Some(id.0) && ordinal.0 == 1;
                // So small that the other six experts of a softmax can have the tenth that is left.
                margins.push(if poisoned { f32::NAN } else { (0.9 - top) / 2.0 });
                entropy.push(1.0 + top);
            }
            let hidden: Vec<f32> = batch
                .hidden_rows()
                .iter()
                .flat_map(|&r| [batch.token_ids()[r as usize].0 as f32; HIDDEN])
                .collect();
            let planes = RoutingPlanes {
                experts: &experts,
                weights: Some(&weights),
                margins: Some(&margins),
                gate_entropy: Some(&entropy),
                hidden: sink
                    .wants()
                    .hidden
                    .then_some(HiddenRows { rows: batch.hidden_rows(), values: &hidden }),
                ..RoutingPlanes::default()
            };
            let view = RoutingView::new(&self.geometry, ordinal, n, planes)?;
            sink.record(&view)?;
        }
        if let Some(row) = batch.token_ids().iter().position(|id| self.lossless == Some(id.0)) {
            return Err(ModelError::LossNotFinite { row, found: f32::INFINITY });
        }
        sink.end()?;
        self.passes += 1;
        self.tokens += n;
        if let Some((after, stop)) = &self.stop_after
            && self.passes == *after
        {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn usage(&self) -> EngineUsage {
        if self.bytes_a_token == 0 {
            return EngineUsage::default();
        }
        let room = self.room.map_or(0, |(room, _)| room as u64);
        let passes_ms = self.tokens as f64;
        EngineUsage {
            device_bytes: self.bytes_a_token * room,
            host_bytes: 5,
            passes_ms,
            waited_ms: passes_ms / 4.0,
        }
    }

    fn halve(&mut self) -> Result<Option<usize>, ModelError> {
        let Some((room, halve)) = &mut self.room else { return Ok(None) };
        let smaller = halve(*room);
        *room = smaller.unwrap_or(*room);
        Ok(smaller)
    }
}

/// Two data sets of token ids: 9 samples of 5 to 13 tokens, and 4 of 30.
pub(crate) fn sources(dir: &Path) -> Vec<SourceSpec> {
    let write = |name: &str, lengths: &[u32]| {
        let mut text = String::new();
        for (row, &n) in lengths.iter().enumerate() {
            let ids: Vec<String> = (0..n).map(|i| (row as u32 * 100 + i).to_string()).collect();
            writeln!(text, "{{\"input_ids\": [{}], \"label\": \"{}\"}}", ids.join(","), row % 2).unwrap();
        }
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let a = write("a.jsonl", &[5, 6, 7, 8, 9, 10, 11, 12, 13]);
    let b = write("b.jsonl", &[30, 30, 30, 30]);
    let spec =
        |name: &str, path: PathBuf| SourceSpec { name: name.into(), path, column: None, listed: vec![] };
    vec![spec("alpha", a), spec("beta", b)]
}

pub(crate) fn content() -> ContentSettings {
    ContentSettings {
        traces: 100,
        max_length: 64,
        min_chars: 0,
        seed: 7,
        shard_tokens: 40,
        columns: TraceColumns { hidden: true, ..TraceColumns::default() },
        weights: WeightPrecision::Half,
        hidden_rows: 3,
    }
}

pub(crate) fn plan(dir: &Path, content: ContentSettings) -> Plan {
    let settings = CorpusSettings {
        traces: content.traces,
        max_length: content.max_length,
        seed: content.seed,
        ..Default::default()
    };
    let corpus = moetrace_corpus::plan(&sources(dir), None, &settings, &mut |_| {}).unwrap();
    let model = ModelFacts {
        name: "arithmetic".into(),
        revision: None,
        family: "test".into(),
        config_hash: "c".into(),
        weights_hash: "w".into(),
        total_parameters: Some(1),
        active_parameters: Some(1),
        weight_bytes: Some(4),
        engine: "cpu".into(),
        precision: "f32".into(),
        compute_dtype: "f32".into(),
        quantisation: None,
        router_dtype: "model".into(),
        renormalised: None,
        hub: None,
    };
    Plan::new(content, model, None, geometry(), corpus)
}

/// One call of `collect`, with everything that a test may change.
pub(crate) struct Call<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) engine: Arithmetic,
    pub(crate) tokens_per_pass: usize,
    pub(crate) threads: usize,
    pub(crate) range: Option<ShardRange>,
    pub(crate) repair: bool,
    pub(crate) process: Option<&'a dyn Fn() -> ProcessUsage>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            fs: &RealFs,
            engine: Arithmetic::new(),
            tokens_per_pass: 16,
            threads: 1,
            range: None,
            repair: false,
            process: None,
            stop: Arc::default(),
        }
    }
}

impl Call<'_> {
    pub(crate) fn collect(self, out: &Path, plan: &Plan) -> Result<Outcome, RunError> {
        self.collect_and_tell(out, plan, &mut |_| {})
    }

    pub(crate) fn collect_and_tell(
        self,
        out: &Path,
        plan: &Plan,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Outcome, RunError> {
        let folder = RunFolder::new(out);
        let execution =
            Execution { tokens_per_pass: self.tokens_per_pass, threads: self.threads, device: "cpu".into() };
        let run = Collect {
            fs: self.fs,
            folder: &folder,
            plan,
            settings: Vec::new(),
            execution: &execution,
            metrics: MetricsSettings::default(),
            range: self.range,
            repair: self.repair,
            vocabulary: Some(&|id| Some(format!("t{id}"))),
            process: self.process,
            holder: "pid 1",
            stop: &self.stop,
        };
        let mut engine = Some(self.engine);
        collect(&run, &mut || Ok(Box::new(engine.take().unwrap())), on_event)
    }
}

/// Every file of a run by its path, but for locks and commit records (which say how they were carried out).
pub(crate) fn files(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![run.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(run).unwrap().to_owned();
            if name.starts_with("state") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Says which files differ, without printing their bytes.
pub(crate) fn assert_same(found: &Path, expected: &Path) {
    let (found, expected) = (files(found), files(expected));
    let names = |m: &BTreeMap<PathBuf, Vec<u8>>| m.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    assert!(!found.is_empty());
    for (name, bytes) in &found {
        assert!(bytes == &expected[name], "{} differs", name.display());
    }
}

/// What happens from the n-th call on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is gone: this call and every later one fails.
    Crash,
    /// This call alone fails, for want of space.
    NoSpace,
}

/// The real disk until the n-th call.
pub(crate) struct FaultyFs {
    pub(crate) at: usize,
    pub(crate) fault: Fault,
    pub(crate) calls: Arc<AtomicUsize>,
}

impl FaultyFs {
    pub(crate) fn new(at: usize, fault: Fault) -> Self {
        Self { at, fault, calls: Arc::default() }
    }

    fn step(&self) -> io::Result<()> {
        step(&self.calls, self.at, self.fault)
    }
}

fn step(calls: &AtomicUsize, at: usize, fault: Fault) -> io::Result<()> {
    let call = calls.fetch_add(1, Ordering::SeqCst);
    let fails = match fault {
        Fault::Crash => call >= at,
        Fault::NoSpace => call == at,
    };
    if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

struct FaultyFile {
    inner: Box<dyn FsFile>,
    calls: Arc<AtomicUsize>,
    at: usize,
    fault: Fault,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step(&self.calls, self.at, self.fault)?;
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl FsFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        step(&self.calls, self.at, self.fault)?;
        self.inner.sync()
    }
}

impl Fs for FaultyFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.step()?;
        let inner = RealFs.create_new(path)?;
        Ok(Box::new(FaultyFile { inner, calls: Arc::clone(&self.calls), at: self.at, fault: self.fault }))
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealFs.rename_new(from, to)
    }
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealFs.rename_over(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealFs.sync_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealFs.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealFs.create_dir(path)
    }
}
