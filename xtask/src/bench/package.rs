//! `cargo xtask package-gpu OUT`: what tests and measures on a GPU machine that has no Rust.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::provenance;
use crate::{cargo, root};

/// What all of it should fit in, to be copied with ease.
const MOST_BYTES: u64 = 64 << 20;
/// What is built, by the folder of its package and its target's name, and what it is called there.
const PROGRAMS: [(&str, &str, &str, &str); 3] = [
    ("crates/moetrace-model", "test", "gpu", "gpu-tests"),
    ("benches", "bench", "gpu", "gpu-bench"),
    ("crates/moetrace", "bin", "moetrace", "moetrace"),
];

/// Builds all programs in release, and puts them, the reference runs and a script into a folder.
pub(crate) fn package(args: &[String]) -> Result<()> {
    let [out] = args else { anyhow::bail!("expected one folder: cargo xtask package-gpu OUT") };
    let out = Path::new(out);
    std::fs::create_dir_all(out)?;
    let mut build = cargo();
    build.args(["build", "--release", "--workspace", "--bin", "moetrace", "--test", "gpu", "--bench", "gpu"]);
    let built = build.args(["--message-format", "json"]).stderr(Stdio::inherit()).output()?;
    ensure!(built.status.success(), "{build:?} ended with {}", built.status);
    let messages = String::from_utf8(built.stdout)?;
    for (folder, kind, target, name) in PROGRAMS {
        let program = messages.lines().find_map(|message| executable(message, (folder, kind, target)));
        let program = program.with_context(|| format!("cargo built no {kind} {target} of {folder}"))?;
        let to = out.join(name);
        std::fs::copy(&program, &to).with_context(|| format!("copying {}", program.display()))?;
        let stripped = Command::new("strip").arg(&to).status();
        if !stripped.is_ok_and(|status| status.success()) {
            eprintln!("{name} is not stripped: there is no working `strip`");
        }
    }
    copy_folder(&root().join("fixtures/parity"), &out.join("fixtures/parity"))?;
    let mut lines = String::new();
    for line in provenance()?.lines() {
        let _ = writeln!(lines, "printf '%s\\n' '{line}' >> results.txt");
    }
    let script = out.join("run.sh");
    std::fs::write(&script, include_str!("run.sh").replace("# PROVENANCE\n", &lines))?;
    make_executable(&script)?;
    let bytes = size(out)?;
    println!(
        "{}: {:.1} MB; there: ./run.sh, here: cargo xtask bench --from results.txt",
        out.display(),
        bytes as f64 / 1e6
    );
    if bytes > MOST_BYTES {
        println!("that is more than {} MiB", MOST_BYTES >> 20);
    }
    Ok(())
}

/// The program that a message of cargo's is about, if it is of this package, kind and target.
fn executable(message: &str, (folder, kind, target): (&str, &str, &str)) -> Option<PathBuf> {
    let has = |words: String| message.contains(&words);
    let wanted = has(format!("/{folder}#"))
        && has(format!("\"kind\":[\"{kind}\"]"))
        && has(format!("\"name\":\"{target}\""));
    let (_, path) = message.split_once("\"executable\":\"").filter(|_| wanted)?;
    Some(path.split_once('"')?.0.into())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.path().is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_what_cargo_says() {
        let message = r#"{"reason":"compiler-artifact","package_id":"path+file:///r/crates/moetrace-cuda#0.1.0","target":{"kind":["test"],"crate_types":["bin"],"name":"gpu"},"executable":"/t/gpu-06","fresh":true}"#;
        let found = executable(message, ("crates/moetrace-cuda", "test", "gpu"));
        assert_eq!(found.as_deref(), Some(Path::new("/t/gpu-06")));
        assert_eq!(executable(message, ("crates/moetrace-model", "test", "gpu")), None);
        assert_eq!(executable(message, ("crates/moetrace-cuda", "bench", "gpu")), None);
    }
}
