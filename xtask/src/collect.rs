//! `cargo xtask collect`: the one command a new user types.

use std::process::{Command, ExitCode};

use crate::{cargo, target_dir};

/// Builds moetrace in release and hands all arguments on; the exit code is moetrace's.
pub(crate) fn collect(args: &[String]) -> ExitCode {
    eprintln!("building moetrace in release (the first time takes some minutes)");
    let built = cargo().args(["build", "--release", "--quiet", "--package", "moetrace"]).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("error: moetrace did not build");
        return ExitCode::FAILURE;
    }
    let program = target_dir().join("release").join(format!("moetrace{}", std::env::consts::EXE_SUFFIX));
    match Command::new(&program).arg("collect").args(args).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: cannot run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
