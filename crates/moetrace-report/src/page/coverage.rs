//! How much of what a router could do it does.

use super::depth::Depth;
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{percent, significant, thousands};

pub(crate) fn section(input: &ReportInput<'_>) -> Section {
    let depth = Depth::new(input);
    let part = |n: f64, of: u64| (of > 0).then(|| n / of as f64);
    let mut series = depth.series("experts used", |l| Some(l.coverage));
    series.extend(depth.series("pairs used", |l| part(l.unique_pairs as f64, l.possible_pairs)));
    let label = "Lines of the part of experts, and of pairs of experts, that occur, over layers";
    let mut chart = depth.chart("coverage", label, "part of all", series);
    chart.references = depth.references("pairs if chosen at random", |m| {
        m.layers.first().and_then(|l| part(l.expected_unique_pairs, l.possible_pairs)).unwrap_or(0.0)
    });
    chart.y_high = Some(1.0);
    let block = Block {
        heading: "Experts and pairs in use, over depth".into(),
        how: "The part of a layer's experts that some token chose, and the part of all pairs of experts that some \
              token chose together. The dashed line is what as many tokens would use if each chose at random; lines \
              below it show structure."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(table(input)),
    };
    let lead = "Is every expert, and every pair of experts, used at all?".into();
    Section { id: "coverage", title: "Coverage", lead, blocks: vec![block] }
}

fn table(input: &ReportInput<'_>) -> Table {
    let row = |l: &moetrace_metrics::LayerReport| {
        vec![
            l.layer.to_string(),
            format!("{} ({})", thousands(l.active_experts), percent(l.coverage)),
            significant(l.expected_active_experts),
            thousands(l.unique_pairs),
            thousands(l.possible_pairs),
            significant(l.expected_unique_pairs),
        ]
    };
    let header =
        ["layer", "experts used", "at random", "pairs used", "possible pairs", "pairs used at random"];
    Table::new("coverage of each layer", &header, input.run.metrics.layers.iter().map(row).collect())
}
