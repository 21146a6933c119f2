//! Which experts of a layer are chosen together.

use super::expert_names;
use crate::heat::{HeatLayer, HeatMap, Measure, Measured};
use crate::input::{Coactivation, ReportInput};
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{significant, thousands};

/// Pairs that the table names for each layer.
const NAMED: usize = 5;

/// Absent where pairs were not counted, or there are none.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let (metrics, counted) = (&input.run.metrics, &input.run.coactivation);
    let layer = |c: &Coactivation| {
        let report = metrics.layers.iter().find(|l| l.layer == c.layer)?;
        let layer = HeatLayer {
            name: c.layer.to_string(),
            counts: c.pairs.clone(),
            row_totals: report.loads.clone(),
            column_totals: report.loads.clone(),
            total: metrics.tokens as f64,
            order: c.order.clone(),
        };
        (c.pairs.len() == metrics.experts * metrics.experts.saturating_sub(1) / 2).then_some(layer)
    };
    let layers: Option<Vec<HeatLayer>> = counted.iter().map(layer).collect();
    let layers = layers.filter(|layers| !layers.is_empty() && metrics.chosen > 1)?;
    let table = table(metrics.experts, &layers);
    let map = HeatMap {
        name: "coactivation",
        label:
            "Heat map of how often two experts of a layer are chosen for the same token, relative to chance"
                .into(),
        row: "expert",
        column: "expert",
        row_names: expert_names(metrics.experts),
        column_names: expert_names(metrics.experts),
        counted: "tokens with both",
        symmetric: true,
        per: 1.0,
        measures: vec![
            Measured { measure: Measure::Lift, title: "times chance", legend: "times chance" },
            Measured {
                measure: Measure::Share,
                title: "part of the row's tokens",
                legend: "part of the row's tokens",
            },
            Measured {
                measure: Measure::Jaccard,
                title: "Jaccard",
                legend: "tokens with both / with either",
            },
        ],
        layers,
        square: true,
    };
    let block = Block {
        heading: "Experts chosen together".into(),
        how: "Orange: two experts are chosen for the same token more often than if they were independent, blue: less \
              often. Since every token has exactly K experts, most pairs lie slightly below chance. Ordered by cluster, \
              experts that go together stand side by side and make blocks along the diagonal."
            .into(),
        drawing: Drawing::Heat(Box::new(map)),
        table: Some(table),
    };
    let lead = "Which experts work together?".into();
    Some(Section { id: "together", title: "Co-activation", lead, blocks: vec![block] })
}

/// The most common pairs of each layer.
fn table(experts: usize, layers: &[HeatLayer]) -> Table {
    let pairs: Vec<(usize, usize)> =
        (0..experts).flat_map(|i| (i + 1..experts).map(move |j| (i, j))).collect();
    let row = |layer: &HeatLayer| {
        let mut by_count: Vec<(&u64, &(usize, usize))> = layer.counts.iter().zip(&pairs).collect();
        by_count.sort_by(|a, b| b.0.cmp(a.0).then(a.1.cmp(b.1)));
        let named = by_count.iter().take(NAMED).filter(|(n, _)| **n > 0).map(|(n, (i, j))| {
            let load = |e: usize| layer.row_totals.get(e).map_or(0.0, |&n| n as f64);
            let lift = **n as f64 * layer.total / (load(*i) * load(*j));
            format!("{i} + {j}: {} ({}×)", thousands(**n), significant(lift))
        });
        vec![layer.name.clone(), named.collect::<Vec<_>>().join(", ")]
    };
    let header = ["layer", "most common pairs: tokens (times chance)"];
    Table::new("most common pairs of each layer", &header, layers.iter().map(row).collect())
}
