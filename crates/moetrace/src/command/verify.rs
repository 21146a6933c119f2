//! `moetrace verify`: is every row of a run what a run promises?

use moetrace_run::{Fault, FaultKind, RunFolder};

use crate::args::RunArgs;
use crate::failure::{Failure, code};
use crate::output;
use crate::show;

/// Reads every committed file, prints what is wrong, and fails if anything is.
pub(crate) fn verify(args: &RunArgs) -> Result<u8, Failure> {
    let run = args.run.display().to_string();
    let found = moetrace_run::verify(&RunFolder::new(&args.run))?;
    let open = found.shards - found.committed;
    if open > 0 {
        output::tell(format_args!(
            "note: {open} of {} shards are not committed; the run is not finished",
            found.shards
        ));
    }
    if args.json {
        output::print_json(&show::verified(&run, &found))?;
    } else {
        output::print(&show::verification(&run, &found))?;
    }
    let Some(first) = found.faults.first() else { return Ok(0) };
    let others = match found.faults.len() - 1 {
        0 => String::new(),
        1 => "; and one more kind of fault".to_owned(),
        n => format!("; and {n} more kinds of faults"),
    };
    let what = format!("{run} is faulty: {}: {}{others}", first.first, first.what);
    let help = format!("docs/messages.md says what each kind means; {}", remedy(&found.faults));
    Err(Failure::new(code::BAD_INPUT, "E-FAULTY", what, help))
}

/// What mends the run: what belongs to no shard, no shard done again removes.
fn remedy(faults: &[Fault]) -> &'static str {
    let all = |kinds: &[FaultKind]| faults.iter().all(|fault| kinds.contains(&fault.kind));
    if all(&[FaultKind::Stray]) {
        "move the file out of the run folder"
    } else if all(&[FaultKind::Summary, FaultKind::Vocabulary]) {
        "remove summary.json and tokens.parquet; the same collect or import writes them again"
    } else {
        "the same collect or import with --repair does damaged shards again"
    }
}
