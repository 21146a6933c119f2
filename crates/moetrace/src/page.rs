//! From a run folder to what its page is made of, and the page onto the disk; `collect` and `report` share it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use moetrace_metrics::{FullReport, MetricsFamilies, MetricsSettings};
use moetrace_report::{Coactivation, DatasetFacts, ExpertCard, Fact, ReportInput, ReportedRun};
use moetrace_run::{Manifest, ReplayHow, RunError, RunFolder, replay_families};
use moetrace_trace::{TraceError, read_vocabulary};

use crate::failure::{Failure, code};
use crate::show;

/// A run with every number that its committed shards give, and what to tell of it: that shards are missing.
pub(crate) fn counted(
    folder: &RunFolder,
    include_bos: bool,
    how: &ReplayHow<'_>,
) -> Result<(ReportedRun, Option<String>), RunError> {
    let manifest = folder.manifest()?;
    let settings = MetricsSettings { include_bos, seed: manifest.seed() };
    let families = MetricsFamilies { contexts: true, ..MetricsFamilies::of_routing() };
    let (metrics, committed) = replay_families(folder, &manifest, &settings, &families, true, how)?;
    let mut run = reported(folder, &manifest, metrics.report())?;
    let of = manifest.shards.len();
    let note = (committed < of).then(|| {
        format!("{committed} of {of} shards of {} are committed; the numbers are of those.", run.name)
    });
    run.notes.extend(note.clone());
    Ok((run, note))
}

/// Draws the page and writes it.
pub(crate) fn write(input: &ReportInput<'_>, path: &Path) -> Result<(), Failure> {
    let page = moetrace_report::page(input).map_err(|error| {
        let what = format!("the page cannot be made: {error}");
        Failure::new(code::INTERNAL, "E-INTERNAL", what, "report this line")
    })?;
    place(path, page.as_bytes()).map_err(|error| Failure::output(path, &error))
}

fn reported(folder: &RunFolder, manifest: &Manifest, report: FullReport) -> Result<ReportedRun, TraceError> {
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
    let compared = show::model_facts(manifest, &report);
    let cards = report.vocabulary.as_ref().map(|v| ExpertCard::of_reports(v, report.contexts.as_ref()));
    Ok(ReportedRun {
        name,
        model: manifest.model.name.clone(),
        facts: facts(manifest),
        settings: manifest.settings.iter().map(setting).collect(),
        datasets: manifest.datasets.iter().map(dataset).collect(),
        notes: Vec::new(),
        compared: compared.into_iter().map(|(name, value)| Fact::new(name, value)).collect(),
        metrics: report.core,
        groups: report.groups,
        temporal: report.temporal,
        cross_layer: report.cross_layer,
        segments: report.segments,
        coactivation: report.coactivation.as_ref().map_or_else(Vec::new, Coactivation::of_report),
        cards: cards.unwrap_or_default(),
        vocabulary: report.vocabulary,
        tokens: tokens(folder)?,
    })
}

fn facts(manifest: &Manifest) -> Vec<Fact> {
    let (m, g) = (&manifest.model, &manifest.geometry);
    let unknown = || "not recorded".to_owned();
    let mut facts = vec![
        Fact::new("model", &m.name),
        Fact::new("family", &m.family),
        Fact::new("parameters", m.total_parameters.map_or_else(unknown, show::parameters)),
        Fact::new("met by one token", m.active_parameters.map_or_else(unknown, show::parameters)),
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
