//! Committed shards, read back into the same metrics that listened to them live.

use std::sync::atomic::{AtomicUsize, Ordering};

use moetrace_metrics::{
    ExpertCounts, MetricsError, MetricsFamilies, MetricsSet, MetricsSettings, RoutingMetrics, TokenCounts,
};
use moetrace_trace::ShardReader;

use crate::{CommitRecord, Manifest, RunError, RunFolder, Shard};

/// Rows read at once on replay, and at least one text; the numbers do not depend on it. Those of 27 layers stay in a
/// second-level cache.
const ROWS_PER_PASS: usize = 2_048;

/// What is taken for granted about committed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Every file is hashed before it is read.
    Nothing,
    /// Only sizes are compared.
    Sizes,
}

/// How committed shards are read back; no number depends on it.
#[derive(Clone, Copy)]
pub struct ReplayHow<'a> {
    /// What is taken for granted about the files.
    pub trust: Trust,
    /// Threads at work, each with totals of its own.
    pub threads: usize,
    /// Called as each shard is read, from the thread that read it, with the shards read by then and all there are.
    pub on_shard: Option<&'a (dyn Fn(usize, usize) + Sync)>,
}

/// The core numbers over all committed shards of a run, and how many shards that were.
///
/// # Errors
/// A [`RunError`] naming the file that is missing, damaged or not what its record says.
pub fn replay(
    folder: &RunFolder,
    manifest: &Manifest,
    settings: &MetricsSettings,
    trust: Trust,
) -> Result<(RoutingMetrics, usize), RunError> {
    let committed = committed(folder, manifest)?;
    let geometry = manifest.geometry()?;
    let mut total = RoutingMetrics::new(&geometry, settings);
    for (shard, record) in &committed {
        total.merge(replay_shard(folder, manifest, shard, record, settings, trust)?)?;
    }
    Ok((total, committed.len()))
}

/// The core and the `families` asked for over all committed shards, and how many shards that were. What a shard does
/// not hold is not counted: contexts need weights and token ids, and are left out where any shard lacks them; with
/// `vocabulary` the most frequent token ids, read beforehand, get a table.
///
/// # Errors
/// A [`RunError`] naming the file that is missing, damaged or not what its record says.
pub fn replay_families(
    folder: &RunFolder,
    manifest: &Manifest,
    settings: &MetricsSettings,
    families: &MetricsFamilies,
    vocabulary: bool,
    how: &ReplayHow<'_>,
) -> Result<(MetricsSet, usize), RunError> {
    let committed = committed(folder, manifest)?;
    let geometry = manifest.geometry()?;
    let mut families = families.clone();
    let mut trust = how.trust;
    if vocabulary || families.contexts {
        let has = token_counts(folder, manifest, &committed, trust, settings.include_bos)?;
        // They have been hashed.
        trust = Trust::Sizes;
        families.contexts &= has.weights && has.counts.is_some();
        let counts = has.counts.filter(|_| vocabulary);
        families.vocabulary = counts.map(|counts| counts.most_frequent(&geometry));
    }
    let new = || MetricsSet::new(&geometry, settings, &families);
    let play = |set: &mut MetricsSet, shard: &Shard, record: &CommitRecord| {
        let reader = open_shard(folder, manifest, shard, record, trust)?;
        Ok(reader.play(ROWS_PER_PASS, set)?)
    };
    let total = over_shards(&committed, how, new, play, MetricsSet::merge)?;
    Ok((total, committed.len()))
}

/// Loads, pairs and transitions alone over all committed shards, and how many shards that were: of every file only the
/// columns of experts are read.
///
/// # Errors
/// A [`RunError`] naming the file that is missing, damaged or not what its record says, or that there are more than 1,024 experts.
pub fn replay_counts(
    folder: &RunFolder,
    manifest: &Manifest,
    settings: &MetricsSettings,
    how: &ReplayHow<'_>,
) -> Result<(ExpertCounts, usize), RunError> {
    let committed = committed(folder, manifest)?;
    let geometry = manifest.geometry()?;
    let empty = ExpertCounts::new(&geometry, settings)?;
    let play = |counts: &mut ExpertCounts, shard: &Shard, record: &CommitRecord| {
        let reader = open_shard(folder, manifest, shard, record, how.trust)?;
        Ok(reader.experts_only().play(ROWS_PER_PASS, counts)?)
    };
    let total = over_shards(&committed, how, || empty.clone(), play, ExpertCounts::merge)?;
    Ok((total, committed.len()))
}

/// Plays every shard, each thread to a listener of its own, and merges these.
fn over_shards<T: Send>(
    committed: &[(&Shard, CommitRecord)],
    how: &ReplayHow<'_>,
    new: impl Fn() -> T + Sync,
    play: impl Fn(&mut T, &Shard, &CommitRecord) -> Result<(), RunError> + Sync,
    merge: impl Fn(&mut T, T) -> Result<(), MetricsError>,
) -> Result<T, RunError> {
    let (next, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || -> Result<T, RunError> {
        let mut total = new();
        while let Some((shard, record)) = committed.get(next.fetch_add(1, Ordering::Relaxed)) {
            let played = play(&mut total, shard, record);
            if played.is_err() {
                // The others need not begin another shard.
                next.store(committed.len(), Ordering::Relaxed);
            }
            played?;
            let read = read.fetch_add(1, Ordering::Relaxed) + 1;
            how.on_shard.iter().for_each(|tell| tell(read, committed.len()));
        }
        Ok(total)
    };
    let threads = how.threads.clamp(1, committed.len().max(1));
    let parts: Vec<Result<T, RunError>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(own).chain(joined).collect()
    });
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_else(|| Ok(new()))?;
    for part in parts {
        merge(&mut total, part?)?;
    }
    Ok(total)
}

fn committed<'m>(
    folder: &RunFolder,
    manifest: &'m Manifest,
) -> Result<Vec<(&'m Shard, CommitRecord)>, RunError> {
    let records = manifest.shards.iter().map(|shard| {
        let record = folder.committed(manifest, shard);
        record.map(|record| record.map(|record| (shard, record)))
    });
    records.filter_map(Result::transpose).collect()
}

/// What the shards hold beside experts.
struct Has {
    weights: bool,
    /// `None` where token ids are left out.
    counts: Option<TokenCounts>,
}

fn token_counts(
    folder: &RunFolder,
    manifest: &Manifest,
    committed: &[(&Shard, CommitRecord)],
    trust: Trust,
    include_bos: bool,
) -> Result<Has, RunError> {
    let mut has = Has { weights: true, counts: Some(TokenCounts::default()) };
    for (shard, record) in committed {
        let reader = open_shard(folder, manifest, shard, record, trust)?;
        has.weights &= reader.columns().weights;
        let Some(ids) = reader.token_ids()? else {
            has.counts = None;
            continue;
        };
        let Some(counts) = &mut has.counts else { continue };
        let mut rest = ids.as_slice();
        for sample in reader.samples() {
            let (own, after) = rest.split_at(rest.len().min(sample.tokens as usize));
            let bos = usize::from(sample.begins_with_bos && !include_bos);
            counts.add(own.get(bos..).unwrap_or_default());
            rest = after;
        }
    }
    Ok(has)
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
