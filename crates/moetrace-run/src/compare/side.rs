//! One of two runs, walked through one data set: which texts it has committed, and their rows.

use std::collections::VecDeque;

use moetrace_routing::Planes;
use moetrace_trace::Playback;

use super::is_on;
use crate::replay::open_shard;
use crate::{CommitRecord, Manifest, RunError, RunFolder, Shard, Trust};

/// A run by its folder and its manifest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) folder: &'a RunFolder,
    pub(super) manifest: &'a Manifest,
}

/// The committed shards of one data set that are not behind us, in plan order.
pub(super) struct Side<'a> {
    run: Run<'a>,
    shards: VecDeque<(&'a Shard, CommitRecord)>,
    /// The first of them, once it is being read.
    open: Option<Playback>,
}

impl<'a> Side<'a> {
    pub(super) fn new(run: Run<'a>, dataset: &str) -> Result<Self, RunError> {
        let damaged = |what: String| RunError::Damaged { path: run.folder.manifest_path(), what };
        let (mut shards, mut planned) = (VecDeque::new(), 0);
        for shard in &run.manifest.shards {
            let of = run.manifest.datasets.get(shard.dataset);
            let of = of.ok_or_else(|| {
                damaged(format!("shard {} is of data set no. {}", shard.name, shard.dataset))
            })?;
            if of.name != dataset {
                continue;
            }
            if shard.first != planned {
                let first = shard.first;
                return Err(damaged(format!(
                    "shard {} begins with text {first}, expected {planned}",
                    shard.name
                )));
            }
            let behind = shard.first.checked_add(shard.samples);
            planned = behind.ok_or_else(|| damaged(format!("shard {} has too many texts", shard.name)))?;
            if let Some(record) = run.folder.committed(run.manifest, shard)? {
                shards.push_back((shard, record));
            }
        }
        Ok(Self { run, shards, open: None })
    }

    /// The first committed text from `text` on, in plan order; shards before it are let go.
    pub(super) fn next_from(&mut self, text: usize) -> Option<usize> {
        while self.shards.front().is_some_and(|(shard, _)| shard.range().end <= text) {
            self.shards.pop_front();
            self.open = None;
        }
        self.shards.front().map(|(shard, _)| shard.first.max(text))
    }

    /// The shard that holds `text`, read up to it; [`next_from`](Self::next_from) has just found it.
    pub(super) fn playback(
        &mut self,
        text: usize,
        wants: Planes,
        trust: Trust,
    ) -> Result<Option<&mut Playback>, RunError> {
        let Some((shard, record)) = self.shards.front() else { return Ok(None) };
        if self.open.is_none() {
            self.open = Some(self.begin(shard, record, wants, trust)?);
        }
        let Some(open) = self.open.as_mut() else { return Ok(None) };
        let at = shard.range().end - open.remaining().len();
        open.skip(text.saturating_sub(at))?;
        Ok(Some(open))
    }

    fn begin(
        &self,
        shard: &Shard,
        record: &CommitRecord,
        wants: Planes,
        trust: Trust,
    ) -> Result<Playback, RunError> {
        let Run { folder, manifest } = self.run;
        let reader = open_shard(folder, manifest, shard, record, trust)?;
        let path = || folder.shard_path("samples", &shard.name);
        let found = reader.samples().len();
        if found != shard.samples {
            let what = format!("it lists {found} texts, the manifest {}", shard.samples);
            return Err(RunError::Damaged { path: path(), what });
        }
        let dataset = &manifest.datasets[shard.dataset].name;
        if **reader.dataset() != **dataset {
            let what = format!("it is of data set {}, the manifest says {dataset}", reader.dataset());
            return Err(RunError::Damaged { path: path(), what });
        }
        if reader.columns().token_ids == is_on(manifest, "no_tokens") {
            let what =
                "it has token ids where the manifest says there are none, or the other way round".into();
            return Err(RunError::Damaged { path: folder.shard_path("data", &shard.name), what });
        }
        Ok(reader.playback(wants)?)
    }
}
