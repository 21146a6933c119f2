//! How far a run is, from its folder alone.

use serde::Serialize;

use crate::lock::writer_of;
use crate::{Manifest, RunFolder};

/// The state of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// Recorded, and its files have the recorded sizes.
    Committed,
    /// Recorded, but a file is missing or has another size.
    Damaged(String),
    /// A process is writing it.
    Writing(String),
    /// Still to do.
    Open,
}

/// The state of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Each shard's name, tokens and state, in order.
    pub shards: Vec<(String, u64, ShardState)>,
    /// Shards committed and undamaged.
    pub committed: usize,
    /// Those of them that began again with smaller passes, for want of memory.
    pub halved: Vec<String>,
    /// Tokens in them.
    pub tokens: u64,
    /// Tokens of the whole run.
    pub planned_tokens: u64,
    /// Bytes of the committed files.
    pub bytes: u64,
}

/// Looks at every shard of a run; nothing in the folder is changed.
pub fn status(folder: &RunFolder, manifest: &Manifest) -> Status {
    let mut out = Status {
        shards: Vec::new(),
        committed: 0,
        halved: Vec::new(),
        tokens: 0,
        planned_tokens: 0,
        bytes: 0,
    };
    for shard in &manifest.shards {
        out.planned_tokens += shard.tokens;
        let state = match folder.committed(manifest, shard) {
            Ok(Some(record)) => {
                out.committed += 1;
                out.tokens += record.rows;
                out.bytes += record.bytes();
                if record.halvings > 0 {
                    out.halved.push(record.shard);
                }
                ShardState::Committed
            }
            Ok(None) => writer_of(folder, &shard.name).map_or(ShardState::Open, ShardState::Writing),
            Err(why) => ShardState::Damaged(why.to_string()),
        };
        out.shards.push((shard.name.clone(), shard.tokens, state));
    }
    out
}
