//! `moetrace doctor`: is everything here that a collect needs?

use moetrace_run::ResolvedSetting;

use crate::args::PlanArgs;
use crate::doctor::{self, State};
use crate::failure::{Failure, code};
use crate::output;
use crate::show;

/// Prints a line for each check, and fails if anything that is needed is missing.
pub(crate) fn doctor(args: &PlanArgs, settings: Vec<ResolvedSetting>) -> Result<u8, Failure> {
    let checks = doctor::examine(args, settings);
    if args.collect.json {
        output::print_json(&show::examined(&checks))?;
    } else if !args.collect.quiet {
        output::print(&show::examination(&checks))?;
    }
    let failed: Vec<&str> =
        checks.iter().filter(|check| check.state == State::Fails).map(|check| check.id).collect();
    if failed.is_empty() {
        return Ok(0);
    }
    let what = format!("{} of {} checks fail: {}", failed.len(), checks.len(), failed.join(", "));
    Err(Failure::new(code::OTHER, "E-DOCTOR", what, "do what stands behind 'fix' of each, then run it again"))
}
