//! `moetrace compare`: how often one run routed like another, over the same tokens.

use moetrace_metrics::fidelity::FidelitySettings;
use moetrace_run::{RunFolder, Trust};

use crate::args::CompareArgs;
use crate::failure::Failure;
use crate::output;
use crate::show;

/// Walks through both runs and prints the report.
pub(crate) fn compare(args: &CompareArgs) -> Result<u8, Failure> {
    let (a, b) = (RunFolder::new(&args.reference), RunFolder::new(&args.other));
    let settings = FidelitySettings { include_bos: args.include_bos };
    let trust = if args.trust { Trust::Sizes } else { Trust::Nothing };
    let comparison = moetrace_run::compare(&a, &b, settings, trust)?;
    let (a, b) = (args.reference.display().to_string(), args.other.display().to_string());
    for note in show::not_compared(&a, &b, &comparison) {
        output::tell(format_args!("note: {note}"));
    }
    if args.json {
        output::print_json(&show::compared(&a, &b, &comparison))?;
    } else {
        output::print(&show::comparison(&a, &b, &comparison))?;
    }
    Ok(0)
}
