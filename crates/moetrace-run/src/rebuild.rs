//! The derived files of a complete run: summary.json, tokens.parquet, README.md.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use moetrace_metrics::{MetricsReport, RoutingMetrics};
use moetrace_routing::TokenId;
use moetrace_trace::{TraceSettings, verify_footer, write_vocabulary};

use crate::folder::to_json;
use crate::replay::replay_shard;
use crate::{Collect, Manifest, RunError, Summary, Trust, Usage, card};

/// Writes the derived files; numbers not at hand are counted from the committed shards. Files that are there and
/// hold what this call could write are left alone: a card may have been edited, a disk may be read-only. `false` if
/// it was told to stop.
pub(crate) fn derived(
    run: &Collect<'_>,
    manifest: &Manifest,
    written: bool,
    metrics: Option<&RoutingMetrics>,
) -> Result<bool, RunError> {
    let path = |name: &str| run.folder.root().join(name);
    let has_summary = !written && is_of(manifest, &path("summary.json"));
    let has_card = path("README.md").exists();
    if written || verify_footer(&path("tokens.parquet")).is_err() {
        vocabulary(run)?;
    }
    if has_summary && has_card {
        return Ok(true);
    }
    let report = match metrics {
        Some(metrics) => metrics.report(),
        None => match count(run, manifest)? {
            Some(metrics) => metrics.report(),
            None => return Ok(false),
        },
    };
    let summary = summary(run, manifest, report)?;
    let place = |name: &str, text: &str| run.folder.place_over(run.fs, name, &path(name), text.as_bytes());
    if !has_card {
        place("README.md", &card::dataset_card(manifest, &summary))?;
    }
    // Last, so that its presence says that the others are there.
    if !has_summary {
        place("summary.json", &to_json(&summary))?;
    }
    Ok(true)
}

/// Whether the summary is this run's.
fn is_of(manifest: &Manifest, path: &Path) -> bool {
    let summary: Option<Summary> =
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    summary.is_some_and(|summary| summary.plan_hash == manifest.plan_hash)
}

/// Numbers over every shard; `None` if it was told to stop.
fn count(run: &Collect<'_>, manifest: &Manifest) -> Result<Option<RoutingMetrics>, RunError> {
    let mut total = RoutingMetrics::new(&manifest.geometry()?, &run.metrics);
    for shard in &manifest.shards {
        if run.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(record) = run.folder.committed(manifest, shard)? {
            total.merge(replay_shard(run.folder, manifest, shard, &record, &run.metrics, Trust::Nothing)?)?;
        }
    }
    Ok(Some(total))
}

fn summary(run: &Collect<'_>, manifest: &Manifest, metrics: MetricsReport) -> Result<Summary, RunError> {
    let (mut bytes, mut halved, mut usage) = (0, Vec::new(), None);
    for shard in &manifest.shards {
        let Some(record) = run.folder.committed(manifest, shard)? else { continue };
        bytes += record.bytes();
        if record.halvings > 0 {
            halved.push(record.shard);
        }
        let on_device = record.usage.filter(|usage| usage.device_bytes > 0);
        usage = usage.into_iter().chain(on_device).reduce(Usage::and);
    }
    Ok(Summary {
        plan_hash: manifest.plan_hash.clone(),
        shards: manifest.shards.len(),
        samples: manifest.shards.iter().map(|s| s.samples as u64).sum(),
        tokens: manifest.shards.iter().map(|s| s.tokens).sum(),
        bytes,
        halved,
        usage,
        datasets: manifest.datasets.clone(),
        metrics,
    })
}

fn vocabulary(run: &Collect<'_>) -> Result<(), RunError> {
    let Some(text_of) = run.vocabulary.filter(|_| run.plan.content.columns.token_ids) else {
        return Ok(());
    };
    let samples = run.plan.corpus.datasets.iter().flat_map(|d| &d.samples);
    let seen: BTreeSet<TokenId> = samples.flat_map(|s| s.tokens.iter().copied()).collect();
    let rows: Vec<(TokenId, String)> =
        seen.into_iter().map(|id| (id, text_of(id).unwrap_or_default())).collect();
    let settings = TraceSettings {
        columns: run.plan.content.columns,
        metadata: [("plan_hash".to_owned(), run.plan.hash())].into(),
        weights: run.plan.content.weights,
        threads: 1,
    };
    let bytes = write_vocabulary(Vec::new(), &rows, &settings)?;
    let to = run.folder.root().join("tokens.parquet");
    run.folder.place_over(run.fs, "tokens.parquet", &to, &bytes)
}
