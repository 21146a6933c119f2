//! One number of every layer over depth, of one run or of two.

use moetrace_metrics::{LayerReport, MetricsReport};

use crate::figure::{LineChart, Reference, Series};
use crate::input::ReportInput;

/// The routed layers of the runs at hand.
pub(crate) struct Depth<'a> {
    runs: Vec<(&'static str, &'a MetricsReport)>,
    /// Every layer that some run has, ascending.
    layers: Vec<u16>,
}

impl<'a> Depth<'a> {
    pub(crate) fn new(input: &ReportInput<'a>) -> Self {
        let mut runs = vec![("", &input.run.metrics)];
        if let Some(other) = input.other {
            runs = vec![("A: ", &input.run.metrics), ("B: ", &other.metrics)];
        }
        let mut layers: Vec<u16> = runs.iter().flat_map(|(_, m)| m.layers.iter().map(|l| l.layer)).collect();
        layers.sort_unstable();
        layers.dedup();
        Self { runs, layers }
    }

    /// A number of each layer, one line for each run.
    pub(crate) fn series(&self, name: &str, value: impl Fn(&LayerReport) -> Option<f64>) -> Vec<Series> {
        let of = |(prefix, metrics): &(&str, &MetricsReport)| {
            let at = |layer: &u16| metrics.layers.iter().find(|l| l.layer == *layer).and_then(&value);
            Series { name: format!("{prefix}{name}"), values: self.layers.iter().map(at).collect() }
        };
        self.runs.iter().map(of).collect()
    }

    /// What a run's routing would give without structure; only the first run's where the second's is the same.
    pub(crate) fn references(&self, name: &str, value: impl Fn(&MetricsReport) -> f64) -> Vec<Reference> {
        let mut out: Vec<Reference> = Vec::new();
        for (prefix, metrics) in &self.runs {
            let values = vec![value(metrics)];
            if out.iter().all(|r| r.values != values) {
                out.push(Reference { name: format!("{prefix}{name}"), values });
            }
        }
        if let [one] = out.as_mut_slice() {
            name.clone_into(&mut one.name);
        }
        out
    }

    /// A chart with the layers along its horizontal axis.
    pub(crate) fn chart(&self, name: &str, label: &str, y_title: &str, series: Vec<Series>) -> LineChart {
        LineChart {
            name: name.to_owned(),
            label: label.to_owned(),
            x_title: "layer".to_owned(),
            y_title: y_title.to_owned(),
            point: "layer".to_owned(),
            points: self.layers.iter().map(|&l| f64::from(l)).collect(),
            x_log: false,
            series,
            references: Vec::new(),
            y_high: None,
        }
    }
}
