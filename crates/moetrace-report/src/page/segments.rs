//! How well a few experts serve a whole stretch of tokens.

use moetrace_metrics::segments::{OverallCache, OverallSegments, SegmentReport};

use crate::figure::{LineChart, Reference, Series};
use crate::input::ReportInput;
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{counted, percent, significant, thousands};

/// Absent where no text is as long as a segment.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let report = input.run.segments.as_ref()?;
    let lengths: Vec<&OverallSegments> = report.overall.iter().filter(|s| s.segments > 0).collect();
    if lengths.is_empty() {
        return None;
    }
    let lead = format!(
        "How predictable is a stretch of tokens, and how much of it would the best cache serve? Intervals and shuffled \
         values are computed on a seeded sample of {} in {}.",
        counted(report.subset_tokens, "token"),
        counted(report.subset_samples, "text"),
    );
    let blocks = vec![predictability(input, &lengths), cache(input, report, &lengths)];
    Some(Section { id: "segments", title: "Segments", lead, blocks })
}

fn predictability(input: &ReportInput<'_>, lengths: &[&OverallSegments]) -> Block {
    let (mut series, mut references) = (Vec::new(), Vec::<Reference>::new());
    for (letter, run) in input.lettered() {
        let Some(report) = &run.segments else { continue };
        let of = |value: &dyn Fn(&OverallSegments) -> Option<f64>| -> Vec<Option<f64>> {
            let same = |s: &&OverallSegments| {
                report.overall.iter().find(|own| own.length == s.length && own.segments > 0).and_then(value)
            };
            lengths.iter().map(same).collect()
        };
        let line = |name: &str, values| Series { name: format!("{letter}{name}"), values };
        series.push(line("SRP", of(&|s| Some(s.pooled.srp))));
        series.push(line("tokens shuffled", of(&|s| s.shuffled.map(|v| v.mean))));
        // Chance is that of a run's own K and E.
        let expected = |s: &&OverallSegments| {
            report.overall.iter().find(|own| own.length == s.length).map_or(0.0, |own| own.expected)
        };
        let values = lengths.iter().map(expected).collect();
        let reference = Reference { name: format!("{letter}at random"), values };
        if references.iter().all(|other| other.values != reference.values) {
            references.push(reference);
        }
    }
    if let [one] = references.as_mut_slice() {
        one.name = "at random".into();
    }
    let chart = LineChart {
        name: "segments".into(),
        label: "Lines of segment routing predictability over the length of segments".into(),
        x_title: "tokens in a segment".into(),
        y_title: "SRP".into(),
        point: "segments of".into(),
        points: lengths.iter().map(|s| s.length as f64).collect(),
        x_log: true,
        series,
        references,
        y_high: Some(1.0),
    };
    let row = |s: &&OverallSegments| {
        let interval =
            s.pooled_interval.map(|i| format!("{} to {}", significant(i.low), significant(i.high)));
        vec![
            s.length.to_string(),
            thousands(s.segments),
            significant(s.pooled.srp),
            interval.unwrap_or_else(|| "–".into()),
            significant(s.expected),
            percent(s.above_chance),
        ]
    };
    let header = ["tokens", "segments a layer", "SRP", "95 % interval, sample", "at random", "above chance"];
    Block {
        heading: "Segment routing predictability".into(),
        how: "SRP is the best F1 score of naming, for each segment, one group of experts that all its tokens are said to \
              use: 1 if every token of a segment uses the same experts. The dashed line is random choice; the line of \
              shuffled tokens keeps loads and loses order."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(Table::new("predictability by length", &header, lengths.iter().map(row).collect())),
    }
}

fn cache(input: &ReportInput<'_>, report: &SegmentReport, lengths: &[&OverallSegments]) -> Block {
    let mut ratios: Vec<f64> = lengths.iter().flat_map(|s| s.caches.iter().map(|c| c.ratio)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    let at = |s: &OverallSegments, ratio: f64| {
        s.caches.iter().find(|c| (c.ratio - ratio).abs() < 1e-9).map(|c: &OverallCache| c.hit_rate.mean)
    };
    let series = lengths.iter().map(|s| Series {
        name: format!("{}segments of {}", input.letter(), s.length),
        values: ratios.iter().map(|&ratio| at(s, ratio)).collect(),
    });
    let chart = LineChart {
        name: "segment-cache".into(),
        label: "Lines of the best segment cache hit rate over the size of the cache".into(),
        x_title: format!("experts held, in units of K = {}", report.chosen),
        y_title: "SCH".into(),
        point: "K times".into(),
        points: ratios.clone(),
        x_log: false,
        series: series.collect(),
        references: Vec::new(),
        y_high: Some(1.0),
    };
    Block {
        heading: "Best segment cache hit rate".into(),
        how: "The part of a segment's choices that a cache serves if it holds the experts this very segment uses most: \
              no cache that is loaded once a segment can do better."
            .into(),
        drawing: Drawing::Chart(chart.draw()),
        table: None,
    }
}
