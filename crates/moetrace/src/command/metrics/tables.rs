//! `--parquet`: a row for each expert, each pair of experts, each layer.

use std::path::{Path, PathBuf};

use moetrace_metrics::groups::GroupReport;
use moetrace_metrics::{
    ExpertCountsReport, FullReport, GroupBy, GroupsReport, LayerCounts, LayerReport, coactivation, pairs,
};
use moetrace_run::{Manifest, RunError, RunFolder};
use moetrace_trace::{NumberColumn, TraceSettings, write_numbers};

use crate::failure::{Failure, code};
use crate::output;

type Columns = Vec<(&'static str, NumberColumn)>;

/// Writes the three tables of a report into `folder`, and one for each grouping in `by`; files of these names are replaced.
pub(crate) fn write(
    folder: &Path,
    manifest: &Manifest,
    report: &FullReport,
    by: &[GroupBy],
) -> Result<(), Failure> {
    if report.coactivation.as_ref().is_some_and(|c| c.layers.iter().all(|layer| layer.pair_counts.is_empty()))
    {
        output::tell(
            "note: pairs.parquet has no rows: pairs of more than 128 experts are written by --counts",
        );
    }
    let mut tables = vec![
        ("experts".to_owned(), experts(report)),
        ("pairs".to_owned(), of_pairs(report)),
        ("layers".to_owned(), layers(report)),
    ];
    let asked = report.groups.iter().filter(|groups| by.contains(&groups.by));
    tables.extend(asked.map(|groups| {
        (format!("experts-by-{}", format!("{:?}", groups.by).to_lowercase()), of_groups(groups))
    }));
    write_tables(folder, manifest, &tables)
}

/// A row for each group, layer and expert. Labels that were put together have an empty one.
fn of_groups(report: &GroupsReport) -> Columns {
    let cells = report.groups.iter().flat_map(|group| {
        let layers = report.layers.iter().zip(&group.loads);
        layers.flat_map(move |(layer, loads)| {
            loads.iter().enumerate().map(move |(expert, &load)| (group, layer.layer, expert as u64, load))
        })
    });
    let cells: Vec<(&GroupReport, u16, u64, u64)> = cells.collect();
    let texts = |of: fn(&GroupReport) -> &Option<String>| {
        NumberColumn::Texts(cells.iter().map(|cell| of(cell.0).clone().unwrap_or_default()).collect())
    };
    let integers = |of: fn(&(&GroupReport, u16, u64, u64)) -> u64| {
        NumberColumn::Integers(cells.iter().map(of).collect())
    };
    let mut columns = match report.by {
        GroupBy::Dataset => vec![("dataset", texts(|group| &group.dataset))],
        GroupBy::Label => {
            vec![("dataset", texts(|group| &group.dataset)), ("label", texts(|group| &group.label))]
        }
        GroupBy::Position => vec![("from_position", integers(|cell| cell.0.from.unwrap_or_default()))],
    };
    columns.extend([
        ("group_tokens", integers(|cell| cell.0.tokens)),
        ("layer", integers(|cell| u64::from(cell.1))),
        ("expert", integers(|cell| cell.2)),
        ("load", integers(|cell| cell.3)),
    ]);
    columns
}

/// Writes the three tables of counts; of pairs and transitions those that occur.
pub(crate) fn write_counts(
    folder: &Path,
    manifest: &Manifest,
    report: &ExpertCountsReport,
) -> Result<(), Failure> {
    let e = report.experts;
    let low_high = || (0..e).flat_map(|low| (low + 1..e).map(move |high| (low, high)));
    let from_to = || (0..e).flat_map(|from| (0..e).map(move |to| (from, to)));
    let of = |names: [&'static str; 3], rows: Vec<[usize; 4]>| -> Columns {
        let column = |i: usize| NumberColumn::Integers(rows.iter().map(|row| row[i] as u64).collect());
        let names = ["layer", names[0], names[1], names[2]].into_iter().filter(|name| !name.is_empty());
        names.enumerate().map(|(i, name)| (name, column(i))).collect()
    };
    let each = |layer: u16, cells: Vec<(usize, usize)>, counts: &[u64]| -> Vec<[usize; 4]> {
        let row = |((a, b), &n): ((usize, usize), &u64)| [usize::from(layer), a, b, n as usize];
        cells.into_iter().zip(counts).filter(|(_, n)| **n > 0).map(row).collect()
    };
    let layers = &report.layers;
    let load = |l: &LayerCounts| {
        let layer = usize::from(l.layer);
        l.loads.iter().enumerate().map(move |(i, &n)| [layer, i, n as usize, 0]).collect::<Vec<_>>()
    };
    let loads = layers.iter().flat_map(load).collect();
    let pairs = layers.iter().flat_map(|l| each(l.layer, low_high().collect(), &l.pairs)).collect();
    let next = layers.iter().flat_map(|l| each(l.layer, from_to().collect(), &l.transitions)).collect();
    let tables = [
        ("loads".to_owned(), of(["expert", "load", ""], loads)),
        ("pair-counts".to_owned(), of(["expert_a", "expert_b", "both"], pairs)),
        ("transitions".to_owned(), of(["from", "to", "tokens"], next)),
    ];
    write_tables(folder, manifest, &tables)
}

fn write_tables(folder: &Path, manifest: &Manifest, tables: &[(String, Columns)]) -> Result<(), Failure> {
    let refused = |path: &Path, error: &std::io::Error| {
        let what = format!("cannot write {}: {error}", path.display());
        Failure::new(code::NO_OUTPUT, "E-IO", what, "choose another folder with --parquet DIR")
    };
    if let Some(run) = run_around(folder) {
        let what = format!("{} is among the files of the run {}", folder.display(), run.display());
        return Err(Failure::new(
            code::NO_OUTPUT,
            "E-FOREIGN",
            what,
            "choose another folder with --parquet DIR",
        ));
    }
    std::fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
    let settings = TraceSettings {
        metadata: [("plan_hash".to_owned(), manifest.plan_hash.clone())].into(),
        ..TraceSettings::default()
    };
    for (name, columns) in tables {
        let path = folder.join(format!("{name}.parquet"));
        let bytes = write_numbers(Vec::new(), columns, &settings).map_err(RunError::from)?;
        // A table that is read meanwhile is the old one or the new one, never half of one.
        let part = folder.join(format!("{name}.parquet.part"));
        std::fs::write(&part, &bytes)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|error| refused(&path, &error))?;
    }
    Ok(())
}

/// The run whose `data`, `samples`, `hidden`, `state` or `tmp` this folder is, or is below: whoever reads the run would
/// take tables there for its own.
fn run_around(folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    let folder = folder.canonicalize().unwrap_or(folder);
    let is_of_run = |part: &&Path| {
        let name = part.file_name().and_then(std::ffi::OsStr::to_str);
        name.is_some_and(|name| ["data", "samples", "hidden", "state", "tmp"].contains(&name))
            && part.parent().is_some_and(|run| RunFolder::new(run).has_manifest())
    };
    folder.ancestors().find(is_of_run)?.parent().map(Path::to_owned)
}

fn experts(report: &FullReport) -> Columns {
    let layers = &report.core.layers;
    let each = |value: fn(&LayerReport, usize) -> Option<f64>| {
        let of = |layer| (0..report.core.experts).map(move |expert| value(layer, expert));
        NumberColumn::Reals(layers.iter().flat_map(of).collect())
    };
    let ids = layers
        .iter()
        .flat_map(|l| (0..report.core.experts as u64).map(move |expert| (u64::from(l.layer), expert)));
    let (layer, expert): (Vec<u64>, Vec<u64>) = ids.unzip();
    vec![
        ("layer", NumberColumn::Integers(layer)),
        ("expert", NumberColumn::Integers(expert)),
        ("load", NumberColumn::Integers(layers.iter().flat_map(|l| l.loads.iter().copied()).collect())),
        ("token_ratio", each(|l, e| l.esft.token_ratio.get(e).copied())),
        ("gate_score", each(|l, e| l.esft.gate_score.as_ref()?.get(e).copied())),
        ("sample_token_ratio", each(|l, e| l.esft.sample_token_ratio.get(e).copied())),
        ("sample_gate_score", each(|l, e| l.esft.sample_gate_score.as_ref()?.get(e).copied())),
    ]
}

/// Without rows where the report has no table of pairs.
fn of_pairs(report: &FullReport) -> Columns {
    let names = ["layer", "expert_a", "expert_b", "both"];
    let mut integers: [Vec<u64>; 4] = Default::default();
    let measures = ["b_given_a", "a_given_b", "lift", "pmi_bits", "jaccard", "phi", "z"];
    let mut reals: [Vec<Option<f64>>; 7] = Default::default();
    for (layer, tokens) in
        report.coactivation.iter().flat_map(|c| c.layers.iter().map(move |l| (l, c.tokens)))
    {
        let experts = layer.loads.len();
        for (a, b) in (0..experts).flat_map(|a| (a + 1..experts).map(move |b| (a, b))) {
            let at = pairs::pair_index(experts, a as u16, b as u16);
            let Some(&both) = layer.pair_counts.get(at) else { continue };
            let (of_a, of_b) = (layer.loads[a], layer.loads[b]);
            let row = [u64::from(layer.layer), a as u64, b as u64, both];
            integers.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            let row = [
                Some(coactivation::conditional(both, of_a)),
                Some(coactivation::conditional(both, of_b)),
                Some(coactivation::lift(both, of_a, of_b, tokens)),
                coactivation::pmi_bits(both, of_a, of_b, tokens),
                Some(coactivation::jaccard(both, of_a, of_b)),
                Some(coactivation::phi(both, of_a, of_b, tokens)),
                layer.pair_z.get(at).copied().flatten().map(f64::from),
            ];
            reals.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
    }
    let integers = names.into_iter().zip(integers.map(NumberColumn::Integers));
    integers.chain(measures.into_iter().zip(reals.map(NumberColumn::Reals))).collect()
}

fn layers(report: &FullReport) -> Columns {
    let layers = &report.core.layers;
    let reals =
        |value: fn(&LayerReport) -> Option<f64>| NumberColumn::Reals(layers.iter().map(value).collect());
    let integers =
        |value: fn(&LayerReport) -> u64| NumberColumn::Integers(layers.iter().map(value).collect());
    let mut columns = vec![
        ("layer", integers(|l| u64::from(l.layer))),
        ("active_experts", integers(|l| l.active_experts)),
        ("unique_pairs", integers(|l| l.unique_pairs)),
        ("load_entropy_bits", reals(|l| Some(l.load_entropy_bits))),
        ("gate_entropy_bits", reals(|l| l.gate_entropy_bits)),
        ("chosen_entropy_bits", reals(|l| l.chosen_entropy_bits)),
        ("effective_experts", reals(|l| Some(l.effective_experts))),
        ("max_vio", reals(|l| Some(l.max_vio))),
        ("cv", reals(|l| Some(l.cv))),
        ("gini", reals(|l| Some(l.gini))),
        ("dataset_information_bits", reals(|l| Some(l.specialisation.as_ref()?.mutual_information_bits))),
        ("dataset_information_null_bits", reals(|l| Some(l.specialisation.as_ref()?.null_mean_bits))),
    ];
    if let Some(temporal) = &report.temporal {
        let reuse = temporal.layers.iter().map(|l| Some(l.reuse)).collect();
        columns.push(("reuse", NumberColumn::Reals(reuse)));
    }
    if let Some(coactivation) = &report.coactivation {
        let distinct = coactivation.layers.iter().map(|l| Some(l.sets.distinct)).collect();
        columns.push(("distinct_sets", NumberColumn::Reals(distinct)));
    }
    columns
}
