//! From a run folder to what its report is made of, and the report onto the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use moetrace_metrics::MetricsReport;
use moetrace_report::{DatasetFacts, Fact, ReportedRun};
use moetrace_run::{Manifest, RunFolder};
use moetrace_trace::{TraceError, read_vocabulary};

use crate::show;

/// A run with numbers that are at hand; those that need another reading are left out.
pub(crate) fn reported(
    folder: &RunFolder,
    manifest: &Manifest,
    metrics: MetricsReport,
) -> Result<ReportedRun, TraceError> {
    let root = folder.root();
    let name = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
    let setting = |s: &moetrace_run::ResolvedSetting| Fact {
        name: s.name.clone(),
        value: s.value.clone(),
        source: s.source.clone(),
    };
    let dataset = |d: &moetrace_run::DatasetFacts| DatasetFacts {
        name: d.name.clone(),
        rows_seen: d.rows_seen,
        samples: d.samples,
        tokens: d.tokens,
        truncated: d.truncated,
        skipped: d.skipped.iter().map(|(why, n)| (why.replace('_', " "), *n)).collect(),
    };
    Ok(ReportedRun {
        name,
        model: manifest.model.name.clone(),
        facts: facts(manifest),
        settings: manifest.settings.iter().map(setting).collect(),
        datasets: manifest.datasets.iter().map(dataset).collect(),
        notes: Vec::new(),
        metrics,
        temporal: None,
        cross_layer: None,
        segments: None,
        coactivation: Vec::new(),
        cards: Vec::new(),
        tokens: tokens(folder)?,
    })
}

fn facts(manifest: &Manifest) -> Vec<Fact> {
    let (m, g) = (&manifest.model, &manifest.geometry);
    let unknown = || "not recorded".to_owned();
    let millions = |n: u64| format!("{} million", show::thousands(n.div_ceil(1_000_000)));
    let mut facts = vec![
        Fact::new("model", &m.name),
        Fact::new("family", &m.family),
        Fact::new("parameters", m.total_parameters.map_or_else(unknown, millions)),
        Fact::new("met by one token", m.active_parameters.map_or_else(unknown, millions)),
        Fact::new(
            "experts",
            format!("{} of {} a token, {} routed layers", g.chosen, g.experts, g.layers.len()),
        ),
        Fact::new("engine", &m.engine),
        Fact::new("precision", &m.precision),
        Fact::new("activations", &m.compute_dtype),
        Fact::new("router dtype", &m.router_dtype),
        Fact::new("weights (blake3)", &m.weights_hash),
        Fact::new("config.json (blake3)", &m.config_hash),
    ];
    facts.extend(m.revision.as_ref().map(|revision| Fact::new("revision", revision)));
    facts.extend(m.quantisation.as_ref().map(|how| Fact::new("quantisation", how)));
    facts.extend(manifest.tokenizer.as_ref().map(|t| Fact::new("tokenizer (blake3)", &t.hash)));
    facts.push(Fact::new("plan", &manifest.plan_hash));
    facts.push(Fact::new("moetrace", &manifest.moetrace));
    facts
}

/// Strings of token ids; none where the run keeps none.
fn tokens(folder: &RunFolder) -> Result<BTreeMap<u32, String>, TraceError> {
    let path = folder.root().join("tokens.parquet");
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    Ok(read_vocabulary(&path)?.into_iter().map(|(id, text)| (id.0, text)).collect())
}

/// Writes a file beside its place and then puts it there, so that a reader sees the old one or the new one.
pub(crate) fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = folder.join(name);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // What is left of it is of no use; the error to be told is the first one.
        let _ = fs::remove_file(&part);
    }
    written
}
