//! How much experts tell about the group that a token is of: its data set, its label, its position in the text.

use moetrace_metrics::groups::{GroupLayerReport, GroupReport, top_experts};
use moetrace_metrics::{GroupBy, GroupsReport};

use super::depth::Depth;
use super::expert_names;
use super::overview::shown_name;
use crate::figure::Reference;
use crate::heat::{HeatLayer, HeatMap, LEAST_EXPECTED, Measure, Measured};
use crate::input::{ReportInput, ReportedRun};
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{counted, significant, thousands};

/// Most groups that are rows of a map; those with most tokens.
const DRAWN: usize = 24;

/// Experts named for each group.
const NAMED: usize = 5;

/// One way to group tokens, and its words.
struct Kind {
    by: GroupBy,
    id: &'static str,
    title: &'static str,
    /// Names of the chart and of the map.
    chart: &'static str,
    map: &'static str,
    one: &'static str,
    many: &'static str,
    /// What the map compares with.
    all: &'static str,
    question: &'static str,
}

const DATASETS: Kind = Kind {
    by: GroupBy::Dataset,
    id: "specialisation",
    title: "Data sets",
    chart: "information",
    map: "datasets",
    one: "data set",
    many: "data sets",
    all: "times all data sets",
    question: "Do data sets prefer experts, and is that more than chance? An expert that is used more is not therefore one \
               that matters more.",
};

const LABELS: Kind = Kind {
    by: GroupBy::Label,
    id: "labels",
    title: "Tasks (labels)",
    chart: "label-information",
    map: "labels",
    one: "label",
    many: "labels",
    all: "times all labels",
    question: "Texts of some data sets have a label: a topic, a sentiment, a right answer. Do labels prefer experts, and \
               is that more than chance?",
};

const POSITIONS: Kind = Kind {
    by: GroupBy::Position,
    id: "positions",
    title: "Position in the text",
    chart: "position-information",
    map: "positions",
    one: "position",
    many: "positions",
    all: "times all positions",
    question: "Do the first tokens of a text go to other experts than later ones?",
};

/// Absent where there are not two data sets to tell apart.
pub(crate) fn datasets(input: &ReportInput<'_>) -> Option<Section> {
    section(input, &DATASETS)
}

/// Absent where texts have no labels, or all the same.
pub(crate) fn labels(input: &ReportInput<'_>) -> Option<Section> {
    section(input, &LABELS)
}

/// Absent where there is no token.
pub(crate) fn positions(input: &ReportInput<'_>) -> Option<Section> {
    section(input, &POSITIONS)
}

fn section(input: &ReportInput<'_>, kind: &Kind) -> Option<Section> {
    let report = of_run(input.run, kind)?;
    report.overall.as_ref()?;
    let null = report.layers.first()?.null;
    let compared = null.map_or_else(String::new, |null| {
        format!(
            " The comparison with chance is computed on a seeded sample of {} in {}, whose {} were shuffled {} times.",
            counted(null.tokens, "token"),
            counted(null.samples, "text"),
            kind.many,
            null.draws,
        )
    });
    let lead = format!("{}{compared}", kind.question);
    let blocks = vec![information(input, report, kind), rates(input.run, report, kind)];
    Some(Section { id: kind.id, title: kind.title, lead, blocks })
}

fn of_run<'a>(run: &'a ReportedRun, kind: &Kind) -> Option<&'a GroupsReport> {
    run.groups.iter().find(|groups| groups.by == kind.by)
}

/// What the comparison is with: over the sample that was shuffled, of labels within their data sets; over all tokens
/// where nothing can be shuffled.
fn observed(l: &GroupLayerReport) -> f64 {
    let over_all = l.information_within_datasets_bits.unwrap_or(l.mutual_information_bits);
    l.null.map_or(over_all, |null| null.observed_bits)
}

fn information(input: &ReportInput<'_>, report: &GroupsReport, kind: &Kind) -> Block {
    let depth = Depth::new(input);
    let lines = depth.lines("one chosen expert tells", |run, layer| {
        of_run(run, kind)?.layers.iter().find(|l| l.layer == layer).map(observed)
    });
    let label =
        format!("Lines of the information between expert and {} over layers, with that of chance", kind.one);
    let mut chart = depth.chart(kind.chart, &label, "bits", lines);
    // A second run has a chance of its own, and a dashed line has to be that of one.
    if input.other.is_none() {
        let shuffled: Option<Vec<f64>> =
            report.layers.iter().map(|l| l.null.map(|null| null.percentile_95_bits)).collect();
        chart.references = vec![match shuffled {
            Some(values) => Reference { name: "95 % of shuffles are below".into(), values },
            None => Reference {
                name: "independent choices".into(),
                values: report.layers.iter().map(|l| l.independent_information_bits).collect(),
            },
        }];
    }
    Block {
        heading: format!("What a chosen expert tells about the {}", kind.one),
        how: how(report, kind, input.other.is_none()),
        drawing: Drawing::Chart(chart.draw()),
        table: Some(table(report, kind)),
    }
}

/// `dashed`: whether chance is drawn.
fn how(report: &GroupsReport, kind: &Kind, dashed: bool) -> String {
    let most = significant(report.layers.first().map_or(0.0, |l| l.group_entropy_bits));
    let what = match kind.by {
        GroupBy::Dataset => format!(
            "Mutual information: 0 if all data sets use the experts alike, at most {most} bits, if no expert serves two \
             data sets."
        ),
        GroupBy::Label => {
            "Mutual information beyond the data set: 0 if the labels of each data set use the experts alike. \
                           Labels were shuffled within their data sets."
                .into()
        }
        GroupBy::Position => {
            format!("Mutual information: 0 if experts are used alike at all positions, at most {most} bits.")
        }
    };
    let chance = match kind.by {
        _ if !dashed => " What chance gives in A is in the table.",
        GroupBy::Dataset | GroupBy::Label => " Above the dashed line it is more than chance.",
        GroupBy::Position => {
            " The dashed line is what independent choices give; tokens of one text are alike, so that a little above it \
             may still be chance."
        }
    };
    what + chance
}

fn table(report: &GroupsReport, kind: &Kind) -> Table {
    let show = |value: Option<f64>| value.map_or_else(|| "–".into(), significant);
    let row = |l: &GroupLayerReport| {
        let chance = match l.null {
            Some(null) => {
                [Some(null.observed_bits), Some(null.mean_bits), Some(null.percentile_95_bits), null.z]
            }
            None => [None, Some(l.independent_information_bits), None, None],
        };
        let numbers =
            [Some(l.mutual_information_bits), Some(l.cramers_v_corrected)].into_iter().chain(chance);
        std::iter::once(l.layer.to_string()).chain(numbers.map(show)).collect()
    };
    let sample = if kind.by == GroupBy::Label { "bits beyond data sets, sample" } else { "bits, sample" };
    let header =
        ["layer", "bits, all tokens", "Cramér's V", sample, "by chance, mean", "by chance, 95 %", "z"];
    let caption = format!("what experts tell about the {}", kind.one);
    Table::new(&caption, &header, report.layers.iter().map(row).collect())
}

/// Groups that have tokens with their names; at most [`DRAWN`] of them, in their own order.
fn drawn<'a>(report: &'a GroupsReport, kind: &Kind) -> Vec<(String, &'a GroupReport)> {
    let mut groups: Vec<(usize, &GroupReport)> =
        report.groups.iter().enumerate().filter(|(_, group)| group.tokens > 0).collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.tokens));
    groups.truncate(DRAWN);
    groups.sort_unstable_by_key(|(at, _)| *at);
    let mut of = report.groups.iter().map(|group| &group.dataset);
    let first = of.next();
    let several = of.any(|dataset| Some(dataset) != first);
    groups.into_iter().map(|(_, group)| (name(group, kind, several), group)).collect()
}

/// A label alone says little where several data sets have some.
fn name(group: &GroupReport, kind: &Kind, several: bool) -> String {
    let dataset = group.dataset.as_deref().map(shown_name).unwrap_or_default();
    match kind.by {
        GroupBy::Dataset => dataset,
        GroupBy::Label => {
            let label = group.label.as_deref().map_or_else(|| "other labels".into(), shown_name);
            if several { format!("{label} ({dataset})") } else { label }
        }
        GroupBy::Position => match group.from.unwrap_or(0) {
            from @ 0..=1 => from.to_string(),
            // Positions are recorded in 16 bits: there is none above.
            from => format!("{} to {}", thousands(from), thousands(2 * from - 1)),
        },
    }
}

fn rates(run: &ReportedRun, report: &GroupsReport, kind: &Kind) -> Block {
    let groups = drawn(report, kind);
    let there = report.groups.iter().filter(|group| group.tokens > 0).count();
    let left_out = if groups.len() < there {
        format!(" Of {there} {} those {} with most tokens are drawn.", kind.many, groups.len())
    } else {
        String::new()
    };
    let without = if report.ungrouped_tokens > 0 {
        format!(
            " {} of texts without a {} are left out.",
            counted(report.ungrouped_tokens, "token"),
            kind.one
        )
    } else {
        String::new()
    };
    Block {
        heading: format!("How often each {} uses each expert", kind.one),
        how: format!(
            "Without colour: the {} uses the expert as often as all {} together do. Orange: more often, blue: less often. Experts \
             with few tokens vary by chance; the count is read out with each cell.{left_out}{without}",
            kind.one, kind.many
        ),
        drawing: Drawing::Heat(Box::new(map(run, report, &groups, kind))),
        table: Some(preferred(run, report, &groups, kind)),
    }
}

/// Loads of all groups in a layer, those that are not drawn included: `[E]`.
fn pooled(report: &GroupsReport, ordinal: usize, experts: usize) -> Vec<u64> {
    let mut sums = vec![0; experts];
    for loads in report.groups.iter().filter_map(|group| group.loads.get(ordinal)) {
        sums.iter_mut().zip(loads).for_each(|(sum, n)| *sum += n);
    }
    sums
}

fn map(run: &ReportedRun, report: &GroupsReport, groups: &[(String, &GroupReport)], kind: &Kind) -> HeatMap {
    let experts = run.metrics.experts;
    let layer = |(ordinal, l): (usize, &GroupLayerReport)| {
        let loads: Vec<&Vec<u64>> = groups.iter().filter_map(|(_, group)| group.loads.get(ordinal)).collect();
        let column_totals = pooled(report, ordinal, experts);
        HeatLayer {
            name: l.layer.to_string(),
            counts: loads.iter().flat_map(|row| row.iter().copied()).collect(),
            row_totals: loads.iter().map(|row| row.iter().sum()).collect(),
            total: column_totals.iter().sum::<u64>() as f64,
            column_totals,
            order: None,
        }
    };
    HeatMap {
        name: kind.map,
        label: format!(
            "Heat map of how often each {} uses each expert of a layer, relative to all {}",
            kind.one, kind.many
        ),
        row: kind.one,
        column: "expert",
        row_names: groups.iter().map(|(name, _)| name.clone()).collect(),
        column_names: expert_names(experts),
        counted: "tokens",
        symmetric: false,
        per: run.metrics.chosen as f64,
        measures: vec![
            Measured { measure: Measure::Lift, title: kind.all, legend: kind.all },
            Measured { measure: Measure::Share, title: "part of its tokens", legend: "part of its tokens" },
        ],
        layers: report.layers.iter().enumerate().map(layer).collect(),
        square: false,
    }
}

/// For each group the experts that it prefers most over all layers; those that it would meet less than five times by
/// chance are left out, as in the map.
fn preferred(
    run: &ReportedRun,
    report: &GroupsReport,
    groups: &[(String, &GroupReport)],
    kind: &Kind,
) -> Table {
    let (experts, chosen) = (run.metrics.experts, run.metrics.chosen);
    let all: Vec<Vec<u64>> =
        (0..report.layers.len()).map(|ordinal| pooled(report, ordinal, experts)).collect();
    let row = |(name, group): &(String, &GroupReport)| {
        let of_layer = |((l, own), all): ((&GroupLayerReport, &Vec<u64>), &Vec<u64>)| {
            let top = top_experts(own, all, chosen, experts);
            let tokens = group.tokens as f64;
            let met = top.into_iter().filter(move |e| e.share / e.ratio * tokens >= LEAST_EXPECTED);
            met.map(|e| (l.layer, e)).collect::<Vec<_>>()
        };
        let mut best: Vec<_> = report.layers.iter().zip(&group.loads).zip(&all).flat_map(of_layer).collect();
        best.sort_by(|a, b| b.1.ratio.total_cmp(&a.1.ratio).then((a.0, a.1.expert).cmp(&(b.0, b.1.expert))));
        let named = best.iter().take(NAMED);
        let named =
            named.map(|(layer, e)| format!("layer {layer} expert {} ({}×)", e.expert, significant(e.ratio)));
        vec![
            name.clone(),
            thousands(group.samples),
            thousands(group.tokens),
            named.collect::<Vec<_>>().join(", "),
        ]
    };
    let header = [kind.one, "texts", "tokens", "experts it prefers most"];
    let caption = format!("what each {} prefers", kind.one);
    let table = Table::new(&caption, &header, groups.iter().map(row).collect());
    if kind.by == GroupBy::Dataset { table.opened() } else { table }
}
