//! How far a token's id, or the next one's, decides its expert.

use moetrace_metrics::vocabulary::{LEAST_COUNT, SpecialisationScore, VocabularyLayer, VocabularyReport};

use super::depth::Depth;
use crate::figure::Reference;
use crate::input::{ReportInput, ReportedRun};
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{counted, percent, significant, thousands};

/// Absent where token ids are not recorded, or none occurs often enough.
pub(crate) fn section(input: &ReportInput<'_>) -> Option<Section> {
    let report = input.run.vocabulary.as_ref().filter(|report| report.input_ids > 0)?;
    let looked_at = report.tracked_tokens as f64 / report.tokens.max(1) as f64;
    let part = if report.tracked_tokens < report.tokens {
        format!(
            " Only the {} most frequent ones were counted one by one; they are {} of the text.",
            thousands(report.ids.len() as u64),
            percent(looked_at),
        )
    } else {
        String::new()
    };
    let lead = format!(
        "Does the router look at the word, or at what surrounds it? Counted over the {} that occur {LEAST_COUNT} times or more.{part}",
        counted(report.input_ids, "token id"),
    );
    let blocks = vec![share(input, report)];
    Some(Section { id: "vocabulary", title: "Vocabulary", lead, blocks })
}

fn share(input: &ReportInput<'_>, report: &VocabularyReport) -> Block {
    let depth = Depth::new(input);
    let line = |name: &str, value: fn(&VocabularyLayer) -> f64| {
        depth.lines(name, |run: &ReportedRun, layer| {
            run.vocabulary.as_ref()?.layers.iter().find(|l| l.layer == layer).map(value)
        })
    };
    let mut lines = line("by the token itself", |l| l.input.first.share);
    lines.extend(line("by the token after it", |l| l.next.first.share));
    let label = "Lines of the share of a token's occurrences that its most frequent expert has, over layers, with that of \
                 chance";
    let mut chart = depth.chart("vocabulary", label, "share of the favourite expert", lines);
    if input.other.is_none() {
        let by_chance = |name: &str, value: fn(&VocabularyLayer) -> f64| Reference {
            name: name.to_owned(),
            values: report.layers.iter().map(value).collect(),
        };
        chart.references = vec![
            by_chance("itself, by chance", |l| l.input.first.expected),
            by_chance("after it, by chance", |l| l.next.first.expected),
        ];
    }
    Block {
        heading: "How far a token decides its expert".into(),
        how: format!(
            "Each token of the vocabulary has a favourite among the experts of first rank; the line is the part of its \
             occurrences that go there, averaged over the vocabulary. 1: the word alone decides. {} what words that decide \
             nothing would reach, since seldom ones have a favourite by chance. The second line groups by the token that \
             comes next, which the model is to predict.",
            if input.other.is_none() { "Dashed:" } else { "By chance (in the table, of A):" }
        ),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(table(report)),
    }
}

fn table(report: &VocabularyReport) -> Table {
    let scores = |first: &SpecialisationScore, chosen: &SpecialisationScore| {
        [
            percent(first.share),
            percent(first.expected),
            significant(first.above_chance),
            significant(chosen.above_chance),
        ]
    };
    let row = |l: &VocabularyLayer| {
        let (own, next) = (scores(&l.input.first, &l.input.chosen), scores(&l.next.first, &l.next.chosen));
        std::iter::once(l.layer.to_string()).chain(own).chain(next).collect()
    };
    let header = [
        "layer",
        "itself: share",
        "by chance",
        "above chance",
        "above chance, all K experts",
        "after it: share",
        "by chance",
        "above chance",
        "above chance, all K experts",
    ];
    Table::new("vocabulary specialisation of each layer", &header, report.layers.iter().map(row).collect())
}
