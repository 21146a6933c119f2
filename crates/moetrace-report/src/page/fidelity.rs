//! How often the second run routed like the first, over the same tokens.

use moetrace_metrics::fidelity::{FidelityReport, LayerFidelity, MarginBin};

use crate::figure::{Bars, LineChart, Reference, Series};
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{counted, percent, thousands};

/// Absent unless both runs went over the same tokens.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let report = input.fidelity?;
    let lead = format!(
        "How often did B choose what A chose? {} compared, token by token; in {} of them the two differ in at least one \
         layer.",
        counted(report.tokens, "token"),
        percent(report.divergence.differing_rate),
    );
    let blocks = vec![over_depth(report), first_difference(report), margins(report)];
    Some(Section { id: "fidelity", title: "Fidelity", lead, blocks })
}

fn over_depth(report: &FidelityReport) -> Block {
    let line = |name: &str, of: fn(&LayerFidelity) -> f64| Series::new(name, report.layers.iter().map(of));
    let chart = LineChart {
        name: "fidelity".into(),
        label: "Lines of set overlap, exact sets and rank-1 agreement over layers".into(),
        x_title: "layer".into(),
        y_title: "part of the tokens".into(),
        point: "layer".into(),
        points: report.layers.iter().map(|l| f64::from(l.layer)).collect(),
        x_log: false,
        series: vec![
            line("set overlap", |l| l.all.set_overlap),
            line("exact sets", |l| l.all.exact_set_rate),
            line("rank 1", |l| l.all.rank_1_agreement),
        ],
        references: vec![Reference {
            name: "overlap by chance".into(),
            values: vec![report.overall.expected_set_overlap],
        }],
        y_high: Some(1.0),
    };
    let row = |l: &LayerFidelity| {
        let rates = [
            l.all.set_overlap,
            l.all.jaccard,
            l.all.exact_set_rate,
            l.all.rank_1_agreement,
            l.all.weight_overlap_share,
            l.untied.set_overlap,
        ];
        let rates = rates.map(percent);
        std::iter::once(l.layer.to_string()).chain(rates).chain([thousands(l.tied.rows)]).collect()
    };
    let header = [
        "layer",
        "set overlap",
        "Jaccard",
        "exact sets",
        "rank 1",
        "weight overlap",
        "overlap, no tie",
        "ties in A",
    ];
    Block {
        heading: "Agreement over depth".into(),
        how: "Set overlap is the part of A's experts that B chose too; exact sets are tokens with all experts the same; \
              rank 1 compares the first expert only. Deep layers inherit the differences of those before them."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("agreement of each layer", &header, report.layers.iter().map(row).collect())),
    }
}

fn first_difference(report: &FidelityReport) -> Block {
    let first = report.divergence.first_layer.iter();
    let heights = first.map(|f| (f.layer.to_string(), f.tokens as f64)).collect();
    let chart = Bars {
        name: "first-difference".into(),
        label: "Bars of the tokens whose experts first differ in each layer".into(),
        x_title: "layer".into(),
        y_title: "tokens".into(),
        heights,
    };
    Block {
        heading: "Where tokens part".into(),
        how: "Each token that differs counts once, in the first layer whose experts are not the same.".into(),
        drawing: Drawing::Chart(chart.draw()),
        table: None,
    }
}

fn margins(report: &FidelityReport) -> Block {
    let name = |bin: &MarginBin| match (bin.from, bin.below) {
        (from, Some(below)) if from > 0.0 => format!("{from} to {below}"),
        (_, Some(below)) => format!("below {below}, no tie"),
        (from, None) => format!("{from} and above"),
    };
    let row = |bin: &MarginBin| {
        let rates = [bin.agreement.set_overlap, bin.agreement.exact_set_rate];
        let rates = rates.map(|r| if bin.agreement.rows == 0 { "–".into() } else { percent(r) });
        [name(bin), thousands(bin.agreement.rows)].into_iter().chain(rates).collect()
    };
    let rows = report.overall.margin_bins.iter().map(row).collect();
    let table = Table::new(
        "agreement by margin, all layers",
        &["margin in A", "rows", "set overlap", "exact sets"],
        rows,
    );
    Block {
        heading: "Agreement by margin".into(),
        how: "The margin is how far A's last chosen expert was ahead of the first one not chosen. Disagreement at small \
              margins is rounding; at large ones it is more than that."
            .into(),
        drawing: Drawing::None,
        table: Some(table.opened()),
    }
}
