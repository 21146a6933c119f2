//! `moetrace status`: how far a run is.

use moetrace_run::RunFolder;

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::output;
use crate::show;

/// Prints each shard's state; exits with 0 whatever it is.
pub(crate) fn status(args: &RunArgs) -> Result<u8, Failure> {
    let folder = RunFolder::new(&args.run);
    let manifest = folder.manifest()?;
    let status = moetrace_run::status(&folder, &manifest);
    if args.json {
        output::print_json(&status)?;
    } else {
        output::print(&show::status(&args.run.display().to_string(), &status))?;
    }
    Ok(0)
}
