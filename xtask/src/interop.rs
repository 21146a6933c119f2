//! `cargo xtask interop`: the recipes of docs/trace-format.md, run by the readers they name.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{debug_program, root, run, target_dir};

/// Makes a virtual environment with pinned readers, a run if none is given, and tries every recipe on it.
pub(crate) fn interop(args: &[String]) -> Result<()> {
    let work = target_dir().join("interop");
    std::fs::create_dir_all(&work)?;
    let trace = match args.first() {
        Some(given) => PathBuf::from(given),
        None => small_run(&work)?,
    };
    let generate = root().join("fixtures/generate");
    let python = environment(&work, &generate.join("requirements-interop.txt"))?;
    let script = generate.join("interop.py");
    run(Command::new(python).arg(script).arg(trace).arg(root().join("docs/trace-format.md")))
}

/// Collects a small run of the embedded model with the optional columns.
fn small_run(work: &std::path::Path) -> Result<PathBuf> {
    let out = work.join("run");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let options = ["--traces", "60", "--router-logits", "--nll", "--hidden", "8"];
    let mut collect = Command::new(debug_program()?);
    run(collect.args(["collect", "--quiet"]).args(options).arg("--out").arg(&out))?;
    Ok(out)
}

fn environment(work: &std::path::Path, requirements: &std::path::Path) -> Result<PathBuf> {
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements))?;
    Ok(python)
}
