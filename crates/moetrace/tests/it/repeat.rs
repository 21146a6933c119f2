//! The same command gives the same bytes, and twice in one folder is once.

use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use crate::program::{assert_same_tables, succeeds, tables};

#[test]
fn the_same_command_twice_writes_identical_files_whatever_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--router-logits", "--nll", "--hidden", "8", "--shard-tokens", "512"];
    for name in ["a", "b"] {
        let out = dir.path().join(name).display().to_string();
        succeeds(&[&["collect", "--quiet", "--traces", "12", "--out", &out], &more[..]].concat());
    }
    assert_same_tables(&dir.path().join("a"), &dir.path().join("b"));
    for name in ["manifest.json", "summary.json", "README.md"] {
        let read = |run: &str| std::fs::read_to_string(dir.path().join(run).join(name)).unwrap();
        // The manifest records --out, in which the two differ.
        assert_eq!(read("a").replace("/a\"", "/b\""), read("b"), "{name}");
    }
}

#[test]
fn optional_columns_do_not_depend_on_how_passes_are_cut_either() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--router-logits", "--nll", "--hidden", "8", "--precision", "f32", "--weights", "f32"];
    for (name, pass) in [("a", "100"), ("b", "100000")] {
        let out = dir.path().join(name).display().to_string();
        let args = ["collect", "--quiet", "--traces", "12", "--tokens-per-pass", pass, "--out", &out];
        succeeds(&[&args[..], &more[..]].concat());
    }
    assert_same_tables(&dir.path().join("a"), &dir.path().join("b"));
}

/// When each shard's files were written.
fn times(run: &Path) -> Vec<(String, SystemTime)> {
    let shards = tables(run).into_keys().filter(|name| name.components().count() > 1);
    shards
        .map(|name| {
            let time = std::fs::metadata(run.join(&name)).unwrap().modified().unwrap();
            (name.display().to_string(), time)
        })
        .collect()
}

#[test]
fn a_second_call_writes_no_shard_and_prints_the_same_summary() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = ["collect", "--traces", "12", "--out", out.to_str().unwrap()];
    let (first, written) = (succeeds(&args), times(&out));
    let second = succeeds(&args);
    assert_eq!(first.replace("6 written now", "0 written now"), second);
    assert_eq!(times(&out), written);
    let metrics = succeeds(&["metrics", out.to_str().unwrap()]);
    let block = first.split("\n\n").next().unwrap();
    assert!(metrics.contains(block), "{metrics}\ndoes not hold\n{block}");
}

#[test]
fn some_shards_point_to_status_and_the_last_ones_complete_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (out, whole) = (dir.path().join("run"), dir.path().join("whole"));
    let collect = |out: &Path, more: &[&str]| {
        succeeds(&[&["collect", "--traces", "12", "--out", out.to_str().unwrap()], more].concat())
    };
    collect(&whole, &[]);
    let text = collect(&out, &["--shards", "0..2"]);
    assert!(
        text.contains("2 of 6 shards committed, 2 written now") && text.contains("moetrace status"),
        "{text}"
    );
    assert!(!out.join("summary.json").exists());
    let partial = succeeds(&["metrics", "--json", out.to_str().unwrap()]);
    assert_eq!(serde_json::from_str::<Value>(&partial).unwrap()["samples"], 4);
    let text = collect(&out, &["--shards", "2..6"]);
    assert!(
        text.contains("6 of 6 shards committed, 4 written now") && text.contains("moetrace metrics"),
        "{text}"
    );
    assert_same_tables(&out, &whole);
    let read = |run: &Path| std::fs::read(run.join("summary.json")).unwrap();
    assert!(read(&out) == read(&whole), "summary.json differs");
}

#[test]
fn bos_tokens_are_counted_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    succeeds(&["collect", "--quiet", "--traces", "6", "--out", &out]);
    let report = |more: &[&str]| -> Value {
        serde_json::from_str(&succeeds(&[&["metrics", "--json", &out], more].concat())).unwrap()
    };
    let (without, with) = (report(&[]), report(&["--include-bos"]));
    assert_eq!((without["bos_excluded"].as_u64(), with["bos_excluded"].as_u64()), (Some(6), Some(0)));
    assert_eq!(without["tokens"].as_u64().unwrap() + 6, with["tokens"].as_u64().unwrap());
    let loads = |r: &Value| -> u64 {
        r["layers"][0]["loads"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum()
    };
    assert_eq!(loads(&with) - loads(&without), 6 * 6, "six experts for each of six tokens");
}
