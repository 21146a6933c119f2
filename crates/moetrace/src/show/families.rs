//! Metrics beside the core, in lines and tables.

use std::fmt::Write as _;

use moetrace_metrics::{FullReport, GroupsReport, Spread};

use super::report::line;
use super::{table, thousands, word};

/// A line for each family that was counted; its tables are in the JSON.
pub(crate) fn families(report: &FullReport) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_families(&mut out, report);
    out
}

fn write_families(out: &mut String, report: &FullReport) -> std::fmt::Result {
    if let Some(c) = &report.coactivation {
        let estimated = if c.layers.iter().all(|l| l.sets.exact) { "" } else { ", estimated" };
        let text = format!(
            "{} distinct sets of {} experts a layer{estimated}; {:.0} % of pairs lie 3 standard deviations off shuffled slots",
            thousands(c.overall.distinct_sets.mean.round() as u64),
            c.chosen,
            100.0 * c.overall.pairs_beyond_three.mean,
        );
        line(out, "co-activation", &text)?;
    }
    if let Some(t) = &report.temporal {
        let text = format!(
            "{} of a token's experts are used by the next one too, by loads alone {:.1} %; runs of {:.2} tokens",
            percent(&t.overall.reuse),
            100.0 * t.overall.expected_reuse_of_loads.mean,
            t.overall.mean_run.mean,
        );
        line(out, "reuse", &text)?;
    }
    for d in report.cross_layer.iter().flat_map(|c| c.overall.by_distance.iter().take(1)) {
        let overall = report.cross_layer.as_ref().map(|c| &c.overall);
        let of_null = overall.and_then(|o| o.null_mean_bits.as_ref().zip(o.subset_information_bits.as_ref()));
        let null = of_null.map_or(String::new(), |(turned, whole)| {
            let (turned, whole) = (turned.mean, whole.mean);
            format!("; over a sample of texts {whole:.4}, and {turned:.4} with one layer's tokens turned")
        });
        let text = format!(
            "{:.4} bits between neighbouring layers' experts, {} of what is possible{null}",
            d.information_bits.mean,
            percent(&d.information_share)
        );
        line(out, "affinity", &text)?;
    }
    for s in report.segments.iter().flat_map(|s| &s.overall) {
        if s.segments == 0 {
            line(out, "predictability", &format!("segments of {} tokens: no text is so long", s.length))?;
            continue;
        }
        let interval = s
            .pooled_interval
            .as_ref()
            .map_or(String::new(), |i| format!(" (95 %: {:.1} to {:.1} %)", 100.0 * i.low, 100.0 * i.high));
        let text = format!(
            "segments of {} tokens: SRP {:.1} %{interval}, at random {:.1} %",
            s.length,
            100.0 * s.pooled.srp,
            100.0 * s.expected
        );
        line(out, "predictability", &text)?;
    }
    Ok(())
}

fn percent(s: &Spread) -> String {
    format!("{:.1} % ({:.1} to {:.1})", 100.0 * s.mean, 100.0 * s.min, 100.0 * s.max)
}

/// What experts tell about groups of tokens, in each layer.
pub(crate) fn groups(report: &GroupsReport) -> String {
    let what = format!("{:?}", report.by).to_lowercase();
    let mut text = String::new();
    let mut sizes = table(&[what.as_str(), "texts", "tokens"]);
    for group in &report.groups {
        let rest = group.rest.then(|| "all others".to_owned());
        let from = group.from.map(|from| format!("from {from}"));
        let parts = [group.dataset.clone(), group.label.clone(), from, rest];
        let name: Vec<String> = parts.into_iter().flatten().map(|part| word(&part)).collect();
        sizes.add_row([name.join(" / "), thousands(group.samples), thousands(group.tokens)]);
    }
    let within = report.layers.iter().any(|layer| layer.information_within_datasets_bits.is_some());
    let information = format!("I(expert; {what})");
    let mut header = vec!["layer", information.as_str(), "of"];
    header.extend(within.then_some("within data sets"));
    header.extend(["by chance", "z", "V, corrected", "JS"]);
    let mut layers = table(&header);
    for layer in &report.layers {
        let null = layer.null.as_ref();
        let mut row = vec![
            layer.layer.to_string(),
            format!("{:.4}", layer.mutual_information_bits),
            format!("{:.3}", layer.group_entropy_bits),
        ];
        let bits = |bits: f64| format!("{bits:.4}");
        row.extend(within.then(|| layer.information_within_datasets_bits.map_or_else(|| "-".into(), bits)));
        row.push(null.map_or_else(|| "-".into(), |n| bits(n.mean_bits)));
        row.push(null.and_then(|n| n.z).map_or_else(|| "-".into(), |z| format!("{z:.1}")));
        row.extend([bits(layer.cramers_v_corrected), bits(layer.jensen_shannon_bits)]);
        layers.add_row(row);
    }
    let dealt =
        if within { "texts dealt out at random within their data set" } else { "texts dealt out at random" };
    let _ = write!(
        text,
        "{sizes}\n\n{layers}\n(I, its limit, what {dealt} give, and JS in bits; V is Cramér's, corrected for \
         its bias)\n\n"
    );
    text
}
