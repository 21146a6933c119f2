//! Starts the program with a cache of the tests' own and no setting from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program on the processor, ready for arguments.
pub(crate) fn moetrace() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moetrace"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MOETRACE_") {
            command.env_remove(name);
        }
    }
    // What these tests compare is the processor's, whatever machine they run on.
    command.env("MOETRACE_DEVICE", "cpu");
    command.env("MOETRACE_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    moetrace().args(args).output().unwrap()
}

/// Standard output of a call that must succeed.
pub(crate) fn succeeds(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and standard error of a call that must fail.
pub(crate) fn fails(args: &[&str]) -> (i32, String) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code().unwrap();
    assert_ne!(code, 0, "{args:?} succeeded: {stderr}");
    assert!(!stderr.contains("E-INTERNAL"), "{args:?}: {stderr}");
    (code, stderr)
}

/// Every Parquet file below a run folder by its name.
pub(crate) fn tables(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["", "data", "samples", "hidden"] {
        let Ok(entries) = std::fs::read_dir(run.join(folder)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "parquet") {
                found.insert(path.strip_prefix(run).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Fails with the name of the first file that differs, not with its bytes.
pub(crate) fn assert_same_tables(a: &Path, b: &Path) {
    let (a, b) = (tables(a), tables(b));
    assert!(!a.is_empty());
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{} differs", name.display());
    }
}

/// Exit code and standard error of a call, whatever the outcome.
pub(crate) fn ends(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("E-INTERNAL") && !stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), stderr)
}

/// Writes a few texts of different lengths and says how `--dataset` takes them.
pub(crate) fn texts(dir: &Path) -> String {
    let river = "The river bends twice before it reaches the mill, and twice again behind it.";
    let lines: Vec<String> =
        (1..=6).map(|n| serde_json::json!({ "text": vec![river; n].join(" ") }).to_string()).collect();
    let path = dir.join("river.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    format!("river={}", path.display())
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
