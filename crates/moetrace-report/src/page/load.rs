//! How many tokens each expert of each layer serves.

use moetrace_metrics::MetricsReport;

use super::expert_names;
use crate::heat::{HeatLayer, HeatMap, Measure, Measured};
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{significant, thousands};

pub(crate) fn section(input: &ReportInput<'_>) -> Section {
    let runs = ["load", "load-b"].into_iter().zip(input.lettered());
    let blocks = runs.map(|(name, (letter, run))| block(name, letter, &run.metrics)).collect();
    let lead = "Which experts do the work? Experts of different layers have nothing to do with each other, even where \
                their numbers are the same."
        .into();
    Section { id: "load", title: "Expert load", lead, blocks }
}

fn block(name: &'static str, prefix: &str, metrics: &MetricsReport) -> Block {
    Block {
        heading: format!("{prefix}Load of each expert in each layer"),
        how: format!(
            "One row a layer, one cell an expert. Without colour is the load that all {} experts would share alike ({} of {} \
             tokens choose each), orange is more, blue is less; a step of the scale doubles or halves it.",
            metrics.experts, metrics.chosen, metrics.experts
        ),
        drawing: Drawing::Heat(Box::new(map(name, metrics))),
        table: Some(table(metrics)),
    }
}

fn map(name: &'static str, metrics: &MetricsReport) -> HeatMap {
    let layer = HeatLayer {
        name: String::new(),
        counts: metrics.layers.iter().flat_map(|l| l.loads.iter().copied()).collect(),
        row_totals: metrics.layers.iter().map(|l| l.loads.iter().sum()).collect(),
        // An even share of a row is its total over E.
        column_totals: vec![1; metrics.experts],
        total: metrics.experts as f64,
        order: None,
    };
    HeatMap {
        name,
        label: "Heat map of the tokens that each expert of each layer serves, relative to an even share"
            .into(),
        row: "layer",
        column: "expert",
        row_names: metrics.layers.iter().map(|l| l.layer.to_string()).collect(),
        column_names: expert_names(metrics.experts),
        counted: "tokens",
        symmetric: false,
        per: metrics.chosen as f64,
        measures: vec![
            Measured { measure: Measure::Lift, title: "times an even share", legend: "times an even share" },
            Measured { measure: Measure::Share, title: "part of the tokens", legend: "part of the tokens" },
        ],
        layers: vec![layer],
        square: false,
    }
}

fn table(metrics: &MetricsReport) -> Table {
    let row = |l: &moetrace_metrics::LayerReport| {
        let mut by_load: Vec<(usize, u64)> = l.loads.iter().copied().enumerate().collect();
        by_load.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let named = |experts: &[(usize, u64)]| {
            let named = experts.iter().map(|(e, n)| format!("{e} ({})", thousands(*n)));
            named.collect::<Vec<_>>().join(", ")
        };
        let mean = l.loads.iter().sum::<u64>() as f64 / l.loads.len().max(1) as f64;
        let (top, bottom) = (by_load.get(..3), by_load.len().checked_sub(3).and_then(|n| by_load.get(n..)));
        vec![
            l.layer.to_string(),
            significant(mean),
            named(top.unwrap_or(&by_load)),
            named(bottom.unwrap_or(&by_load)),
        ]
    };
    let header = ["layer", "mean tokens an expert", "most used (tokens)", "least used (tokens)"];
    Table::new("most and least used experts", &header, metrics.layers.iter().map(row).collect())
}
