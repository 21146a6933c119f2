//! `cargo xtask interop`: the recipes of docs/trace-format.md, run by the readers they name; `interop nf4`: our 4-bit
//! checkpoints, loaded by the libraries that others use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{debug_program, root, run, target_dir};

/// What the runs record: everything there is, and as little as possible in several shards.
const RUNS: [(&str, &[&str]); 2] = [
    ("run", &["--traces", "60", "--router-logits", "--nll", "--hidden", "8"]),
    ("bare", &["--traces", "24", "--no-tokens", "--weights", "f32", "--shard-tokens", "600"]),
];

/// Makes a virtual environment with pinned readers, runs if none is given, and tries every recipe on each.
pub(crate) fn interop(args: &[String]) -> Result<()> {
    let work = target_dir().join("interop");
    std::fs::create_dir_all(&work)?;
    if args.first().is_some_and(|what| what == "nf4") {
        return four_bits(&work.join("nf4"));
    }
    let traces = match args.first() {
        Some(given) => vec![PathBuf::from(given)],
        None => small_runs(&work)?,
    };
    let generate = root().join("fixtures/generate");
    let python = environment(&work, &generate.join("requirements-interop.txt"))?;
    for trace in traces {
        let mut script = Command::new(&python);
        run(script.arg(generate.join("interop.py")).arg(trace).arg(root().join("docs/trace-format.md")))?;
    }
    Ok(())
}

/// Writes 4-bit checkpoints and loads them with bitsandbytes and transformers. Apart from the rest, since PyTorch
/// is gigabytes.
fn four_bits(work: &Path) -> Result<()> {
    std::fs::create_dir_all(work)?;
    let generate = root().join("fixtures/generate");
    let python = environment(work, &generate.join("requirements-nf4.txt"))?;
    run(Command::new(&python).arg(generate.join("interop_nf4.py")).arg(debug_program()?).arg(work))
}

/// Collects small runs of the embedded model.
fn small_runs(work: &Path) -> Result<Vec<PathBuf>> {
    let program = debug_program()?;
    let mut runs = Vec::new();
    for (name, options) in RUNS {
        let out = work.join(name);
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        run(Command::new(&program).args(["collect", "--quiet"]).args(options).arg("--out").arg(&out))?;
        runs.push(out);
    }
    Ok(runs)
}

fn environment(work: &Path, requirements: &Path) -> Result<PathBuf> {
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements))?;
    Ok(python)
}
