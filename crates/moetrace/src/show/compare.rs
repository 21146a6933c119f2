//! Two runs side by side: who they are, each layer, all layers, margins, and where tokens part.

use std::fmt::Write as _;

use moetrace_metrics::Spread;
use moetrace_metrics::fidelity::{DivergenceReport, FidelityReport, MarginBin};
use moetrace_run::{ComparedRun, Comparison, TokenBasis};
use serde_json::json;

use super::report::line;
use super::{counted, processor, table, thousands};

/// The comparison as JSON: the runs by their folders, what was compared, the numbers.
pub(crate) fn compared(a: &str, b: &str, comparison: &Comparison) -> serde_json::Value {
    json!({ "a": a, "b": b, "comparison": comparison })
}

/// What of either run was not compared, and why.
pub(crate) fn not_compared(a: &str, b: &str, comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, run) in [(a, &comparison.reference), (b, &comparison.other)] {
        if run.committed_shards < run.shards {
            let (done, of) = (run.committed_shards, run.shards);
            notes.push(format!("{done} of {of} shards of {name} are committed"));
        }
        if comparison.tokens < run.tokens {
            notes.push(format!(
                "compared are {} of {} and {} of {} of {name}, which both runs have",
                thousands(comparison.samples),
                counted(run.samples, "text"),
                thousands(comparison.tokens),
                counted(run.tokens, "token"),
            ));
        }
    }
    notes
}

/// Heading, table and blocks.
pub(crate) fn comparison(a: &str, b: &str, comparison: &Comparison) -> String {
    let report = &comparison.fidelity;
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = heading(&mut out, a, b, comparison);
    let _ = writeln!(out, "\n{}\n", layers(report));
    let _ = overall(&mut out, report);
    if !report.overall.margin_bins.is_empty() {
        let _ = writeln!(out, "\n{}", margins(&report.overall.margin_bins));
    }
    out
}

fn heading(out: &mut String, a: &str, b: &str, comparison: &Comparison) -> std::fmt::Result {
    let report = &comparison.fidelity;
    for (letter, path, run) in [("A", a, &comparison.reference), ("B", b, &comparison.other)] {
        writeln!(out, "{letter}  {path}: {}", run_line(run))?;
    }
    let basis = match comparison.basis {
        TokenBasis::TokenIds => "the same token ids",
        TokenBasis::TextHashes => "the same tokenizer and text hashes (token ids are not in both)",
    };
    let bos = match (report.bos_excluded, report.include_bos) {
        (0, true) => " (BOS tokens included)".to_owned(),
        (0, false) => String::new(),
        (left_out, _) => format!(" ({} left out)", counted(left_out, "BOS token")),
    };
    writeln!(
        out,
        "{} of {}, {} compared{bos}, {basis}",
        counted(comparison.samples, "text"),
        counted(comparison.datasets.iter().filter(|d| d.samples > 0).count() as u64, "data set"),
        counted(report.tokens, "token"),
    )
}

fn run_line(run: &ComparedRun) -> String {
    let m = &run.model;
    let weights: String = m.weights_hash.chars().take(12).collect();
    format!(
        "{} (weights {weights}), {} on the {}, router dtype {}",
        m.name,
        m.precision,
        processor(&m.engine),
        m.router_dtype
    )
}

/// One line per layer.
fn layers(report: &FidelityReport) -> comfy_table::Table {
    let with_logits = report.layers.iter().any(|l| l.logits.is_some());
    let mut header = vec![
        "layer",
        "set overlap",
        "Jaccard",
        "exact sets",
        "rank 1",
        "weight overlap",
        "ties in A",
        "overlap, no tie",
        "exact, no tie",
    ];
    if with_logits {
        header.extend(["KL (bits)", "logit RMSE"]);
    }
    let mut table = table(&header);
    for l in &report.layers {
        let mut row = vec![
            l.layer.to_string(),
            percent(l.all.set_overlap),
            percent(l.all.jaccard),
            percent(l.all.exact_set_rate),
            percent(l.all.rank_1_agreement),
            percent(l.all.weight_overlap_share),
            thousands(l.tied.rows),
            percent(l.untied.set_overlap),
            percent(l.untied.exact_set_rate),
        ];
        if with_logits {
            let cell = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.6}"));
            row.extend([cell(l.logits.map(|x| x.kl_bits)), cell(l.logits.map(|x| x.rmse))]);
        }
        table.add_row(row);
    }
    table
}

fn overall(out: &mut String, report: &FidelityReport) -> std::fmt::Result {
    let o = &report.overall;
    let of_chance = format!("; {} by chance", percent(o.expected_set_overlap));
    line(out, "set overlap", &format!("{}{of_chance}", spread(&o.all.set_overlap, &o.untied.set_overlap)))?;
    line(out, "exact sets", &spread(&o.all.exact_set_rate, &o.untied.exact_set_rate))?;
    line(out, "rank-1 agreement", &spread(&o.all.rank_1_agreement, &o.untied.rank_1_agreement))?;
    line(out, "weight overlap", &spread(&o.all.weight_overlap_share, &o.untied.weight_overlap_share))?;
    line(
        out,
        "ties in A",
        &format!(
            "{} at rank {} over all layers, in {} of {}",
            thousands(o.ties),
            report.chosen,
            thousands(report.tokens_with_tie),
            counted(report.tokens, "token"),
        ),
    )?;
    if let Some(nll) = &report.nll {
        let text = format!(
            "A {:.4}, B {:.4} nats per token, B - A {:+.4} ({})",
            nll.reference,
            nll.other,
            nll.delta,
            counted(nll.tokens, "token")
        );
        line(out, "loss", &text)?;
    }
    line(out, "tokens that part", &parting(&report.divergence))?;
    line(out, "  without ties", &parting(&report.untied_divergence))
}

/// Share of tokens that differ anywhere, and the first layers that do.
fn parting(divergence: &DivergenceReport) -> String {
    let first = divergence.first_layer.iter().filter(|f| f.tokens > 0);
    let first: Vec<String> = first.map(|f| format!("{}: {}", f.layer, thousands(f.tokens))).collect();
    let first =
        if first.is_empty() { String::new() } else { format!("; first in layer {}", first.join(", ")) };
    format!(
        "{} of {} differ in some layer = {}{first}",
        thousands(divergence.differing),
        counted(divergence.tokens, "token"),
        percent(divergence.differing_rate)
    )
}

/// The rows of all layers without a tie, by the reference's margin.
fn margins(bins: &[MarginBin]) -> comfy_table::Table {
    let mut table = table(&["margin in A", "rows", "set overlap", "exact sets"]);
    for bin in bins {
        let name = match (bin.from, bin.below) {
            (from, Some(below)) if from > 0.0 => format!("{from} to {below}"),
            (_, Some(below)) => format!("below {below}, no tie"),
            (from, None) => format!("{from} and above"),
        };
        let (overlap, exact) = if bin.agreement.rows == 0 {
            ("-".into(), "-".into())
        } else {
            (percent(bin.agreement.set_overlap), percent(bin.agreement.exact_set_rate))
        };
        table.add_row([name, thousands(bin.agreement.rows), overlap, exact]);
    }
    table
}

/// Mean, least and highest layer; then the mean over rows without a tie.
fn spread(all: &Spread, untied: &Spread) -> String {
    format!(
        "{} ({} to {}), without ties {}",
        percent(all.mean),
        percent(all.min),
        percent(all.max),
        percent(untied.mean)
    )
}

/// `99.87 %`; never rounded up to 100.
fn percent(part: f64) -> String {
    let rounded = (part * 1e4).round() / 1e2;
    let shown = if rounded >= 100.0 && part < 1.0 { 99.99 } else { rounded };
    format!("{shown:.2} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_of_it_is_shown_as_100_percent() {
        let shown = [0.0, 0.5, 0.999_97, 0.999_999_9, 1.0].map(percent);
        assert_eq!(shown, ["0.00 %", "50.00 %", "99.99 %", "99.99 %", "100.00 %"]);
    }
}
