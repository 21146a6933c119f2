//! `moetrace metrics`: the numbers of runs, counted from their files.

mod counts;
mod esft;
mod tables;

use std::path::Path;

use moetrace_metrics::{FullReport, GroupBy, MetricsFamilies, MetricsSettings};
use moetrace_run::{Manifest, ReplayHow, RunFolder, Trust, replay_families, texts_hash};

use crate::args::{GroupByArg, MetricsArgs};
use crate::failure::{Failure, code};
use crate::output;
use crate::show::{self, Counted};

/// Replays every committed shard and prints the report; of several runs what tells them apart.
pub(crate) fn metrics(args: &MetricsArgs) -> Result<u8, Failure> {
    if let [run] = args.runs.as_slice() {
        return match args.esft {
            _ if args.counts => counts::counts(args, run),
            Some(part) => esft::esft(args, run, part),
            None => one(args, run),
        };
    }
    only_of_one(args)?;
    let mut counted = Vec::new();
    for run in &args.runs {
        let (manifest, committed, report) = count(args, run)?;
        let texts_hash = texts_hash(&RunFolder::new(run), &manifest)?;
        counted.push(Counted { run: run.display().to_string(), manifest, texts_hash, committed, report });
    }
    if args.json {
        output::print_json(&show::models_json(&counted))?;
    } else {
        output::print(&show::models(&counted))?;
    }
    Ok(0)
}

/// Refuses what is for one run alone, beside several.
fn only_of_one(args: &MetricsArgs) -> Result<(), Failure> {
    let given = [
        ("--esft", "--esft 0.1", args.esft.is_some()),
        ("--by", "--by dataset", !args.by.is_empty()),
        ("--counts", "--counts", args.counts),
        ("--parquet", "--parquet DIR", args.parquet.is_some()),
    ];
    let Some((flag, example, _)) = given.into_iter().find(|(_, _, is_given)| *is_given) else {
        return Ok(());
    };
    let help = format!("name one run: {} metrics {} {example}", show::program(), args.runs[0].display());
    Err(Failure::new(code::USAGE, "E-USAGE", format!("{flag} is for one run"), help))
}

fn one(args: &MetricsArgs, run: &Path) -> Result<u8, Failure> {
    let (manifest, _, report) = count(args, run)?;
    if let Some(folder) = &args.parquet {
        let by: Vec<GroupBy> = args.by.iter().map(|by| by.of()).collect();
        tables::write(folder, &manifest, &report, &by)?;
    }
    if args.json {
        output::print_json(&report)?;
        return Ok(0);
    }
    output::print(&show::layers(&report.core))?;
    for groups in report.groups.iter().filter(|groups| args.by.iter().any(|by| by.of() == groups.by)) {
        output::print(&show::groups(groups))?;
    }
    output::print(&show::summary(&report.core))?;
    output::print(&show::families(&report))?;
    Ok(0)
}

/// The report, and how many shards it is of.
fn count(args: &MetricsArgs, run: &Path) -> Result<(Manifest, usize, FullReport), Failure> {
    let Replay { folder, manifest, settings, how } = Replay::new(args, run)?;
    let core = args.core || args.esft.is_some();
    let families = if core {
        MetricsFamilies::default()
    } else {
        MetricsFamilies { contexts: true, ..MetricsFamilies::of_routing() }
    };
    let (metrics, committed) = replay_families(&folder, &manifest, &settings, &families, !core, &how)?;
    tell_if_parted(args, run, &manifest, committed);
    Ok((manifest, committed, metrics.report()))
}

/// What is counted, and how.
struct Replay {
    folder: RunFolder,
    manifest: Manifest,
    settings: MetricsSettings,
    how: ReplayHow<'static>,
}

impl Replay {
    fn new(args: &MetricsArgs, run: &Path) -> Result<Self, Failure> {
        let folder = RunFolder::new(run);
        let manifest = folder.manifest()?;
        let settings = MetricsSettings { include_bos: args.include_bos, seed: manifest.seed() };
        let trust = if args.trust { Trust::Sizes } else { Trust::Nothing };
        let machine = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let how = ReplayHow { trust, threads: args.threads.unwrap_or(machine), on_shard: None };
        Ok(Self { folder, manifest, settings, how })
    }
}

fn tell_if_parted(args: &MetricsArgs, run: &Path, manifest: &Manifest, committed: usize) {
    let of = manifest.shards.len();
    if committed < of {
        let text = format!("note: {committed} of {of} shards are committed; the numbers are of those");
        output::tell(if args.runs.len() > 1 { format!("{text} ({})", run.display()) } else { text });
    }
}

impl GroupByArg {
    fn of(self) -> GroupBy {
        match self {
            Self::Dataset => GroupBy::Dataset,
            Self::Label => GroupBy::Label,
            Self::Position => GroupBy::Position,
        }
    }
}
