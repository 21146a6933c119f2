//! Standard output that ends early or takes nothing.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;

use crate::program::{moetrace, succeeds};

/// Commands that print, on a run that is there.
fn printing(run: &str) -> Vec<Vec<String>> {
    let collect = ["--traces", "6", "--out", run];
    let mut all: Vec<Vec<&str>> = vec![
        vec!["metrics", run],
        vec!["metrics", "--json", run],
        vec!["status", run],
        vec!["compare", run, run],
        vec!["compare", "--json", run, run],
        vec!["inspect", "--rows", "100000", run],
        vec!["inspect", "--json", run],
        vec!["completions", "bash"],
    ];
    all.push([&["plan", "--json"], &collect[..]].concat());
    all.push([&["collect"], &collect[..]].concat());
    all.into_iter().map(|args| args.into_iter().map(str::to_owned).collect()).collect()
}

fn run_in(dir: &Path) -> String {
    let run = dir.join("run").display().to_string();
    succeeds(&["collect", "--quiet", "--traces", "6", "--out", &run]);
    run
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_in(dir.path());
    for args in printing(&run) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = moetrace().args(&args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("E-"), "{args:?}: {stderr}");
    }
}

#[test]
fn an_output_that_takes_nothing_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_in(dir.path());
    for args in printing(&run) {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = moetrace().args(&args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(74), "{args:?}: {stderr}");
        assert!(stderr.contains("E-STDOUT") && stderr.contains("No space left"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_next_command_with_a_blank_in_its_path_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("my run");
    let text = succeeds(&["collect", "--traces", "6", "--out", out.to_str().unwrap()]);
    let next = text.lines().find(|l| l.starts_with("next: ")).unwrap();
    assert!(next.ends_with("/my run'") && next.contains(" '/"), "{next}");
    assert!(succeeds(&["inspect", out.to_str().unwrap()]).contains("first rows of"));
}

#[test]
fn inspect_shows_provenance_columns_and_rows_and_as_json_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_in(dir.path());
    let text = succeeds(&["inspect", "--rows", "2", &run]);
    for part in [
        "moetrace-tiny (deepseek)",
        "6 of 64 experts in 3 layers (1 to 3)",
        "experts_01, weights_01",
        "first rows of",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&succeeds(&["inspect", "--json", "--rows", "2", &run])).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 2);
    assert_eq!(json["rows"][0]["layers"].as_array().unwrap().len(), 3);
    assert_eq!(json["manifest"]["geometry"]["experts"], 64);
    let status: serde_json::Value = serde_json::from_str(&succeeds(&["status", "--json", &run])).unwrap();
    assert_eq!((&status["committed"], &status["tokens"]), (&6.into(), &status["planned_tokens"]));
}

#[test]
fn nobody_reading_the_words_changes_neither_the_work_nor_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    for (i, full) in [true, false].into_iter().enumerate() {
        let out = dir.path().join(i.to_string());
        let stderr = || -> Stdio {
            if full {
                return OpenOptions::new().write(true).open("/dev/full").unwrap().into();
            }
            std::io::pipe().unwrap().1.into()
        };
        let collect =
            moetrace().args(["collect", "--traces", "6", "--out"]).arg(&out).stderr(stderr()).output();
        assert_eq!(collect.unwrap().status.code(), Some(0));
        assert!(out.join("summary.json").exists());
        let fails = moetrace().args(["status", "none"]).stderr(stderr()).output();
        assert_eq!(fails.unwrap().status.code(), Some(66));
    }
}

#[test]
fn names_from_outside_reach_a_terminal_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model");
    let model = dir.path().join("red\u{1b}[31m\u{9b}2J\nmodel");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures.join(name), model.join(name)).unwrap();
    }
    let out = dir.path().join("run").display().to_string();
    let collect = ["--traces", "6", "--out", &out, "--model", model.to_str().unwrap()];
    let plain = |args: &[&str]| {
        let output = moetrace().args(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {text:?}");
        text
    };
    let text = plain(&[&["plan"], &collect[..]].concat());
    assert!(text.contains("model     red\\u{1b}[31m\\u{9b}2J\\nmodel (deepseek)"), "{text}");
    plain(&[&["collect"], &collect[..]].concat());
    for args in [["inspect", &out], ["status", &out], ["metrics", &out]] {
        plain(&args);
    }
    // JSON says the same characters in its own way.
    let json = plain(&["inspect", "--json", &out]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["manifest"]["model"]["name"], "red\u{1b}[31m\u{9b}2J\nmodel");
    // A manifest of others, whose shards are named as they like.
    let manifest = Path::new(&out).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("code-00000", "code\\u001b[2J-00000")).unwrap();
    assert!(plain(&["status", &out]).contains("code\\u{1b}[2J-00000"));
}
