//! Several runs side by side: what their models are and how they route.

use moetrace_metrics::FullReport;
use moetrace_metrics::cross_layer::{CrossLayerReport, LayerLink};
use moetrace_run::{Manifest, ModelFacts};
use serde::Serialize;

use super::{bytes, table, word};

/// A run and its numbers.
pub(crate) struct Counted {
    /// Its folder.
    pub(crate) run: String,
    pub(crate) manifest: Manifest,
    /// Of the texts that were counted.
    pub(crate) texts_hash: String,
    /// Shards that were counted.
    pub(crate) committed: usize,
    pub(crate) report: FullReport,
}

/// One row of the comparison; what a run does not hold is absent.
struct Row {
    coverage: f64,
    load_entropy: f64,
    gate_entropy: Option<f64>,
    max_vio: f64,
    reuse: Option<f64>,
    reuse_above_chance: Option<f64>,
    affinity: Option<f64>,
    affinity_above_chance: Option<f64>,
    srp: Option<f64>,
}

/// Segments of this length are compared.
const SEGMENT: usize = 16;

impl Row {
    fn new(report: &FullReport) -> Self {
        let overall = &report.core.overall;
        let nearest = report.cross_layer.as_ref().and_then(|c| c.overall.by_distance.first());
        let segments = report.segments.iter().flat_map(|s| &s.overall);
        Self {
            coverage: overall.coverage,
            load_entropy: overall.load_entropy_normalised.mean,
            gate_entropy: overall.gate_entropy_normalised.as_ref().map(|s| s.mean),
            max_vio: overall.max_vio.mean,
            reuse: report.temporal.as_ref().map(|t| t.overall.reuse.mean),
            reuse_above_chance: report
                .temporal
                .as_ref()
                .map(|t| above(t.overall.reuse.mean, t.expected.reuse, 1.0)),
            affinity: nearest.map(|d| d.information_share.mean),
            affinity_above_chance: report.cross_layer.as_ref().and_then(affinity_above_chance),
            srp: segments.filter(|s| s.length == SEGMENT).map(|s| s.above_chance).next(),
        }
    }
}

/// A number as a part of the way from what chance gives to the most that it can be; 0 where there is no way.
fn above(found: f64, chance: f64, most: f64) -> f64 {
    if most - chance < 1e-9 { 0.0 } else { (found - chance) / (most - chance) }
}

/// Mean over neighbouring layers of the information above that of another token of the same text, which topic, loads and
/// the finite number of tokens give too; both over the seeded subset. Absent without tokens.
fn affinity_above_chance(report: &CrossLayerReport) -> Option<f64> {
    let of = |link: &LayerLink| {
        let null = link.null?;
        Some(above(null.subset_information_bits, null.mean_bits, link.affinity.maximum_bits))
    };
    let links: Vec<f64> = report.links.iter().filter_map(of).collect();
    (!links.is_empty()).then(|| links.iter().sum::<f64>() / links.len() as f64)
}

/// What tells runs apart, each with its name, in the order it is shown. Entropies are parts of their maximum, so that
/// models of different E compare.
pub(crate) fn model_facts(manifest: &Manifest, report: &FullReport) -> Vec<(&'static str, String)> {
    let (model, core, row) = (&manifest.model, &report.core, Row::new(report));
    // A part that rounds to nothing has no sign.
    let percent = |part: f64| format!("{:.1} %", (1000.0 * part).round() / 10.0 + 0.0);
    let known = |part: Option<f64>| part.map_or_else(|| "-".to_owned(), percent);
    let unknown = || "-".to_owned();
    vec![
        ("model", model.name.clone()),
        ("experts", format!("{} of {}", core.chosen, core.experts)),
        ("layers", core.layers.len().to_string()),
        ("parameters", model.total_parameters.map_or_else(unknown, parameters)),
        ("active", model.active_parameters.map_or_else(unknown, parameters)),
        ("weights", model.weight_bytes.map_or_else(unknown, |n| format!("{} {}", bytes(n), model.precision))),
        ("tokens", super::thousands(core.tokens)),
        ("coverage", percent(row.coverage)),
        ("load entropy", percent(row.load_entropy)),
        ("gate entropy", known(row.gate_entropy)),
        ("MaxVio", format!("{:.2}", row.max_vio)),
        ("reuse", known(row.reuse_above_chance)),
        ("affinity", known(row.affinity_above_chance)),
        ("SRP", known(row.srp)),
    ]
}

/// A line for each run.
pub(crate) fn models(runs: &[Counted]) -> String {
    let facts: Vec<_> = runs.iter().map(|counted| model_facts(&counted.manifest, &counted.report)).collect();
    let names = facts.first().into_iter().flatten().map(|(name, _)| *name);
    let mut table = table(&std::iter::once("run").chain(names).collect::<Vec<_>>());
    for (counted, facts) in runs.iter().zip(&facts) {
        table.add_row(std::iter::once(word(&counted.run)).chain(facts.iter().map(|(_, value)| word(value))));
    }
    let note = if runs.windows(2).any(|pair| pair[0].texts_hash != pair[1].texts_hash) {
        "the runs are over different texts or tokens, which numbers depend on too;\n "
    } else {
        ""
    };
    format!(
        "{table}\n({note}beginning-of-sequence tokens are left out unless --include-bos is given; entropies over their maximum; weights as the run holds them;\n \
         parts of the way from chance to all: reuse by the next token, affinity (what an expert tells of the next layer's), \
         SRP of {SEGMENT} tokens)\n"
    )
}

/// A number of parameters.
pub(crate) fn parameters(n: u64) -> String {
    if n >= 1_000_000_000 { format!("{:.2} B", n as f64 / 1e9) } else { format!("{:.2} M", n as f64 / 1e6) }
}

/// A run of the comparison for machines, with its whole report.
#[derive(Serialize)]
pub(crate) struct ModelJson<'a> {
    run: &'a str,
    model: &'a ModelFacts,
    committed_shards: usize,
    shards: usize,
    texts_hash: &'a str,
    coverage: f64,
    load_entropy_normalised: f64,
    gate_entropy_normalised: Option<f64>,
    max_vio: f64,
    reuse: Option<f64>,
    reuse_above_chance: Option<f64>,
    affinity_share: Option<f64>,
    affinity_above_chance: Option<f64>,
    srp_above_chance: Option<f64>,
    metrics: &'a FullReport,
}

/// The same for machines.
pub(crate) fn models_json(runs: &[Counted]) -> Vec<ModelJson<'_>> {
    let each = runs.iter().map(|counted| {
        let row = Row::new(&counted.report);
        ModelJson {
            run: &counted.run,
            model: &counted.manifest.model,
            committed_shards: counted.committed,
            shards: counted.manifest.shards.len(),
            texts_hash: &counted.texts_hash,
            coverage: row.coverage,
            load_entropy_normalised: row.load_entropy,
            gate_entropy_normalised: row.gate_entropy,
            max_vio: row.max_vio,
            reuse: row.reuse,
            reuse_above_chance: row.reuse_above_chance,
            affinity_share: row.affinity,
            affinity_above_chance: row.affinity_above_chance,
            srp_above_chance: row.srp,
            metrics: &counted.report,
        }
    });
    each.collect()
}
