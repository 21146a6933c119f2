//! `moetrace metrics`: the numbers of a run, counted from its files.

use moetrace_metrics::MetricsSettings;
use moetrace_run::{RunFolder, Trust, replay};

use crate::args::MetricsArgs;
use crate::failure::Failure;
use crate::output;
use crate::show;

/// Replays every committed shard and prints the report.
pub(crate) fn metrics(args: &MetricsArgs) -> Result<u8, Failure> {
    let folder = RunFolder::new(&args.run);
    let manifest = folder.manifest()?;
    let seed = manifest.identity.get("seed").and_then(|s| s.parse().ok()).unwrap_or(0);
    let settings = MetricsSettings { include_bos: args.include_bos, seed };
    let trust = if args.trust { Trust::Sizes } else { Trust::Nothing };
    let (metrics, committed) = replay(&folder, &manifest, &settings, trust)?;
    let of = manifest.shards.len();
    if committed < of {
        output::tell(format_args!(
            "note: {committed} of {of} shards are committed; the numbers are of those"
        ));
    }
    let report = metrics.report();
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&show::layers(&report))?;
        output::print(&show::summary(&report))?;
    }
    Ok(0)
}
