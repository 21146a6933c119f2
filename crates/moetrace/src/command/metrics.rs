//! `moetrace metrics`: the numbers of runs, counted from their files.

mod counts;
mod esft;
mod tables;

use std::path::Path;

use moetrace_metrics::{FullReport, GroupBy, MetricsFamilies, MetricsSettings};
use moetrace_run::{Manifest, ReplayHow, RunFolder, Trust, replay_families};

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
    if args.esft.is_some() {
        let help = format!("name one run: {} metrics {} --esft 0.1", show::program(), args.runs[0].display());
        return Err(Failure::new(code::USAGE, "E-USAGE", "--esft is for one run", help));
    }
    if !args.by.is_empty() {
        let help =
            format!("name one run: {} metrics {} --by dataset", show::program(), args.runs[0].display());
        return Err(Failure::new(code::USAGE, "E-USAGE", "--by is for one run", help));
    }
    if args.counts {
        let help = format!("name one run: {} metrics {} --counts", show::program(), args.runs[0].display());
        return Err(Failure::new(code::USAGE, "E-USAGE", "--counts is for one run", help));
    }
    if args.parquet.is_some() {
        let help =
            format!("name one run: {} metrics {} --parquet DIR", show::program(), args.runs[0].display());
        return Err(Failure::new(code::USAGE, "E-USAGE", "--parquet is for one run", help));
    }
    let mut counted = Vec::new();
    for run in &args.runs {
        let (manifest, report) = count(args, run)?;
        counted.push(Counted { run: run.display().to_string(), manifest, report });
    }
    if args.json {
        output::print_json(&show::models_json(&counted))?;
    } else {
        output::print(&show::models(&counted))?;
    }
    Ok(0)
}

fn one(args: &MetricsArgs, run: &Path) -> Result<u8, Failure> {
    let (manifest, report) = count(args, run)?;
    if let Some(folder) = &args.parquet {
        tables::write(folder, &manifest, &report)?;
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

fn count(args: &MetricsArgs, run: &Path) -> Result<(Manifest, FullReport), Failure> {
    let Replay { folder, manifest, settings, how } = Replay::new(args, run)?;
    let core = args.core || args.esft.is_some();
    let families = if core {
        MetricsFamilies::default()
    } else {
        MetricsFamilies { contexts: true, ..MetricsFamilies::of_routing() }
    };
    let (metrics, committed) = replay_families(&folder, &manifest, &settings, &families, !core, &how)?;
    tell_if_parted(args, run, &manifest, committed);
    Ok((manifest, metrics.report()))
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
        let seed = manifest.identity.get("seed").and_then(|s| s.parse().ok()).unwrap_or(0);
        let settings = MetricsSettings { include_bos: args.include_bos, seed };
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
