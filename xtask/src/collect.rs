//! `cargo xtask collect`: the one command a new user types.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::{cargo, debug_program, target_dir};

/// Takes the program that the tests use, for checks that have built it already; before all other arguments.
const UNOPTIMISED: &str = "--unoptimised";

/// Builds moetrace in release and hands all arguments on; the exit code is moetrace's.
pub(crate) fn collect(args: &[String]) -> ExitCode {
    let (program, args) = match args.split_first() {
        Some((first, rest)) if first == UNOPTIMISED => (debug_program(), rest),
        _ => (release_program(), args),
    };
    let status = program.and_then(|program| Ok(Command::new(&program).arg("collect").args(args).status()?));
    match status {
        Ok(status) => ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: cannot run moetrace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn release_program() -> Result<PathBuf> {
    eprintln!("building moetrace in release (the first time takes some minutes)");
    let built = cargo().args(["build", "--release", "--quiet", "--package", "moetrace"]).status()?;
    ensure!(built.success(), "moetrace did not build");
    Ok(target_dir().join("release").join(format!("moetrace{}", std::env::consts::EXE_SUFFIX)))
}
