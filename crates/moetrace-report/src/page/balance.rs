//! How unevenly loads are spread.

use super::depth::Depth;
use crate::figure::Reference;
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{significant, thousands};

pub(crate) fn section(input: &ReportInput<'_>) -> Section {
    let depth = Depth::new(input);
    let mut series = depth.series("MaxVio", |l| Some(l.max_vio));
    series.extend(depth.series("CV", |l| Some(l.cv)));
    series.extend(depth.series("Gini", |l| Some(l.gini)));
    let mut chart = depth.chart("balance", "Lines of MaxVio, CV and Gini over layers", "no unit", series);
    chart.references = vec![Reference { name: "all experts alike".into(), values: vec![0.0] }];
    let block = Block {
        heading: "Balance over depth".into(),
        how: "MaxVio is how much more than the mean the busiest expert serves (1 = twice the mean). CV is the standard \
              deviation of the loads over their mean. Gini is 0 if all loads are equal and near 1 if one expert has \
              them all."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(table(input)),
    };
    let lead = "How far from even is the load? Over few tokens some imbalance is chance.".into();
    Section { id: "balance", title: "Balance", lead, blocks: vec![block] }
}

fn table(input: &ReportInput<'_>) -> Table {
    let row = |l: &moetrace_metrics::LayerReport| {
        let numbers = [l.max_vio, l.cv, l.gini].map(significant);
        let counts = [Some(l.min), Some(l.max), l.ties];
        let counts = counts.map(|n| n.map_or_else(|| "not recorded".into(), thousands));
        std::iter::once(l.layer.to_string()).chain(numbers).chain(counts).collect()
    };
    let header = ["layer", "MaxVio", "CV", "Gini", "least load", "highest load", "ties at rank K"];
    Table::new("balance of each layer", &header, input.run.metrics.layers.iter().map(row).collect())
}
