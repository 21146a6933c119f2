//! How far a run is, from its folder alone.

use serde::Serialize;

use crate::lock::{Locked, lock_shard};
use crate::{Manifest, RunError, RunFolder};

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
    /// Tokens in them.
    pub tokens: u64,
    /// Tokens of the whole run.
    pub planned_tokens: u64,
    /// Bytes of the committed files.
    pub bytes: u64,
}

/// Looks at every shard of a run.
///
/// # Errors
/// A [`RunError`] if the folder cannot be read or is no run.
pub fn status(folder: &RunFolder, manifest: &Manifest) -> Result<Status, RunError> {
    let mut out = Status { shards: Vec::new(), committed: 0, tokens: 0, planned_tokens: 0, bytes: 0 };
    for shard in &manifest.shards {
        out.planned_tokens += shard.tokens;
        let state = match folder.commit(&shard.name) {
            Ok(Some(record)) => match record.check_sizes(folder) {
                Ok(()) => {
                    out.committed += 1;
                    out.tokens += record.rows;
                    out.bytes += record.bytes();
                    ShardState::Committed
                }
                Err(why) => ShardState::Damaged(why.to_string()),
            },
            Ok(None) => match lock_shard(folder, &shard.name) {
                Ok(Locked::Theirs(holder)) => ShardState::Writing(holder),
                // A read-only copy of a run cannot be locked, and nobody writes to it either.
                Ok(Locked::Ours(_)) | Err(RunError::Io { .. }) => ShardState::Open,
                Err(why) => return Err(why),
            },
            Err(why) => ShardState::Damaged(why.to_string()),
        };
        out.shards.push((shard.name.clone(), shard.tokens, state));
    }
    Ok(out)
}
