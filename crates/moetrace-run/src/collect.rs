//! The loop: each shard still to do goes through the engine, each committed one is replayed.

use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_model::{Engine, ModelError};

use crate::commit::{input_hash, uncommit};
use crate::lock::{Locked, lock_shard};
use crate::replay::replay_shard;
use crate::write::Writing;
use crate::{
    Execution, Fs, Manifest, Plan, ResolvedSetting, RunError, RunEvent, RunFolder, Shard, Trust, rebuild,
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
    /// Who is at work, for whoever finds a shard's lock taken: a process, a host, since when.
    pub holder: &'a str,
    /// Set from outside to stop: the shard in flight is dropped at the next layer of its pass.
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
    /// Bytes of the selected shards' files.
    pub bytes: u64,
    /// Numbers over the selected shards.
    pub metrics: RoutingMetrics,
    /// Whether `summary.json` and its like were written: only when every shard is committed.
    pub complete: bool,
}

/// Does what is still to do, then writes the derived files if the whole run is there.
///
/// `load` is called once, at the first shard that needs the model.
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
    let total = RoutingMetrics::new(&run.plan.geometry, &run.metrics);
    let mut state = Looping {
        run,
        manifest: &manifest,
        engine: None,
        written: 0,
        holder: String::new(),
        bytes: 0,
        total,
    };
    let all: Vec<&Shard> = manifest.shards[range.clone()].iter().collect();
    // What others were writing may be committed by now, or theirs no more: of several processes the last one
    // finds everything done. Only what is still being written is left to them.
    let busy = match state.shards(&all, load, on_event)? {
        Some(first) if !first.is_empty() => state.shards(&first, load, &mut |event| {
            if !matches!(event, RunEvent::Busy { .. }) {
                on_event(event);
            }
        })?,
        other => other,
    };
    state.conclude(busy.map(|busy| busy.len()), range)
}

struct Looping<'a, 'r> {
    run: &'r Collect<'a>,
    manifest: &'r Manifest,
    engine: Option<Box<dyn Engine>>,
    written: usize,
    /// Who writes the last shard that was found busy.
    holder: String,
    bytes: u64,
    total: RoutingMetrics,
}

enum Step {
    Counted(Box<RoutingMetrics>),
    Busy,
    Stopped,
}

impl<'r> Looping<'_, 'r> {
    /// Does these shards, and gives back those that another process is writing; `None` if it was told to stop.
    fn shards(
        &mut self,
        shards: &[&'r Shard],
        load: &mut dyn FnMut() -> Result<Box<dyn Engine>, ModelError>,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Option<Vec<&'r Shard>>, RunError> {
        let mut busy = Vec::new();
        for &shard in shards {
            if self.run.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match self.shard(shard, load, on_event)? {
                Step::Counted(metrics) => self.total.merge(*metrics)?,
                Step::Busy => busy.push(shard),
                Step::Stopped => return Ok(None),
            }
        }
        Ok(Some(busy))
    }

    fn shard(
        &mut self,
        shard: &Shard,
        load: &mut dyn FnMut() -> Result<Box<dyn Engine>, ModelError>,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Step, RunError> {
        if let Some(step) = self.committed(shard, false, on_event)? {
            return Ok(step);
        }
        let _lock = match lock_shard(self.run.folder, &shard.name, self.run.holder)? {
            Locked::Ours(lock) => lock,
            Locked::Theirs(holder) => {
                on_event(RunEvent::Busy { shard, holder: &holder });
                self.holder = holder;
                return Ok(Step::Busy);
            }
        };
        // Another process may have committed it between our look and our lock.
        if let Some(step) = self.committed(shard, true, on_event)? {
            return Ok(step);
        }
        let engine = match &mut self.engine {
            Some(engine) => engine,
            slot => {
                on_event(RunEvent::Loading);
                slot.insert(load()?)
            }
        };
        let dataset = &self.run.plan.corpus.datasets[shard.dataset].name;
        on_event(RunEvent::Begin { shard, dataset });
        let writing = Writing {
            fs: self.run.fs,
            folder: self.run.folder,
            plan: self.run.plan,
            plan_hash: &self.manifest.plan_hash,
            execution: self.run.execution,
            metrics: &self.run.metrics,
            stop: self.run.stop,
        };
        let Some((record, metrics)) = writing.shard(shard, engine.as_mut(), on_event)? else {
            return Ok(Step::Stopped);
        };
        self.written += 1;
        self.bytes += record.bytes();
        on_event(RunEvent::Committed { record: &record });
        Ok(Step::Counted(Box::new(metrics)))
    }

    /// Replays the shard if it is committed; a damaged one is an error, or with `repair` and its lock is uncommitted.
    fn committed(
        &mut self,
        shard: &Shard,
        locked: bool,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Option<Step>, RunError> {
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
            Ok(None) => Ok(None),
            Ok(Some((record, metrics))) => {
                self.bytes += record.bytes();
                let dataset = &self.run.plan.corpus.datasets[shard.dataset].name;
                on_event(RunEvent::Replayed { shard, dataset });
                Ok(Some(Step::Counted(Box::new(metrics))))
            }
            Err(_) if self.run.repair && !locked => Ok(None),
            Err(why) if self.run.repair => {
                on_event(RunEvent::Repairing { shard, why: &why });
                uncommit(self.run.fs, self.run.folder, shard)?;
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }

    fn conclude(self, busy: Option<usize>, range: Range<usize>) -> Result<Outcome, RunError> {
        let run = self.run;
        let shards = &self.manifest.shards;
        let is_committed = |shard: &&Shard| matches!(run.folder.committed(self.manifest, shard), Ok(Some(_)));
        let committed = shards.iter().filter(is_committed).count();
        if let Some(busy) = busy.filter(|&busy| busy > 0) {
            return Err(RunError::Locked { path: run.folder.root().into(), busy, holder: self.holder });
        }
        let mut interrupted = busy.is_none();
        let mut complete = committed == shards.len() && !interrupted;
        if complete {
            let whole = range == (0..shards.len());
            let metrics = whole.then_some(&self.total);
            complete = rebuild::derived(run, self.manifest, self.written > 0, metrics)?;
            interrupted = !complete;
        }
        Ok(Outcome {
            shards: shards.len(),
            committed,
            written: self.written,
            interrupted,
            bytes: self.bytes,
            metrics: self.total,
            complete,
        })
    }
}
