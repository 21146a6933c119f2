//! In: a task's name and its arguments.
//! Out: cargo, moetrace or Python run as the task needs; exit status of what was run.
//! Holds: the tasks of this repository, and the checks of its house rules.
//! Not here: any code of moetrace; this program links none of it.

mod bench;
mod emulate;
mod faults;
mod fuzz;
mod interop;
mod kernels;
mod program;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "\
usage: cargo xtask TASK [ARGUMENTS]

  setup [ARGS]      build moetrace in release and check this machine: `moetrace doctor ARGS`
  collect [ARGS]    build moetrace in release and run `moetrace collect ARGS`
  tidy              check layers, sizes, code map, fixtures, lints and headings
  interop [RUN]     read a run with DuckDB, polars, pandas and datasets, as docs/trace-format.md says
  kernels [PROG]    compile and assemble every GPU kernel for every architecture; fails on spills (no GPU needed)
  emulate           run the portable grouped product on the CPU against sums in f64 (no GPU, but a C++20 compiler)
  bench [FLAGS]     measure every GPU operation and whole passes; writes docs/benchmarks/GPU.md
                    --model DIR, --tier NAME, --peer NAME=COMMAND (any number), --out FILE, --date DATE;
                    --from results.txt takes what package-gpu's run.sh measured elsewhere
  package-gpu OUT   GPU tests, bench, program and reference runs for a GPU machine without Rust
  faults [N]        kill a run N times (default 50) at random and resume it; compare with an unbroken run
  fuzz [S] [SEED]   mutated files through every reader, S seconds each (default 20)";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = match task.as_str() {
        "setup" => return program::setup(&rest),
        "collect" => return program::collect(&rest),
        "tidy" => tidy::tidy(),
        "interop" => interop::interop(&rest),
        "kernels" => kernels::kernels(&rest),
        "emulate" => emulate::emulate(),
        "bench" => bench::bench(&rest),
        "package-gpu" => bench::package(&rest),
        "fuzz" => fuzz::fuzz(&rest),
        "faults" => faults::faults(&rest),
        "" | "help" | "-h" | "--help" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("error: no task is called {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// Runs a command to its end; anything but success is an error.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// The cargo that runs this task.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The unoptimised program as `cargo test --workspace` builds it: the same features, so nothing is built twice.
fn debug_program() -> Result<PathBuf> {
    run(cargo().args(["test", "--workspace", "--no-run", "--quiet"]))?;
    Ok(target_dir().join("debug").join(format!("moetrace{}", std::env::consts::EXE_SUFFIX)))
}

/// Where cargo puts what it builds.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// SHA-256 in lower-case hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
