//! `moetrace metrics` by the real program: families, groups, tables, several runs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{fails, succeeds};

fn collect(dir: &Path, name: &str, more: &[&str]) -> PathBuf {
    let out = dir.join(name);
    let args = ["collect", "--quiet", "--traces", "12", "--out", out.to_str().unwrap()];
    succeeds(&[&args[..], more].concat());
    out
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[&["metrics", "--json"], args].concat())).unwrap()
}

#[test]
fn every_family_is_counted_the_same_with_any_number_of_threads_and_any_shards() {
    let dir = tempfile::tempdir().unwrap();
    let whole = collect(dir.path(), "whole", &[]);
    let cut = collect(dir.path(), "cut", &["--shard-tokens", "300"]);
    let of = |run: &Path, threads| json(&["--threads", threads, run.to_str().unwrap()]);
    let report = of(&whole, "1");
    for family in ["coactivation", "temporal", "cross_layer", "segments", "groups", "contexts", "vocabulary"]
    {
        assert!(!report[family].is_null(), "{family}");
    }
    assert!(report == of(&cut, "1") && report == of(&cut, "3"), "shards or threads change a number");
    let core = json(&["--core", whole.to_str().unwrap()]);
    let summary: Value = serde_json::from_slice(&std::fs::read(whole.join("summary.json")).unwrap()).unwrap();
    assert_eq!(core, summary["metrics"]);
    assert!(core.as_object().unwrap().iter().all(|(key, value)| report[key] == *value));
}

#[test]
fn a_run_without_token_ids_has_no_vocabulary_and_no_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &["--no-tokens"]);
    let report = json(&[run.to_str().unwrap()]);
    assert!(report["vocabulary"].is_null() && report["contexts"].is_null());
    assert!(!report["temporal"].is_null());
}

#[test]
fn groups_are_printed_when_asked_for_and_families_end_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let run = run.to_str().unwrap();
    let text = succeeds(&["metrics", run, "--by", "position", "--by", "dataset"]);
    for part in ["I(expert; position)", "I(expert; dataset)", "co-activation", "affinity", "predictability"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("I(expert; label)"));
    assert!(!succeeds(&["metrics", run, "--core"]).contains("co-activation"));
}

#[test]
fn tables_hold_a_row_for_each_expert_pair_and_layer() {
    let dir = tempfile::tempdir().unwrap();
    let run = collect(dir.path(), "run", &[]);
    let tables = dir.path().join("tables");
    succeeds(&["metrics", run.to_str().unwrap(), "--parquet", tables.to_str().unwrap()]);
    for (name, rows) in [("experts", 3 * 64), ("pairs", 3 * 2016), ("layers", 3)] {
        let found = moetrace_trace::verify_footer(&tables.join(format!("{name}.parquet"))).unwrap();
        assert_eq!(found, rows, "{name}");
    }
}

#[test]
fn several_runs_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let a = collect(dir.path(), "a", &["--precision", "bf16"]);
    let b = collect(dir.path(), "b", &["--precision", "f32"]);
    let runs = [a.to_str().unwrap(), b.to_str().unwrap()];
    let text = succeeds(&[&["metrics"], &runs[..]].concat());
    assert!(runs.iter().all(|run| text.contains(run)) && text.contains("6 of 64"), "{text}");
    let read = json(&runs);
    let bytes = |i: usize| read[i]["weight_bytes"].as_u64().unwrap();
    assert_eq!(bytes(1), 2 * bytes(0));
    assert_eq!(read[0]["metrics"], json(&runs[..1]));
    let refused = fails(&[&["metrics", "--parquet", "t"], &runs[..]].concat());
    assert!(format!("{refused:?}").contains("--parquet is for one run"), "{refused:?}");
}
