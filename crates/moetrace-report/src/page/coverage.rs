//! How much of what a router could do it does.

use moetrace_metrics::{CurvePoint, LayerReport, MetricsReport};

use super::depth::Depth;
use crate::figure::{LineChart, Reference, Series};
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
    let blocks = std::iter::once(block).chain(curve(&input.run.metrics, input.letter())).collect();
    Section { id: "coverage", title: "Coverage", lead, blocks }
}

/// How soon experts come into use; nothing where no token was counted.
fn curve(metrics: &MetricsReport, letter: &str) -> Option<Block> {
    let layers = &metrics.layers;
    let points = &layers.first()?.coverage_curve.tokens;
    let experts = metrics.experts.max(1) as f64;
    // Every layer counts the same tokens, and so has the same points.
    let at = |layer: &LayerReport, i: usize| layer.coverage_curve.tokens.get(i).map(|p| p.experts / experts);
    let of_layers = |i: usize| layers.iter().filter_map(move |layer| at(layer, i));
    let mean = |i: usize| of_layers(i).sum::<f64>() / layers.len() as f64;
    let least = |i: usize| of_layers(i).fold(f64::INFINITY, f64::min);
    let share = metrics.chosen as f64 / experts;
    let chart = LineChart {
        name: "coverage-curve".into(),
        label: "Lines of the part of experts in use over the number of tokens".into(),
        x_title: "tokens drawn at random".into(),
        y_title: "part of the experts in use".into(),
        point: "tokens:".into(),
        points: points.iter().map(|p| p.drawn as f64).collect(),
        x_log: true,
        series: vec![
            Series::new(format!("{letter}mean over layers"), (0..points.len()).map(mean)),
            Series::new(format!("{letter}the layer with least"), (0..points.len()).map(least)),
        ],
        references: vec![Reference {
            name: "if all experts are alike".into(),
            values: points.iter().map(|p| 1.0 - (1.0 - share).powf(p.drawn as f64)).collect(),
        }],
        y_high: Some(1.0),
    };
    let header = ["tokens", "mean over layers", "the layer with least"];
    let row = |(i, p): (usize, &CurvePoint)| vec![thousands(p.drawn), percent(mean(i)), percent(least(i))];
    (!points.is_empty()).then(|| Block {
        heading: "Experts in use, over tokens".into(),
        how: "The part of a layer's experts to expect among so many tokens of the run, drawn at random. A line that is \
              still rising at its end says that more text would bring more experts into use."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("coverage by tokens", &header, points.iter().enumerate().map(row).collect())),
    })
}

fn table(input: &ReportInput<'_>) -> Table {
    let row = |l: &LayerReport| {
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
