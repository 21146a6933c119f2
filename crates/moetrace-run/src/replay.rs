//! Committed shards, read back into the same metrics that listened to them live.

use moetrace_metrics::{MetricsSettings, RoutingMetrics};
use moetrace_routing::RoutingSink;
use moetrace_trace::ShardReader;

use crate::{CommitRecord, Manifest, RunError, RunFolder, Shard};

/// Rows read at once on replay; the numbers do not depend on it.
const ROWS_PER_PASS: usize = 16_384;

/// What is taken for granted about committed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Every file is hashed before it is read.
    Nothing,
    /// Only sizes are compared.
    Sizes,
}

/// Numbers over all committed shards of a run, and how many shards that were.
///
/// # Errors
/// A [`RunError`] naming the file that is missing, damaged or not what its record says.
pub fn replay(
    folder: &RunFolder,
    manifest: &Manifest,
    settings: &MetricsSettings,
    trust: Trust,
) -> Result<(RoutingMetrics, usize), RunError> {
    let mut total = RoutingMetrics::new(&manifest.geometry()?, settings);
    let committed = replay_to(folder, manifest, trust, &mut total)?;
    Ok((total, committed))
}

/// Plays all committed shards of a run to one listener, in the order of shards, and says how many that were.
///
/// # Errors
/// As [`replay`], and those of the listener.
pub fn replay_to(
    folder: &RunFolder,
    manifest: &Manifest,
    trust: Trust,
    sink: &mut dyn RoutingSink,
) -> Result<usize, RunError> {
    let mut committed = 0;
    for shard in &manifest.shards {
        if let Some(record) = folder.committed(manifest, shard)? {
            open_shard(folder, manifest, shard, &record, trust)?.play(ROWS_PER_PASS, sink)?;
            committed += 1;
        }
    }
    Ok(committed)
}

/// Numbers over one committed shard; its record is that of [`RunFolder::committed`].
pub(crate) fn replay_shard(
    folder: &RunFolder,
    manifest: &Manifest,
    shard: &Shard,
    record: &CommitRecord,
    settings: &MetricsSettings,
    trust: Trust,
) -> Result<RoutingMetrics, RunError> {
    let reader = open_shard(folder, manifest, shard, record, trust)?;
    let mut metrics = RoutingMetrics::new(&manifest.geometry()?, settings);
    reader.play(ROWS_PER_PASS, &mut metrics)?;
    Ok(metrics)
}

/// Opens a committed shard, if its files are what its record and the manifest say.
pub(crate) fn open_shard(
    folder: &RunFolder,
    manifest: &Manifest,
    shard: &Shard,
    record: &CommitRecord,
    trust: Trust,
) -> Result<ShardReader, RunError> {
    if trust == Trust::Nothing {
        record.check_hashes(folder)?;
    }
    let data = folder.shard_path("data", &shard.name);
    let geometry = manifest.geometry()?;
    let reader = ShardReader::open(&data, &folder.shard_path("samples", &shard.name))?;
    let differs = |what: &str| RunError::Damaged { path: data.clone(), what: what.into() };
    let found = reader.geometry();
    if (found.experts(), found.chosen(), found.layers())
        != (geometry.experts(), geometry.chosen(), geometry.layers())
    {
        return Err(differs("its layers or experts are not those of the manifest"));
    }
    if reader.rows() != record.rows {
        return Err(RunError::Rows { path: data, found: reader.rows(), expected: record.rows });
    }
    Ok(reader)
}
