//! `--counts`: integers, at the speed of reading.

use std::path::Path;

use moetrace_metrics::{LayerCounts, MetricsError};
use moetrace_run::{RunError, replay_counts};

use super::{Replay, tables, tell_if_parted};
use crate::args::MetricsArgs;
use crate::failure::{Failure, code};
use crate::{output, show};

/// Counts loads, pairs and transitions of every committed shard, writes them and prints them, or how many there are.
pub(super) fn counts(args: &MetricsArgs, run: &Path) -> Result<u8, Failure> {
    let Replay { folder, manifest, settings, how } = Replay::new(args, run)?;
    let counted = replay_counts(&folder, &manifest, &settings, &how);
    let (counts, committed) = counted.map_err(|error| match error {
        RunError::Metrics(error @ MetricsError::ManyExperts { .. }) => {
            let help = format!("leave --counts out: {} metrics {}", show::program(), run.display());
            Failure::new(code::USAGE, "E-USAGE", error.to_string(), help)
        }
        error => error.into(),
    })?;
    tell_if_parted(args, run, &manifest, committed);
    let report = counts.report();
    if let Some(folder) = &args.parquet {
        tables::write_counts(folder, &manifest, &report)?;
    }
    if args.json {
        output::print_json(&report)?;
        return Ok(0);
    }
    let seen = |table: fn(&LayerCounts) -> &Vec<u64>| {
        let cells = report.layers.iter().flat_map(table).filter(|&&n| n > 0);
        show::thousands(cells.count() as u64)
    };
    output::print(&format!(
        "{} tokens of {} texts ({} beginning-of-sequence tokens left out), {} layers, {} of {} experts a token\n\
         above zero: {} loads, {} pairs, {} transitions; --json prints them, --parquet DIR writes them\n",
        show::thousands(report.tokens),
        show::thousands(report.samples),
        show::thousands(report.bos_excluded),
        report.layers.len(),
        report.chosen,
        report.experts,
        seen(|l| &l.loads),
        seen(|l| &l.pairs),
        seen(|l| &l.transitions),
    ))?;
    Ok(0)
}
