//! Every committed file of a run, read and checked against what the run says of itself.
//!
//! Nothing is believed and nothing stops at the first fault: each kind is counted, and the first place of each kept.
//! Memory holds the samples of one shard, some thousands of its rows, and a number for every text of a data set.

mod constants;
mod derived;
mod fault;
mod files;
mod hidden;
mod layers;
mod logits;
mod rows;
mod samples;
mod stretch;
mod stretches;
mod walk;

use std::collections::HashSet;
use std::path::PathBuf;

use moetrace_routing::RoutingGeometry;
use serde::Serialize;

pub use self::fault::{Fault, FaultKind, Place};

use self::constants::Constants;
use self::fault::Faults;
use self::layers::WeightSum;
use crate::lock::writer_of;
use crate::{Manifest, RunError, RunFolder, Shard};

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Shards of the run.
    pub shards: usize,
    /// Shards with a commit record: those that were read.
    pub committed: usize,
    /// Files that the records name and that are there.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Texts listed.
    pub samples: u64,
    /// Rows of tokens read.
    pub rows: u64,
    /// Each kind of fault that was found, in the order of [`FaultKind::ALL`].
    pub faults: Vec<Fault>,
}

/// Reads every committed file of a run; nothing is changed. A run that is not finished is no fault.
///
/// # Errors
/// [`RunError::NotARun`] and [`RunError::Damaged`] for the manifest, without which nothing can be said. Whatever is
/// wrong behind it is a fault.
pub fn verify(folder: &RunFolder) -> Result<Verification, RunError> {
    let manifest = folder.manifest()?;
    let geometry = manifest.geometry()?;
    let mut verifying = Verifying::new(folder, &manifest, &geometry);
    for shard in &manifest.shards {
        verifying.shard(shard);
    }
    verifying.conclude();
    let Verifying { mut out, faults, .. } = verifying;
    out.faults = faults.into_vec();
    Ok(out)
}

/// What is known of a data set so far.
#[derive(Debug, Default)]
struct DatasetSeen {
    ids: HashSet<u32>,
    truncated: u64,
    /// Shards whose samples were read.
    shards: usize,
}

struct Verifying<'a> {
    folder: &'a RunFolder,
    manifest: &'a Manifest,
    geometry: &'a RoutingGeometry,
    weight_sum: WeightSum,
    faults: Faults,
    datasets: Vec<DatasetSeen>,
    /// Shards without a commit record that nobody is writing.
    open: Vec<&'a Shard>,
    /// Ids of the rows that were read; at most a vocabulary.
    token_ids: HashSet<u32>,
    /// Over all files: small ones tell nothing each by itself.
    constants: Constants,
    out: Verification,
}

impl<'a> Verifying<'a> {
    fn new(folder: &'a RunFolder, manifest: &'a Manifest, geometry: &'a RoutingGeometry) -> Self {
        Self {
            folder,
            manifest,
            geometry,
            weight_sum: WeightSum::of(manifest),
            faults: Faults::default(),
            datasets: manifest.datasets.iter().map(|_| DatasetSeen::default()).collect(),
            open: Vec::new(),
            token_ids: HashSet::new(),
            constants: Constants::new(geometry),
            out: Verification {
                shards: manifest.shards.len(),
                committed: 0,
                files: 0,
                bytes: 0,
                samples: 0,
                rows: 0,
                faults: Vec::new(),
            },
        }
    }

    fn shard(&mut self, shard: &'a Shard) {
        let record = match self.folder.commit(&shard.name) {
            Ok(None) => {
                if writer_of(self.folder, &shard.name).is_none() {
                    self.open.push(shard);
                }
                return;
            }
            Ok(Some(record)) => {
                if let Some(what) = record.objection(self.manifest, shard) {
                    self.faults.of_file(FaultKind::Record, &commit_file(shard), what);
                }
                Some(record)
            }
            Err(error) => {
                // The place says which file it is.
                let file = commit_file(shard);
                let what = self.below(&error).replacen(&file.display().to_string(), "it", 1);
                self.faults.of_file(FaultKind::Record, &file, what);
                None
            }
        };
        self.out.committed += 1;
        if let Some(record) = &record {
            self.files(record);
        }
        let Some(samples) = self.samples(shard) else { return };
        // Of a record that was refused nothing is believed.
        let input_hash = record.filter(|r| r.objection(self.manifest, shard).is_none()).map(|r| r.input_hash);
        self.rows(shard, &samples, input_hash.as_deref());
        if self.manifest.has_hidden() {
            self.hidden(shard, &samples);
        }
    }

    /// What can only be said of all shards together.
    fn conclude(&mut self) {
        self.strays();
        for (dataset, seen) in self.manifest.datasets.iter().zip(&self.datasets) {
            let shards = self.manifest.shards.iter().filter(|shard| {
                self.manifest.datasets.get(shard.dataset).is_some_and(|of| of.name == dataset.name)
            });
            if seen.shards == shards.count() && seen.truncated != dataset.truncated {
                let what = format!(
                    "{} texts of {} are marked as truncated, the manifest says {}",
                    seen.truncated, dataset.name, dataset.truncated
                );
                self.faults.of_file(FaultKind::Samples, "manifest.json".as_ref(), what);
            }
        }
        let file = PathBuf::from("data");
        self.constants.report(&file, self.geometry, &mut self.faults);
        if self.out.committed == self.out.shards {
            self.derived();
        } else if self.was_finished() {
            // Whoever wrote a shard may have committed it since it was looked for.
            let lost = self.open.iter().filter(|shard| !self.folder.commit_path(&shard.name).exists());
            for shard in lost {
                let what = "it is missing, though there is a summary of the run, which was finished";
                self.faults.of_file(FaultKind::Record, &commit_file(shard), what);
            }
        }
    }

    /// An error's words, paths from the run folder on.
    fn below(&self, error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text.replace(&format!("{}/", self.folder.root().display()), "")
    }
}

/// A shard's file in `data`, `samples` or `hidden`, below the run folder.
fn shard_file(kind: &str, shard: &Shard) -> PathBuf {
    PathBuf::from(kind).join(format!("{}.parquet", shard.name))
}

fn commit_file(shard: &Shard) -> PathBuf {
    PathBuf::from("state/commits").join(format!("{}.json", shard.name))
}
