//! How much experts tell about the data set a token is from.

use moetrace_metrics::{DatasetReport, LayerReport, MetricsReport};

use super::depth::Depth;
use super::expert_names;
use super::overview::shown_name;
use crate::figure::{Reference, Series};
use crate::heat::{HeatLayer, HeatMap, Measure, Measured};
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{significant, thousands};

/// Absent where there are not two data sets to tell apart.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let metrics = &input.run.metrics;
    let first = metrics.layers.first()?.specialisation.as_ref()?;
    let lead = format!(
        "Do data sets prefer experts, and is that more than chance? An expert that is used more is not therefore one \
         that matters more. The comparison with chance is computed on a seeded sample of {} tokens in {} texts, whose \
         data sets were shuffled {} times.",
        thousands(first.subset_tokens),
        thousands(first.subset_samples),
        first.null_draws,
    );
    let blocks = vec![information(input), rates(metrics)];
    Some(Section { id: "specialisation", title: "Data sets", lead, blocks })
}

fn information(input: &ReportInput<'_>) -> Block {
    let (depth, layers) = (Depth::new(input), &input.run.metrics.layers);
    let of = |l: &LayerReport| l.specialisation.as_ref().map(|s| s.subset_mutual_information_bits);
    let label =
        "Lines of the information between expert and data set over layers, with what shuffled data sets give";
    let series: Vec<Series> = depth.series("one chosen expert tells", of);
    let mut chart = depth.chart("information", label, "bits", series);
    if input.other.is_none() {
        let null = layers.iter().filter_map(|l| l.specialisation.as_ref());
        let values = null.map(|s| s.null_95th_percentile_bits).collect();
        chart.references = vec![Reference { name: "95 % of shuffles are below".into(), values }];
    }
    let most = layers.iter().find_map(|l| l.specialisation.as_ref()).map_or(0.0, |s| s.dataset_entropy_bits);
    let row = |l: &LayerReport| {
        let s = l.specialisation.as_ref();
        let show = |value: Option<f64>| value.map_or_else(|| "–".into(), significant);
        vec![
            l.layer.to_string(),
            show(s.map(|s| s.mutual_information_bits)),
            show(s.map(|s| s.subset_mutual_information_bits)),
            show(s.map(|s| s.null_mean_bits)),
            show(s.map(|s| s.null_95th_percentile_bits)),
            show(s.and_then(|s| s.z)),
        ]
    };
    let header = ["layer", "bits, all tokens", "bits, sample", "shuffled, mean", "shuffled, 95 %", "z"];
    Block {
        heading: "What a chosen expert tells about the data set".into(),
        how: format!(
            "Mutual information: 0 if all data sets use the experts alike, at most {} bits, if no expert serves two \
             data sets. Above the dashed line it is more than chance.",
            significant(most)
        ),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("information of each layer", &header, layers.iter().map(row).collect())),
    }
}

fn rates(metrics: &MetricsReport) -> Block {
    Block {
        heading: "How often each data set uses each expert".into(),
        how: "Pale: the data set uses the expert as often as all data sets together do. Orange: more often, blue: less \
              often. Experts with few tokens vary by chance; the count is read out with each cell."
            .into(),
        drawing: Drawing::Heat(Box::new(map(metrics))),
        table: Some(preferred(metrics)),
    }
}

fn map(metrics: &MetricsReport) -> HeatMap {
    let datasets: Vec<&DatasetReport> = metrics.datasets.iter().filter(|d| d.tokens > 0).collect();
    let layer = |(ordinal, l): (usize, &LayerReport)| {
        let loads: Vec<&[u64]> =
            datasets.iter().filter_map(|d| d.layers.get(ordinal)).map(|d| d.loads.as_slice()).collect();
        HeatLayer {
            name: l.layer.to_string(),
            counts: loads.iter().flat_map(|row| row.iter().copied()).collect(),
            row_totals: loads.iter().map(|row| row.iter().sum()).collect(),
            column_totals: l.loads.clone(),
            total: l.loads.iter().sum::<u64>() as f64,
            order: None,
        }
    };
    HeatMap {
        name: "datasets",
        label: "Heat map of how often each data set uses each expert of a layer, relative to all data sets"
            .into(),
        row: "data set",
        column: "expert",
        row_names: datasets.iter().map(|d| shown_name(&d.name)).collect(),
        column_names: expert_names(metrics.experts),
        counted: "tokens",
        symmetric: false,
        per: metrics.chosen as f64,
        measures: vec![
            Measured { measure: Measure::Lift, title: "times all data sets", legend: "times all data sets" },
            Measured { measure: Measure::Share, title: "part of its tokens", legend: "part of its tokens" },
        ],
        layers: metrics.layers.iter().enumerate().map(layer).collect(),
        square: false,
    }
}

/// For each data set the experts that it prefers most over all layers.
fn preferred(metrics: &MetricsReport) -> Table {
    let row = |d: &DatasetReport| {
        let experts = d.layers.iter().flat_map(|l| l.top_experts.iter().map(|e| (l.layer, *e)));
        let mut experts: Vec<_> = experts.collect();
        experts
            .sort_by(|a, b| b.1.ratio.total_cmp(&a.1.ratio).then((a.0, a.1.expert).cmp(&(b.0, b.1.expert))));
        let named = experts
            .iter()
            .take(5)
            .map(|(layer, e)| format!("layer {layer} expert {} ({}×)", e.expert, significant(e.ratio)));
        vec![
            shown_name(&d.name),
            thousands(d.samples),
            thousands(d.tokens),
            named.collect::<Vec<_>>().join(", "),
        ]
    };
    let header = ["data set", "texts", "tokens", "experts it prefers most"];
    Table::new("what each data set prefers", &header, metrics.datasets.iter().map(row).collect()).opened()
}
