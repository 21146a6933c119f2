//! `cargo xtask setup` and `cargo xtask collect`: the commands a new user types.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::{cargo, debug_program, target_dir};

/// Takes the program that the tests use, for checks that have built it already; before all other arguments.
const UNOPTIMISED: &str = "--unoptimised";

/// Builds moetrace in release and has it check this machine; the exit code is moetrace's.
pub(crate) fn setup(args: &[String]) -> ExitCode {
    with_program(args, |program, args| {
        eprintln!("built {}; checking this machine with 'moetrace doctor'", program.display());
        let code = hand_on(program, "doctor", args)?;
        if code == 0 {
            // `--gpu` is of plan and doctor alone.
            let given: &[String] = if args.iter().any(|arg| arg.starts_with("--gpu")) { &[] } else { args };
            let collect = std::iter::once("cargo xtask collect").chain(given.iter().map(String::as_str));
            let collect = collect.collect::<Vec<_>>().join(" ");
            eprintln!("next: 'hf auth login' if a model or data set is gated, then: {collect}");
        }
        Ok(code)
    })
}

/// Builds moetrace in release and hands all arguments on; the exit code is moetrace's.
pub(crate) fn collect(args: &[String]) -> ExitCode {
    with_program(args, |program, args| hand_on(program, "collect", args))
}

fn with_program(args: &[String], run: impl FnOnce(&Path, &[String]) -> Result<u8>) -> ExitCode {
    let (program, args) = match args.split_first() {
        Some((first, rest)) if first == UNOPTIMISED => (debug_program(), rest),
        _ => (release_program(), args),
    };
    match program.and_then(|program| run(&program, args)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: cannot run moetrace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hand_on(program: &Path, command: &str, args: &[String]) -> Result<u8> {
    let status = Command::new(program).arg(command).args(args).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn release_program() -> Result<PathBuf> {
    eprintln!("building moetrace in release (the first time takes some minutes)");
    let built = cargo().args(["build", "--release", "--quiet", "--package", "moetrace"]).status()?;
    ensure!(built.success(), "moetrace did not build");
    Ok(target_dir().join("release").join(format!("moetrace{}", std::env::consts::EXE_SUFFIX)))
}
