//! `cargo xtask kernels`: every GPU kernel compiled and assembled for every architecture, without a GPU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{debug_program, run, target_dir};

/// The compiler and the assembler. What else the second package names is not needed to assemble.
const PACKAGES: [&str; 2] = ["nvidia-cuda-nvrtc==13.0.88", "nvidia-cuda-nvcc==13.0.88"];

/// What the assembler says of one kernel on one architecture.
struct Usage {
    registers: u32,
    shared: u32,
    /// Bytes of local memory: a stack frame, spills.
    stack: u32,
    spilled: u32,
}

/// Makes a virtual environment with both, compiles by the crate's own code, assembles, and prints a table; fails if a
/// kernel keeps anything in local memory. The program that compiles is built, if none is given.
pub(crate) fn kernels(args: &[String]) -> Result<()> {
    let work = target_dir().join("kernels");
    let site_packages = environment(&work)?;
    let program = if let Some(given) = args.first() {
        PathBuf::from(given)
    } else {
        debug_program()?;
        target_dir().join("debug/examples").join(format!("kernels{}", std::env::consts::EXE_SUFFIX))
    };
    let out = work.join("ptx");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let compiled = Command::new(&program).arg(&out).arg(&site_packages).output();
    let compiled = compiled.with_context(|| format!("cannot run {}", program.display()))?;
    let words = String::from_utf8_lossy(&compiled.stderr);
    ensure!(compiled.status.success(), "{} ended with {}:\n{words}", program.display(), compiled.status);
    let assembler = site_packages.join("nvidia/cu13/bin/ptxas");
    let mut table: BTreeMap<String, BTreeMap<String, Usage>> = BTreeMap::new();
    let mut architectures = Vec::new();
    let lines = String::from_utf8(compiled.stdout)?;
    for line in lines.lines() {
        let [file, architecture, title] = line.split('\t').collect::<Vec<_>>()[..] else {
            bail!("three columns were expected: {line}");
        };
        if !architectures.contains(&architecture) {
            architectures.push(architecture);
        }
        let usage = assemble(&assembler, &out.join(file), architecture).with_context(|| title.to_owned())?;
        table.entry(title.to_owned()).or_default().insert(architecture.to_owned(), usage);
    }
    ensure!(!table.is_empty(), "no kernel was compiled");
    print(&table, &architectures)
}

/// The `site-packages` folder of an environment that holds the packages.
fn environment(work: &Path) -> Result<PathBuf> {
    let venv = work.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-deps"]).args(PACKAGES))?;
    let mut ask = Command::new(&python);
    let answer = ask.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).output()?;
    ensure!(answer.status.success(), "{ask:?} ended with {}", answer.status);
    Ok(PathBuf::from(String::from_utf8(answer.stdout)?.trim()))
}

/// Turns PTX into machine code, which is thrown away.
fn assemble(assembler: &Path, ptx: &Path, architecture: &str) -> Result<Usage> {
    let mut command = Command::new(assembler);
    command.args(["--verbose", "--gpu-name", architecture, "--output-file"]);
    let output = command.arg(ptx.with_extension("cubin")).arg(ptx).output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{words}", output.status);
    let number = |unit: &str| -> Option<u32> {
        let before = words.split(unit).next().filter(|before| before.len() < words.len())?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    let expected = |unit: &str| number(unit).with_context(|| format!("no number of{unit} in:\n{words}"));
    Ok(Usage {
        registers: expected(" registers")?,
        shared: number(" bytes smem").unwrap_or(0),
        stack: expected(" bytes stack frame")?,
        spilled: expected(" bytes spill stores")? + expected(" bytes spill loads")?,
    })
}

fn print(table: &BTreeMap<String, BTreeMap<String, Usage>>, architectures: &[&str]) -> Result<()> {
    let width = table.keys().map(String::len).max().unwrap_or(0);
    println!("registers, and bytes of shared memory");
    print!("{:width$}", "kernel");
    for architecture in architectures {
        print!("  {architecture:>10}");
    }
    println!();
    let mut wrong = Vec::new();
    for (title, usages) in table {
        print!("{title:width$}");
        for architecture in architectures {
            // Some kernels use instructions that only one architecture has.
            let Some(usage) = usages.get(*architecture) else {
                print!("  {:>10}", "-");
                continue;
            };
            print!("  {:>10}", format!("{} {:>5}", usage.registers, usage.shared));
            if usage.stack + usage.spilled > 0 {
                let (stack, spilled) = (usage.stack, usage.spilled);
                wrong
                    .push(format!("{title} on {architecture}: stack frame {stack}, spilled {spilled} bytes"));
            }
        }
        println!();
    }
    ensure!(wrong.is_empty(), "kernels that keep values in local memory:\n{}", wrong.join("\n"));
    println!("{} kernels on up to {} architectures, none in local memory", table.len(), architectures.len());
    Ok(())
}
