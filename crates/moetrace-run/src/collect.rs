//! The loop: each shard still to do goes through the engine, each committed one is replayed.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_model::{Engine, ModelError};

use crate::commit::uncommit;
use crate::lock::{Locked, lock_shard};
use crate::replay::replay_shard;
use crate::write::Writing;
use crate::{
    CommitRecord, Execution, Fs, Manifest, Plan, ResolvedSetting, RunError, RunFolder, Shard, Trust, rebuild,
};

/// What happens during a run, for whoever shows progress.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunEvent<'a> {
    /// The model is about to be loaded.
    Loading,
    /// A shard begins.
    Begin {
        /// The shard.
        shard: &'a Shard,
        /// Its data set.
        dataset: &'a str,
    },
    /// A pass is done.
    Pass {
        /// Its data set.
        dataset: &'a str,
        /// Samples in it.
        samples: usize,
        /// Tokens in it.
        tokens: usize,
    },
    /// A shard is safe.
    Committed {
        /// Its record.
        record: &'a CommitRecord,
    },
    /// A shard had been committed before; its rows were read back.
    Replayed {
        /// The shard.
        shard: &'a Shard,
        /// Its data set.
        dataset: &'a str,
    },
    /// A damaged shard is done again.
    Repairing {
        /// The shard.
        shard: &'a Shard,
        /// What is wrong with it.
        why: &'a RunError,
    },
    /// Another process is writing the shard.
    Busy {
        /// The shard.
        shard: &'a Shard,
        /// Who.
        holder: &'a str,
    },
}

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
    /// Set from outside to stop after the pass in flight.
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
    let shards = run.plan.shards.len();
    let range = run.range.unwrap_or(ShardRange { from: 0, to: shards });
    // Before anything is written: a mistyped range leaves no folder behind.
    if range.to > shards || range.from > range.to {
        return Err(RunError::ShardRange { from: range.from, to: range.to, shards });
    }
    let manifest = run.folder.open(run.fs, run.plan, run.settings.clone())?;
    let all = &manifest.shards;
    let mut state = Looping { run, manifest: &manifest, engine: None, written: 0, busy: None, bytes: 0 };
    let mut total = RoutingMetrics::new(&run.plan.geometry, &run.metrics);
    let mut interrupted = false;
    for shard in &all[range.from..range.to] {
        if run.stop.load(Ordering::Relaxed) {
            interrupted = true;
            break;
        }
        match state.shard(shard, load, on_event)? {
            Step::Counted(metrics) => total.merge(*metrics)?,
            Step::Busy => {}
            Step::Stopped => {
                interrupted = true;
                break;
            }
        }
    }
    state.conclude(total, interrupted, range)
}

struct Looping<'a, 'r> {
    run: &'r Collect<'a>,
    manifest: &'r Manifest,
    engine: Option<Box<dyn Engine>>,
    written: usize,
    busy: Option<(usize, String)>,
    bytes: u64,
}

enum Step {
    Counted(Box<RoutingMetrics>),
    Busy,
    Stopped,
}

impl Looping<'_, '_> {
    fn shard(
        &mut self,
        shard: &Shard,
        load: &mut dyn FnMut() -> Result<Box<dyn Engine>, ModelError>,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Step, RunError> {
        if let Some(step) = self.committed(shard, on_event)? {
            return Ok(step);
        }
        let _lock = match lock_shard(self.run.folder, &shard.name)? {
            Locked::Ours(lock) => lock,
            Locked::Theirs(holder) => {
                on_event(RunEvent::Busy { shard, holder: &holder });
                let busy = self.busy.get_or_insert((0, holder));
                busy.0 += 1;
                return Ok(Step::Busy);
            }
        };
        // Another process may have committed it between our look and our lock.
        if let Some(step) = self.committed(shard, on_event)? {
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

    /// Replays the shard if it is committed; a damaged one is an error, or with `repair` is uncommitted.
    fn committed(
        &mut self,
        shard: &Shard,
        on_event: &mut dyn FnMut(RunEvent<'_>),
    ) -> Result<Option<Step>, RunError> {
        let replayed = self.run.folder.commit(&shard.name).and_then(|record| {
            let Some(record) = record else { return Ok(None) };
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
            Err(why) if self.run.repair => {
                on_event(RunEvent::Repairing { shard, why: &why });
                uncommit(self.run.fs, self.run.folder, shard)?;
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }

    fn conclude(
        self,
        metrics: RoutingMetrics,
        interrupted: bool,
        range: ShardRange,
    ) -> Result<Outcome, RunError> {
        let run = self.run;
        let shards = &self.manifest.shards;
        let is_committed = |s: &&Shard| run.folder.commit_path(&s.name).is_file();
        let committed = shards.iter().filter(is_committed).count();
        if let Some((busy, holder)) = self.busy.filter(|_| !interrupted) {
            return Err(RunError::Locked { path: run.folder.root().into(), busy, holder });
        }
        let complete = committed == shards.len() && !interrupted;
        if complete {
            let whole = range.from == 0 && range.to == shards.len();
            rebuild::derived(run, self.manifest, whole.then_some(&metrics))?;
        }
        Ok(Outcome {
            shards: shards.len(),
            committed,
            written: self.written,
            interrupted,
            bytes: self.bytes,
            metrics,
            complete,
        })
    }
}
