//! Three entropies that are often taken for each other.

use super::depth::Depth;
use crate::figure::Reference;
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::significant;

pub(crate) fn section(input: &ReportInput<'_>) -> Section {
    let depth = Depth::new(input);
    let mut series = depth.series("loads", |l| Some(l.load_entropy_normalised));
    series.extend(depth.series("router's softmax", |l| l.gate_entropy_normalised));
    series.extend(depth.series("chosen weights", |l| l.chosen_entropy_normalised));
    let label = "Lines of load entropy, gate entropy and entropy of the chosen weights over layers, each as a part of \
                 its maximum";
    let mut chart = depth.chart("entropy", label, "part of the maximum", series);
    chart.references = vec![Reference { name: "maximum".into(), values: vec![1.0] }];
    chart.y_high = Some(1.0);
    let block = Block {
        heading: "Entropy over depth".into(),
        how: format!(
            "Loads: near 1 if all experts are used alike over the run (maximum, in bits, {}). Router's softmax: near 1 if \
             the router hardly prefers any expert for a token, near 0 if it is sure (the same maximum). Chosen weights: \
             near 1 if a token's chosen experts weigh the same (maximum {}).",
            input.each(|run| significant((run.metrics.experts as f64).log2())),
            input.each(|run| significant((run.metrics.chosen as f64).log2())),
        ),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(table(input)),
    };
    let lead = "How spread is the choice, over the run and for one token?".into();
    Section { id: "entropy", title: "Entropy", lead, blocks: vec![block] }
}

fn table(input: &ReportInput<'_>) -> Table {
    let row = |l: &moetrace_metrics::LayerReport| {
        let known = [
            Some(l.load_entropy_bits),
            l.gate_entropy_bits,
            l.chosen_entropy_bits,
            Some(l.effective_experts),
        ];
        let numbers = known.map(|value| value.map_or_else(|| "not recorded".into(), significant));
        std::iter::once(l.layer.to_string()).chain(numbers).collect()
    };
    let header = ["layer", "load, bits", "gate, bits", "chosen, bits", "effective experts"];
    Table::new("entropies of each layer", &header, input.run.metrics.layers.iter().map(row).collect())
}
