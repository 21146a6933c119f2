//! Metrics as a table per layer and as the block that ends a run.

use std::fmt::Write as _;

use moetrace_metrics::{Glance, MetricsReport, Spread};

use super::{table, thousands};

/// Routing so far, in one line of progress.
pub(crate) fn glance(so_far: &Glance) -> String {
    format!(
        "so far {} tokens: coverage {:.1} %, load entropy {:.1} % of its maximum, MaxVio {:.2}",
        thousands(so_far.tokens),
        100.0 * so_far.coverage,
        100.0 * so_far.load_entropy_normalised,
        so_far.max_vio
    )
}

/// One line per layer.
pub(crate) fn layers(report: &MetricsReport) -> String {
    let header = [
        "layer",
        "experts used",
        "load entropy",
        "gate entropy",
        "chosen entropy",
        "effective",
        "pairs",
        "MaxVio",
        "CV",
        "Gini",
        "ties",
        "I(expert; data set)",
        "null 95 %",
    ];
    let mut table = table(&header);
    for l in &report.layers {
        let (information, null) = l.specialisation.as_ref().map_or(("-".into(), "-".into()), |s| {
            (format!("{:.4}", s.mutual_information_bits), format!("{:.4}", s.null_95th_percentile_bits))
        });
        table.add_row([
            l.layer.to_string(),
            format!("{}/{}", l.active_experts, report.experts),
            format!("{:.3}", l.load_entropy_bits),
            known(l.gate_entropy_bits, |bits| format!("{bits:.3}")),
            known(l.chosen_entropy_bits, |bits| format!("{bits:.3}")),
            format!("{:.1}", l.effective_experts),
            format!("{}/{}", thousands(l.unique_pairs), thousands(l.possible_pairs)),
            format!("{:.2}", l.max_vio),
            format!("{:.2}", l.cv),
            format!("{:.3}", l.gini),
            known(l.ties, thousands),
            information,
            null,
        ]);
    }
    format!("{table}\n(entropies and I in bits; I is to be compared with its permutation null)\n\n")
}

/// The guide's block, per layer and overall.
pub(crate) fn summary(report: &MetricsReport) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_summary(&mut out, report);
    out
}

fn traces(n: u64) -> String {
    if n == 1 { "1 trace".to_owned() } else { format!("{} traces", thousands(n)) }
}

fn write_summary(out: &mut String, report: &MetricsReport) -> std::fmt::Result {
    let (o, g) = (&report.overall, &report.guide);
    let e = report.experts;
    let bits = (e as f64).log2();
    line(
        out,
        "expert coverage",
        &format!(
            "{} of {} (layer, expert) slots = {:.1} %; per layer {:.1} to {:.1} %; ids merged over layers {}/{e}",
            thousands(o.active_slots),
            thousands(o.slots),
            100.0 * o.coverage,
            100.0 * o.layer_coverage.min,
            100.0 * o.layer_coverage.max,
            g.active_experts,
        ),
    )?;
    line(
        out,
        "unique expert pairs",
        &format!(
            "{} of {} over all layers; per layer {:.0} to {:.0}; ids merged over layers {}",
            thousands(o.unique_pairs),
            thousands(o.possible_pairs),
            o.layer_unique_pairs.min,
            o.layer_unique_pairs.max,
            thousands(g.unique_pairs),
        ),
    )?;
    line(
        out,
        "routing entropy",
        &format!(
            "load {}, gate {} of at most {bits:.2} bits; ids merged over layers {:.2}",
            spread(&o.load_entropy_bits),
            o.gate_entropy_bits.as_ref().map_or_else(|| "(not recorded)".into(), spread),
            g.entropy_bits,
        ),
    )?;
    line(out, "balance", &format!("MaxVio {}, Gini {}", spread(&o.max_vio), spread(&o.gini)))?;
    specialisation(out, report)?;
    line(
        out,
        "total",
        &format!(
            "{} (texts), {} tokens counted{}, {}",
            traces(report.samples),
            thousands(report.tokens),
            if report.bos_excluded > 0 {
                format!(" ({} BOS tokens recorded but not counted)", thousands(report.bos_excluded))
            } else {
                String::new()
            },
            report.rows_with_tie.map_or_else(
                || "ties not recorded".into(),
                |ties| format!("{} with a tie at rank {}", thousands(ties), report.chosen)
            ),
        ),
    )
}

fn specialisation(out: &mut String, report: &MetricsReport) -> std::fmt::Result {
    for layer in &report.layers {
        if let Some(s) = &layer.specialisation {
            let text = format!(
                "layer {}: {:.4} bits between expert and data set, permutation null {:.4} (95 %: {:.4})",
                layer.layer, s.subset_mutual_information_bits, s.null_mean_bits, s.null_95th_percentile_bits
            );
            line(out, "specialisation", &text)?;
        }
    }
    Ok(())
}

/// A number of a table, or `-` where it was not recorded.
fn known<T>(value: Option<T>, shown: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), shown)
}

pub(super) fn line(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "{name:<21}{value}")
}

fn spread(s: &Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", s.mean, s.min, s.max)
}
