//! The first screen: the few numbers that everybody asks for, and where they come from.

use maud::{Markup, html};
use moetrace_metrics::Spread;

use crate::input::{DatasetFacts, Fact, ReportInput, ReportedRun};
use crate::section::{Block, Drawing, Section, Table};
use crate::text::{counted, percent, significant, thousands, visible};

/// Longest name shown whole.
const NAME: usize = 120;
/// Longest value of a setting shown whole.
const VALUE: usize = 300;

/// A foreign name as it is shown everywhere.
pub(crate) fn shown_name(name: &str) -> String {
    visible(name, NAME)
}

/// The models that the page is about.
pub(crate) fn title(input: &ReportInput<'_>) -> String {
    let first = shown_name(&input.run.model);
    match input.other.map(|other| shown_name(&other.model)).filter(|other| *other != first) {
        Some(other) => format!("Routing of {first} and {other}"),
        None => format!("Routing of {first}"),
    }
}

/// The line below the title.
pub(crate) fn subtitle(input: &ReportInput<'_>) -> String {
    let of = |run: &ReportedRun| {
        let m = &run.metrics;
        format!(
            "{}: {} of {}, {} of {} experts in each of {}",
            shown_name(&run.name),
            counted(m.tokens, "token"),
            counted(m.samples, "text"),
            m.chosen,
            m.experts,
            counted(m.layers.len() as u64, "routed layer"),
        )
    };
    match input.other {
        Some(other) => format!("A  {} — B  {}", of(input.run), of(other)),
        None => of(input.run),
    }
}

pub(crate) fn section(input: &ReportInput<'_>) -> Section {
    let runs: Vec<&ReportedRun> = std::iter::once(input.run).chain(input.other).collect();
    let lead = format!(
        "A mixture-of-experts model has, in some of its layers, many small networks instead of a large one: the experts. A \
         router picks a few of them for every token: here {}. This page shows which ones it picked, \
         layer by layer, over the texts named below: how evenly they are used, what they specialise in, and how \
         predictable the choice is. The words are explained under Terms, at the end.",
        input.each(|run| {
            let m = &run.metrics;
            format!("{} of {} in each of {}", m.chosen, m.experts, counted(m.layers.len() as u64, "layer"))
        }),
    );
    let mut blocks = vec![Block {
        heading: String::new(),
        how: "Each number is the mean over layers, with the lowest and the highest layer below it. \"Alike\" is what a \
              router that uses all experts alike would give; for data-set bits (what a chosen expert tells about the \
              data set), what shuffled data sets give."
            .into(),
        drawing: Drawing::Markup(html! {
            @for (letter, run) in input.lettered() {
                (notes(run)) (tiles(run, (runs.len() > 1).then_some(letter)))
            }
        }),
        table: None,
    }];
    blocks.push(facts("Where the numbers come from", &runs, |run| &run.facts, true));
    for run in &runs {
        blocks.push(datasets(run, runs.len() > 1));
    }
    blocks.push(facts("Settings", &runs, |run| &run.settings, false));
    Section { id: "overview", title: "Overview", lead, blocks }
}

fn notes(run: &ReportedRun) -> Markup {
    html! { @for note in &run.notes { p class="warning" { (visible(note, VALUE)) } } }
}

/// `letter` tells two runs apart.
fn tiles(run: &ReportedRun, letter: Option<&str>) -> Markup {
    let (m, o) = (&run.metrics, &run.metrics.overall);
    let bits = (m.experts as f64).log2();
    let range = |s: &Spread, show: fn(f64) -> String| format!("{} to {}", show(s.min), show(s.max));
    let mut tiles = vec![
        ("experts used", percent(o.coverage), range(&o.layer_coverage, percent), "100 %".into()),
        (
            "load entropy, bits",
            significant(o.load_entropy_bits.mean),
            range(&o.load_entropy_bits, significant),
            significant(bits),
        ),
        (
            "effective experts",
            significant(o.effective_experts.mean),
            range(&o.effective_experts, significant),
            thousands(m.experts as u64),
        ),
        ("MaxVio", significant(o.max_vio.mean), range(&o.max_vio, significant), "0".into()),
        ("Gini of loads", significant(o.gini.mean), range(&o.gini, significant), "0".into()),
    ];
    if let Some(gate) = &o.gate_entropy_bits {
        tiles.insert(
            3,
            ("gate entropy, bits", significant(gate.mean), range(gate, significant), significant(bits)),
        );
    }
    if let (Some(mi), Some(null)) = (&o.mutual_information_bits, &o.null_mean_bits) {
        tiles.push(("data-set bits", significant(mi.mean), range(mi, significant), significant(null.mean)));
    }
    html! {
        @if let Some(letter) = letter { h3 { (letter) (shown_name(&run.name)) } }
        dl class="tiles" {
            @for (name, value, range, alike) in tiles {
                div { dt { (name) } dd class="value" { (value) } dd { (range) } dd { "alike: " (alike) } }
            }
        }
    }
}

/// Facts with a column for each run.
pub(super) fn facts(
    heading: &str,
    runs: &[&ReportedRun],
    of: impl Fn(&ReportedRun) -> &Vec<Fact>,
    open: bool,
) -> Block {
    let mut names: Vec<&str> = Vec::new();
    for fact in runs.iter().flat_map(|run| of(run)) {
        if !names.contains(&fact.name.as_str()) {
            names.push(&fact.name);
        }
    }
    let value = |run: &ReportedRun, name: &str| {
        let fact = of(run).iter().find(|fact| fact.name == name);
        fact.map_or_else(String::new, |fact| {
            let source = if fact.source.is_empty() { String::new() } else { format!(" ({})", fact.source) };
            visible(&format!("{}{source}", fact.value), VALUE)
        })
    };
    let row = |name: &&str| {
        std::iter::once(visible(name, NAME)).chain(runs.iter().map(|run| value(run, name))).collect()
    };
    let mut header = vec![""];
    header.extend(if runs.len() > 1 { vec!["A", "B"] } else { vec!["value"] });
    let table = Table::new(heading, &header, names.iter().map(row).collect());
    let table = if open { table.opened() } else { table };
    Block { heading: String::new(), how: String::new(), drawing: Drawing::None, table: Some(table) }
}

fn datasets(run: &ReportedRun, several: bool) -> Block {
    let left_out = |d: &DatasetFacts| {
        let reasons: Vec<String> =
            d.skipped.iter().map(|(why, n)| format!("{} {}", thousands(*n), visible(why, NAME))).collect();
        if reasons.is_empty() { "none".into() } else { reasons.join(", ") }
    };
    let row = |d: &DatasetFacts| {
        let numbers = [d.samples, d.tokens, d.truncated, d.rows_seen].map(thousands);
        std::iter::once(shown_name(&d.name)).chain(numbers).chain([left_out(d)]).collect()
    };
    let caption =
        if several { format!("Data sets of {}", shown_name(&run.name)) } else { "Data sets".to_owned() };
    let header = ["data set", "texts", "tokens", "cut at the length limit", "rows read", "rows left out"];
    let table = Table::new(&caption, &header, run.datasets.iter().map(row).collect()).opened();
    Block { heading: String::new(), how: String::new(), drawing: Drawing::None, table: Some(table) }
}
