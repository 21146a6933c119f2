//! The derived files of a complete run: summary.json, tokens.parquet, README.md.

use std::collections::BTreeSet;

use moetrace_metrics::RoutingMetrics;
use moetrace_routing::TokenId;
use moetrace_trace::{TraceSettings, write_vocabulary};

use crate::folder::to_json;
use crate::{Collect, Manifest, RunError, Summary, Trust, card, replay};

/// Writes the derived files; numbers not at hand are counted from the committed shards.
pub(crate) fn derived(
    run: &Collect<'_>,
    manifest: &Manifest,
    metrics: Option<&RoutingMetrics>,
) -> Result<(), RunError> {
    let report = match metrics {
        Some(metrics) => metrics.report(),
        None => replay(run.folder, manifest, &run.metrics, Trust::Nothing)?.0.report(),
    };
    let mut bytes = 0;
    for shard in &manifest.shards {
        bytes += run.folder.commit(&shard.name)?.map_or(0, |record| record.bytes());
    }
    let summary = Summary {
        plan_hash: manifest.plan_hash.clone(),
        shards: manifest.shards.len(),
        samples: manifest.shards.iter().map(|s| s.samples as u64).sum(),
        tokens: manifest.shards.iter().map(|s| s.tokens).sum(),
        bytes,
        datasets: manifest.datasets.clone(),
        metrics: report,
    };
    let place = |name: &str, text: &str| {
        run.folder.place_over(run.fs, name, &run.folder.root().join(name), text.as_bytes())
    };
    vocabulary(run)?;
    place("README.md", &card::dataset_card(manifest, &summary))?;
    // Last, so that its presence says that the others are there.
    place("summary.json", &to_json(&summary))
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
