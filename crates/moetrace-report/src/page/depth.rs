//! One number of every layer over depth, of one run or of two.

use moetrace_metrics::{LayerReport, MetricsReport};

use crate::figure::{LineChart, Reference, Series};
use crate::input::{ReportInput, ReportedRun};

/// The routed layers of the runs at hand.
pub(crate) struct Depth<'a> {
    runs: Vec<(&'static str, &'a ReportedRun)>,
    /// Every layer that some run has, ascending.
    layers: Vec<u16>,
}

impl<'a> Depth<'a> {
    pub(crate) fn new(input: &ReportInput<'a>) -> Self {
        let runs = input.lettered();
        let of = |run: &ReportedRun| run.metrics.layers.iter().map(|l| l.layer).collect::<Vec<u16>>();
        let mut layers: Vec<u16> = runs.iter().flat_map(|(_, run)| of(run)).collect();
        layers.sort_unstable();
        layers.dedup();
        Self { runs, layers }
    }

    /// A number of each layer, one line for each run that has it anywhere.
    pub(crate) fn lines(&self, name: &str, value: impl Fn(&ReportedRun, u16) -> Option<f64>) -> Vec<Series> {
        let of = |(prefix, run): &(&str, &ReportedRun)| Series {
            name: format!("{prefix}{name}"),
            values: self.layers.iter().map(|&layer| value(run, layer)).collect(),
        };
        let lines = self.runs.iter().map(of);
        lines.filter(|line| line.values.iter().any(Option::is_some)).collect()
    }

    /// The same of the numbers that every run has.
    pub(crate) fn series(&self, name: &str, value: impl Fn(&LayerReport) -> Option<f64>) -> Vec<Series> {
        self.lines(name, |run, layer| run.metrics.layers.iter().find(|l| l.layer == layer).and_then(&value))
    }

    /// What a run's routing would give without structure; only the first run's where the second's is the same.
    pub(crate) fn references(&self, name: &str, value: impl Fn(&MetricsReport) -> f64) -> Vec<Reference> {
        let mut out: Vec<Reference> = Vec::new();
        for (prefix, run) in &self.runs {
            let values = vec![value(&run.metrics)];
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
