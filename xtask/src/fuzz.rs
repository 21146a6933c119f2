//! `cargo xtask fuzz`: mutated files through every reader, with a limit on memory.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cargo, run, target_dir};

/// Address space of the fuzzed process in KiB: a length field that is believed must not go unnoticed.
const MEMORY_KIB: u64 = 4 << 20;

/// Runs every target for `args[0]` seconds (default 20), beginning at seed `args[1]` (default 1), or only the
/// target `args[2]`.
pub(crate) fn fuzz(args: &[String]) -> Result<()> {
    let seconds: u64 = args.first().map_or(Ok(20), |n| n.parse()).context("expected a number of seconds")?;
    let seed: u64 = args.get(1).map_or(Ok(1), |n| n.parse()).context("expected a seed")?;
    run(cargo().args(["build", "--release", "--quiet", "--package", "benches", "--example", "fuzz"]))?;
    let program = target_dir().join("release/examples/fuzz");
    let limited = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
    let mut fuzz = Command::new("sh");
    fuzz.args(["-c", &limited]).arg(program).args([seconds.to_string(), seed.to_string()]).args(args.get(2));
    run(&mut fuzz)
}
