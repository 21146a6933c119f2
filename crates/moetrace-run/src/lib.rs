//! In: a plan (settings, model facts, samples), an [`Engine`](moetrace_model::Engine), a run folder.
//! Out: committed shards on disk, derived files, a summary; the same bytes for the same plan.
//! Holds: shards, manifest, commit records, locks, the loop over shards, replay, resume, the walk through two runs, the search for
//! faults.
//! Not here: terminal, flags, clock, environment; no model mathematics, no Parquet encoding.
//!
//! A shard counts only when its commit record exists, is of this run's plan, and names files that have the sizes it
//! names.
//! Everything else in a run folder is either unfinished and removable, or derived and rebuildable.

mod begin;
mod card;
mod collect;
mod commit;
mod compare;
mod error;
mod event;
mod execution;
mod folder;
mod fs;
mod handover;
mod lock;
mod manifest;
mod origin;
mod pass_size;
mod pipeline;
mod plan;
mod produce;
mod rebuild;
mod replay;
mod shard;
mod status;
mod stop;
mod summary;
mod tally;
mod texts;
mod usage;
mod verify;
mod write;

pub use collect::{Collect, Outcome, ShardRange, collect};
pub use commit::{CommitRecord, CommittedFile};
pub use compare::{ComparedDataset, ComparedRun, Comparison, TokenBasis, TokenDifference, compare};
pub use error::RunError;
pub use event::RunEvent;
pub use execution::Execution;
pub use folder::RunFolder;
pub use fs::{Fs, FsFile, RealFs};
pub use manifest::{
    DatasetFacts, Difference, ImportFacts, Manifest, ModelFacts, ResolvedSetting, TokenizerFacts,
};
pub use origin::{HubFacts, HubFileFacts};
pub use plan::{ContentSettings, Plan};
pub use replay::{ReplayHow, Trust, replay, replay_counts, replay_families};
pub use shard::Shard;
pub use status::{ShardState, Status, status};
pub use summary::Summary;
pub use texts::texts_hash;
pub use usage::{ProcessUsage, Usage};
pub use verify::{Fault, FaultKind, Place, Verification, verify};
