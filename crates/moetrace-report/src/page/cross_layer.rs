//! What a token's experts in one layer tell about its experts in the next.

use moetrace_metrics::cross_layer::{CrossLayerReport, LayerLink};

use super::expert_names;
use crate::figure::{LineChart, Series};
use crate::heat::{HeatLayer, HeatMap, Measure, Measured};
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{counted, percent, significant};

/// Absent where no layer has another behind it.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let report = input.run.cross_layer.as_ref().filter(|r| !r.links.is_empty())?;
    let mut blocks = vec![information(report, input.letter())];
    blocks.extend(affinity(report));
    let compared = report.links.iter().find_map(|l| l.null).map_or_else(String::new, |null| {
        format!(
            " The comparison with chance is computed on a seeded sample of {} in {}: {} times each text's tokens were \
             turned against each other.",
            counted(null.subset_tokens, "token"),
            counted(null.subset_samples, "text"),
            null.draws
        )
    });
    let lead = format!("Can the next layer's experts be foreseen from this layer's?{compared}");
    Some(Section { id: "layers", title: "Across layers", lead, blocks })
}

fn information(report: &CrossLayerReport, letter: &str) -> Block {
    let of = |name: &str, value: fn(&LayerLink) -> Option<f64>| Series {
        name: format!("{letter}{name}"),
        values: report.links.iter().map(value).collect(),
    };
    let chart = LineChart {
        name: "affinity-information".into(),
        label:
            "Lines of the information between the experts of neighbouring layers, with that of turned tokens"
                .into(),
        x_title: "layer, with the next one".into(),
        y_title: "bits".into(),
        point: "layer".into(),
        points: report.links.iter().map(|l| f64::from(l.from)).collect(),
        x_log: false,
        series: vec![
            of("one expert tells about one of the next layer", |l| {
                l.null.map(|n| n.subset_information_bits).or(Some(l.affinity.information_bits))
            }),
            of("of another token of the text", |l| l.null.map(|n| n.mean_bits)),
        ],
        references: Vec::new(),
        y_high: None,
    };
    let row = |l: &LayerLink| {
        let strongest = l.affinity.strongest.iter().take(3);
        let strongest = strongest.map(|s| format!("{} → {} ({}×)", s.from, s.to, significant(s.lift)));
        vec![
            format!("{} to {}", l.from, l.to),
            significant(l.affinity.information_bits),
            percent(l.affinity.information_share),
            percent(l.affinity.top_k_mass_by_load),
            percent(l.affinity.popular_mass),
            strongest.collect::<Vec<_>>().join(", "),
        ]
    };
    let header = [
        "layers",
        "bits",
        "of the possible",
        "next experts among K foreseen",
        "among the K busiest",
        "strongest links (times chance)",
    ];
    Block {
        heading: "Information over depth".into(),
        how: "Mutual information between one chosen expert of a layer and one of the next. The second line takes the \
              next layer's experts from another token of the same text: what is above it is the token's own."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("links of neighbouring layers", &header, report.links.iter().map(row).collect())),
    }
}

/// Absent where there are too many experts to keep the counts.
fn affinity(report: &CrossLayerReport) -> Option<Block> {
    let layer =
        |l: &LayerLink| HeatLayer::of_table(format!("{} to {}", l.from, l.to), &l.counts, report.experts);
    let layers: Vec<HeatLayer> = report.links.iter().filter(|l| !l.counts.is_empty()).map(layer).collect();
    if layers.is_empty() {
        return None;
    }
    let map = HeatMap {
        name: "affinity",
        label: "Heat map of which expert of the next layer follows which expert, relative to chance".into(),
        row: "expert of the layer",
        column: "expert of the next layer",
        row_names: expert_names(report.experts),
        column_names: expert_names(report.experts),
        counted: "tokens",
        symmetric: false,
        per: report.chosen as f64,
        measures: vec![
            Measured { measure: Measure::Lift, title: "times chance", legend: "times chance" },
            Measured {
                measure: Measure::Share,
                title: "part of its tokens",
                legend: "part of the row's tokens",
            },
        ],
        layers,
        square: true,
    };
    Some(Block {
        heading: "Which expert leads to which".into(),
        how: "Row: an expert of a layer. Column: an expert of the next. Orange: tokens go this way more often than if \
              the two choices were independent."
            .into(),
        drawing: Drawing::Heat(Box::new(map)),
        table: None,
    })
}
