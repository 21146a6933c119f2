//! How alike the choices of neighbouring tokens are, and what a cache gains by it.

use moetrace_metrics::temporal::{LayerTemporal, TemporalReport, WORKING_SET_WINDOWS};

use super::depth::Depth;
use super::expert_names;
use crate::figure::{LineChart, Reference, Series};
use crate::heat::{HeatLayer, HeatMap, Measure, Measured};
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{percent, significant};

pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let report = input.run.temporal.as_ref()?;
    let letter = input.letter();
    let mut blocks = vec![
        reuse(input, report),
        lags(report, letter),
        caches(report, letter),
        working_sets(report, letter),
    ];
    blocks.extend(transitions(report));
    let lead =
        "Does a token use the experts of the token before it? Tokens are compared within their text only.";
    Some(Section { id: "tokens", title: "Along tokens", lead: lead.into(), blocks })
}

fn reuse(input: &ReportInput<'_>, report: &TemporalReport) -> Block {
    let depth = Depth::new(input);
    let of = |name: &str, value: fn(&LayerTemporal) -> f64| {
        depth.lines(name, |run, layer| {
            let layers = &run.temporal.as_ref()?.layers;
            layers.iter().find(|l| l.layer == layer).map(value)
        })
    };
    let mut series = of("chosen again by the next token", |l| l.reuse);
    series.extend(of("rank 1 again", |l| l.rank_1_repeats));
    let label = "Lines of the part of experts that the next token chooses again, over layers";
    let mut chart = depth.chart("reuse", label, "part of the experts", series);
    chart.references = depth.references("at random, K / E", |m| m.chosen as f64 / m.experts.max(1) as f64);
    if input.other.is_none() {
        chart.references.push(Reference {
            name: "at random with these loads".into(),
            values: report.layers.iter().map(|l| l.expected_reuse_of_loads).collect(),
        });
    }
    let row = |l: &LayerTemporal| {
        vec![
            l.layer.to_string(),
            percent(l.reuse),
            percent(l.expected_reuse_of_loads),
            percent(l.rank_1_repeats),
            percent(l.first_two_repeats),
            significant(l.runs.mean),
        ]
    };
    let header = [
        "layer",
        "chosen again",
        "with these loads",
        "rank 1 again",
        "one of the first two",
        "mean run, tokens",
    ];
    Block {
        heading: "Reuse over depth".into(),
        how: format!(
            "The part of a token's experts that the token before chose too. The dashed lines are what independent tokens \
             would give: with all experts alike{}.",
            if input.other.is_none() { ", and with each layer's own loads" } else { "" }
        ),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("reuse of each layer", &header, report.layers.iter().map(row).collect())),
    }
}

fn lags(report: &TemporalReport, letter: &str) -> Block {
    let lags = &report.overall.lag_reuse;
    let chart = LineChart {
        name: "lags".into(),
        label: "Line of the reuse of experts over the distance of two tokens".into(),
        x_title: "tokens apart".into(),
        y_title: "part of the experts in common".into(),
        point: "tokens apart:".into(),
        points: (1..=lags.len()).map(|lag| lag as f64).collect(),
        x_log: true,
        series: vec![Series::new(format!("{letter}mean over layers"), lags.iter().copied())],
        references: vec![
            Reference { name: "at random, K / E".into(), values: vec![report.expected.reuse] },
            Reference {
                name: "at random with the layers' loads".into(),
                values: vec![report.overall.expected_reuse_of_loads.mean],
            },
        ],
        y_high: None,
    };
    Block {
        heading: "Reuse by distance".into(),
        how: "How many experts two tokens of one text have in common, by how far apart they are. What stays above the \
              dashed lines at long distances is the text's topic, not its neighbours."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: None,
    }
}

/// Least-recently-used hit rates at every size, from the distances of all layers.
fn caches(report: &TemporalReport, letter: &str) -> Block {
    let lookups: u64 = report.layers.iter().map(|l| l.lru.lookups).sum();
    let mut hits = 0;
    let rates = (0..report.experts).map(|size| {
        hits += report.layers.iter().filter_map(|l| l.lru.distances.get(size)).sum::<u64>();
        if lookups == 0 { 0.0 } else { hits as f64 / lookups as f64 }
    });
    let chart = LineChart {
        name: "lru".into(),
        label: "Line of the hit rate of a least-recently-used cache over its size".into(),
        x_title: "experts that a layer's cache holds".into(),
        y_title: "part of the look-ups that hit".into(),
        point: "experts held:".into(),
        points: (1..=report.experts).map(|size| size as f64).collect(),
        x_log: false,
        series: vec![Series::new(format!("{letter}all layers"), rates)],
        references: Vec::new(),
        y_high: Some(1.0),
    };
    let of_sizes = |l: &LayerTemporal| {
        let caches = l.lru.hit_rates.iter();
        let rates = caches.map(|c| {
            format!("{} experts: {} (fixed: {})", c.size, percent(c.hit_rate), percent(c.static_hit_rate))
        });
        vec![l.layer.to_string(), rates.collect::<Vec<_>>().join(", ")]
    };
    let rows = report.layers.iter().map(of_sizes).collect();
    Block {
        heading: "A cache of experts".into(),
        how: "Each layer holds that many experts and throws out the one used least recently; it is empty at the \
              beginning of each text. Even a cache of all experts misses the first use of each."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("hit rates of each layer, and of holding the busiest experts", &["layer", "hit rates"], rows)),
    }
}

fn working_sets(report: &TemporalReport, letter: &str) -> Block {
    // No text may be as long as the longest windows.
    let seen = |i: usize| report.layers.iter().any(|l| l.working_sets.get(i).is_some_and(|w| w.windows > 0));
    let means = report.overall.working_sets.iter().enumerate();
    let values = means.map(|(i, spread)| seen(i).then_some(spread.mean)).collect();
    let chart = LineChart {
        name: "working-sets".into(),
        label: "Line of the distinct experts in a window of tokens over its length".into(),
        x_title: "tokens in the window".into(),
        y_title: "distinct experts".into(),
        point: "window of".into(),
        points: WORKING_SET_WINDOWS.iter().map(|&w| w as f64).collect(),
        x_log: true,
        series: vec![Series { name: format!("{letter}mean over layers"), values }],
        references: vec![Reference {
            name: "at random".into(),
            values: report.expected.working_sets.clone(),
        }],
        y_high: None,
    };
    Block {
        heading: "Working sets".into(),
        how: "How many different experts of a layer a window of consecutive tokens needs. Below the dashed line, \
              neighbouring tokens share experts."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: None,
    }
}

/// Absent where there are too many experts to keep the counts.
fn transitions(report: &TemporalReport) -> Option<Block> {
    let layers: Vec<HeatLayer> = report
        .layers
        .iter()
        .filter(|l| !l.transition_counts.is_empty())
        .map(|l| HeatLayer::of_table(l.layer.to_string(), &l.transition_counts, report.experts))
        .collect();
    if layers.is_empty() {
        return None;
    }
    let map = HeatMap {
        name: "transitions",
        label: "Heat map of which expert follows which at the next token, relative to chance".into(),
        row: "expert of a token",
        column: "expert of the next",
        row_names: expert_names(report.experts),
        column_names: expert_names(report.experts),
        counted: "token pairs",
        symmetric: false,
        per: report.chosen as f64,
        measures: vec![
            Measured { measure: Measure::Lift, title: "times chance", legend: "times chance" },
            Measured {
                measure: Measure::Share,
                title: "part of the tokens",
                legend: "part of the next tokens",
            },
        ],
        layers,
        square: true,
    };
    Some(Block {
        heading: "Which expert follows which".into(),
        how: "Row: an expert that a token chose. Column: an expert that the next token chose. Orange: more often than if \
              the two were independent. The diagonal is an expert that is chosen again."
            .into(),
        drawing: Drawing::Heat(Box::new(map)),
        table: None,
    })
}
