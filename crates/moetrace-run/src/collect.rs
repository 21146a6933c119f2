//! The loop: each shard still to do goes through the pipeline, each committed one is replayed.

use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_model::{Engine, ModelError};

use crate::commit::{input_hash, uncommit};
use crate::lock::{Locked, lock_shard};
use crate::pipeline::Pipeline;
use crate::replay::replay_shard;
use crate::tally::Tally;
use crate::usage::Meter;
use crate::write::Writing;
use crate::{
    CommitRecord, Execution, Fs, Manifest, Plan, ProcessUsage, ResolvedSetting, RunError, RunEvent,
    RunFolder, Shard, Trust, Usage, rebuild,
};

/// Some of a run's shards: `A..B`, B excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRange {
    /// The first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
}

impl FromStr for ShardRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected A..B with A < B, such as 0..4, found {text:?}");
        let (from, to) = text.split_once("..").ok_or_else(bad)?;
        let range = Self { from: from.parse().map_err(|_| bad())?, to: to.parse().map_err(|_| bad())? };
        if range.from < range.to { Ok(range) } else { Err(bad()) }
    }
}

/// Everything a run needs but the engine.
pub struct Collect<'a> {
    /// The disk.
    pub fs: &'a dyn Fs,
    /// Where the run is.
    pub folder: &'a RunFolder,
    /// What to do.
    pub plan: &'a Plan,
    /// Every setting and its source, for the manifest.
    pub settings: Vec<ResolvedSetting>,
    /// How to do it.
    pub execution: &'a Execution,
    /// What to count.
    pub metrics: MetricsSettings,
    /// Which shards; all without.
    pub range: Option<ShardRange>,
    /// Whether damaged shards are done again.
    pub repair: bool,
    /// Ids and strings of the tokens seen, for `tokens.parquet`; none leaves it out.
    pub vocabulary: Option<&'a dyn Fn(moetrace_routing::TokenId) -> Option<String>>,
    /// The process and the clock, which a library does not look at; without it records say what the engine tells.
    pub process: Option<&'a dyn Fn() -> ProcessUsage>,
    /// Who is at work, for whoever finds a shard's lock taken: a process, a host, since when.
    pub holder: &'a str,
    /// Set from outside to stop: the shard in flight is dropped at the next layer of its pass; one whose passes are
    /// through is committed.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Shards of the whole run.
    pub shards: usize,
    /// Shards of the whole run that are committed now.
    pub committed: usize,
    /// Shards this call committed.
    pub written: usize,
    /// Whether it was told to stop.
    pub interrupted: bool,
    /// Committed shards of the whole run that began again with smaller passes, for want of memory.
    pub halved: Vec<String>,
    /// What the shards that this call committed took.
    pub usage: Option<Usage>,
    /// Bytes of the selected shards' files.
    pub bytes: u64,
    /// Numbers over the selected shards.
    pub metrics: RoutingMetrics,
    /// Whether `summary.json` and its like were written: only when every shard is committed.
    pub complete: bool,
}

/// Does what is still to do, then writes the derived files if the whole run is there.
///
/// `load` is called once, at the first shard that needs the model. The engine and `on_event` are called on the caller's
/// thread; a shard is written and committed on one of its own, at most one behind the shard that the engine is in.
/// Where memory runs out the shard begins again with passes of half as many tokens, as [`Engine::halve`] has it.
///
/// # Errors
/// Any [`RunError`]; what was committed before stays committed.
pub fn collect(
    run: &Collect<'_>,
    load: &mut dyn FnMut() -> Result<Box<dyn Engine>, ModelError>,
    on_event: &mut dyn FnMut(RunEvent<'_>),
) -> Result<Outcome, RunError> {
    // Before anything is written: a mistyped range leaves no folder behind.
    let range = run.plan.select(run.range)?;
    let (manifest, _at_work) = run.folder.open(run.fs, run.plan, &run.settings)?;
    let writing = Writing {
        fs: run.fs,
        folder: run.folder,
        plan: run.plan,
        plan_hash: &manifest.plan_hash,
        execution: run.execution,
        metrics: &run.metrics,
    };
    let alarm = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let state = Looping {
            run,
            manifest: &manifest,
            load,
            engine: None,
            holder: String::new(),
            looks_again: false,
            tally: Tally::new(RoutingMetrics::new(&run.plan.geometry, &run.metrics), on_event),
            pipeline: Pipeline::new(scope, writing, Meter::new(run.process), run.stop, &alarm),
        };
        state.collect(range)
    })
}

struct Looping<'r, 'scope, 'env> {
    run: &'r Collect<'r>,
    manifest: &'env Manifest,
    load: &'r mut dyn FnMut() -> Result<Box<dyn Engine>, ModelError>,
    engine: Option<Box<dyn Engine>>,
    /// Who writes the last shard that was found busy.
    holder: String,
    /// Whether shards that were found busy are tried again, and need not be told of again.
    looks_again: bool,
    tally: Tally<'r>,
    pipeline: Pipeline<'scope, 'env>,
}

enum Step {
    /// Its numbers are counted, or will be when it is committed.
    Done,
    Busy,
    Stopped,
}

impl<'env> Looping<'_, '_, 'env> {
    fn collect(mut self, range: Range<usize>) -> Result<Outcome, RunError> {
        let all: Vec<&Shard> = self.manifest.shards[range.clone()].iter().collect();
        // What others were writing may be committed by now, or theirs no more: of several processes the last one
        // finds everything done. Only what is still being written is left to them.
        let busy = match self.shards(&all)? {
            Some(first) if !first.is_empty() => {
                self.looks_again = true;
                self.shards(&first)?
            }
            other => other,
        };
        self.conclude(busy.map(|busy| busy.len()), range)
    }

    /// Does these shards, and gives back those that another process is writing; `None` if it was told to stop.
    fn shards(&mut self, shards: &[&'env Shard]) -> Result<Option<Vec<&'env Shard>>, RunError> {
        let busy = self.each(shards);
        // Whatever became of those after it, a shard whose passes are through is committed.
        self.pipeline.settle(&mut self.tally)?;
        busy
    }

    fn each(&mut self, shards: &[&'env Shard]) -> Result<Option<Vec<&'env Shard>>, RunError> {
        let mut busy = Vec::new();
        for &shard in shards {
            if self.run.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.pipeline.settle_a_failure(&mut self.tally)?;
            match self.shard(shard)? {
                Step::Done => {}
                Step::Busy => busy.push(shard),
                Step::Stopped => return Ok(None),
            }
        }
        Ok(Some(busy))
    }

    fn shard(&mut self, shard: &'env Shard) -> Result<Step, RunError> {
        if self.committed(shard, false)? {
            return Ok(Step::Done);
        }
        let lock = match lock_shard(self.run.folder, &shard.name, self.run.holder)? {
            Locked::Ours(lock) => lock,
            Locked::Theirs(holder) => {
                if !self.looks_again {
                    self.tally.tell(RunEvent::Busy { shard, holder: &holder });
                }
                self.holder = holder;
                return Ok(Step::Busy);
            }
        };
        // Another process may have committed it between our look and our lock.
        if self.committed(shard, true)? {
            return Ok(Step::Done);
        }
        let engine = match &mut self.engine {
            Some(engine) => engine,
            slot => {
                self.tally.tell(RunEvent::Loading);
                slot.insert((self.load)()?)
            }
        };
        let dataset = &self.run.plan.corpus.datasets[shard.dataset].name;
        self.tally.tell(RunEvent::Begin { shard, dataset });
        let is_through = self.pipeline.shard(shard, lock, engine.as_mut(), &mut self.tally)?;
        Ok(if is_through { Step::Done } else { Step::Stopped })
    }

    /// Whether the shard is committed, and then replays it; a damaged one is an error, or with `repair` and its lock
    /// is uncommitted.
    fn committed(&mut self, shard: &Shard, locked: bool) -> Result<bool, RunError> {
        let samples = &self.run.plan.corpus.datasets[shard.dataset].samples[shard.range()];
        let replayed = self.run.folder.committed(self.manifest, shard).and_then(|record| {
            let Some(record) = record else { return Ok(None) };
            if record.input_hash != input_hash(samples) {
                let path = self.run.folder.commit_path(&shard.name);
                return Err(RunError::Damaged { path, what: "it was made of other tokens".into() });
            }
            let metrics = replay_shard(
                self.run.folder,
                self.manifest,
                shard,
                &record,
                &self.run.metrics,
                Trust::Nothing,
            )?;
            Ok(Some((record, metrics)))
        });
        match replayed {
            Ok(None) => Ok(false),
            Ok(Some((record, metrics))) => {
                // Numbers are merged in the order of shards.
                self.pipeline.settle(&mut self.tally)?;
                self.tally.count(record.bytes(), metrics)?;
                let dataset = &self.run.plan.corpus.datasets[shard.dataset].name;
                self.tally.tell(RunEvent::Replayed { shard, dataset });
                Ok(true)
            }
            Err(_) if self.run.repair && !locked => Ok(false),
            Err(why) if self.run.repair => {
                self.tally.tell(RunEvent::Repairing { shard, why: &why });
                uncommit(self.run.fs, self.run.folder, shard)?;
                Ok(false)
            }
            Err(why) => Err(why),
        }
    }

    fn conclude(self, busy: Option<usize>, range: Range<usize>) -> Result<Outcome, RunError> {
        let run = self.run;
        let shards = &self.manifest.shards;
        let record = |shard: &Shard| run.folder.committed(self.manifest, shard).ok().flatten();
        let records: Vec<CommitRecord> = shards.iter().filter_map(record).collect();
        let committed = records.len();
        if let Some(busy) = busy.filter(|&busy| busy > 0) {
            return Err(RunError::Locked { path: run.folder.root().into(), busy, holder: self.holder });
        }
        let mut interrupted = busy.is_none();
        let mut complete = committed == shards.len() && !interrupted;
        if complete {
            let whole = range == (0..shards.len());
            let metrics = whole.then_some(&self.tally.total);
            complete = rebuild::derived(run, self.manifest, self.tally.written > 0, metrics)?;
            interrupted = !complete;
        }
        Ok(Outcome {
            shards: shards.len(),
            committed,
            written: self.tally.written,
            interrupted,
            halved: records.into_iter().filter(|r| r.halvings > 0).map(|r| r.shard).collect(),
            usage: self.tally.usage,
            bytes: self.tally.bytes,
            metrics: self.tally.total,
            complete,
        })
    }
}
