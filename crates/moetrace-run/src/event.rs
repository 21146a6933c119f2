//! What a run tells while it runs.

use moetrace_metrics::Glance;
use moetrace_model::{EngineUsage, ModelError};

use crate::{CommitRecord, RunError, Shard};

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
    /// A pass is done by the engine and handed over to be written.
    Pass {
        /// Its data set.
        dataset: &'a str,
        /// Samples in it.
        samples: usize,
        /// Tokens in it.
        tokens: usize,
        /// What the engine holds, and what it did since it was made.
        usage: EngineUsage,
    },
    /// Memory ran out in a pass. The shard begins again with smaller passes, which shards after it keep; passes that
    /// were told of it do not count.
    Halved {
        /// The shard.
        shard: &'a Shard,
        /// Its data set.
        dataset: &'a str,
        /// Most tokens of a pass before.
        from: usize,
        /// Most tokens of a pass from now on.
        to: usize,
        /// What the engine held when memory ran out.
        usage: EngineUsage,
        /// What it said.
        why: &'a ModelError,
    },
    /// A shard is safe. The next one may have begun before; its own passes are all told.
    Committed {
        /// Its record.
        record: &'a CommitRecord,
        /// Routing in all shards so far.
        so_far: Glance,
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
