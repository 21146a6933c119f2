//! From texts to numbers.

use serde_json::Value;

use crate::program::{assert_same_tables, succeeds, tables};

#[test]
fn the_default_collect_shows_specialisation_far_above_its_null_and_metrics_finds_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let live: Value =
        serde_json::from_str(&succeeds(&["collect", "--json", "--quiet", "--out", &out])).unwrap();
    assert_eq!(live["complete"], true);
    let layers = live["metrics"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for layer in layers {
        let s = &layer["specialisation"];
        let (found, null) = (&s["subset_mutual_information_bits"], &s["null_max_bits"]);
        assert!(found.as_f64().unwrap() > 10.0 * null.as_f64().unwrap(), "{s}");
        assert_eq!(layer["active_experts"], 64);
    }
    let replayed: Value = serde_json::from_str(&succeeds(&["metrics", "--core", "--json", &out])).unwrap();
    assert_eq!(replayed, live["metrics"]);
    let again: Value =
        serde_json::from_str(&succeeds(&["collect", "--json", "--quiet", "--out", &out])).unwrap();
    assert_eq!(again["written"], 0);
    assert_eq!(again["metrics"], live["metrics"]);
    let text = succeeds(&["metrics", &out]);
    for line in ["expert coverage", "unique expert pairs", "routing entropy", "total"] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn pass_size_threads_and_shard_ranges_leave_no_trace_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let common = ["collect", "--quiet", "--traces", "24", "--shard-tokens", "1024"];
    let collect = |name: &str, more: &[&str]| {
        let out = path(name).display().to_string();
        succeeds(&[&common[..], &["--out", &out], more].concat());
    };
    collect("a", &[]);
    collect("b", &["--tokens-per-pass", "100", "--threads", "1"]);
    collect("c", &["--tokens-per-pass", "100000", "--threads", "2"]);
    collect("d", &["--shards", "1..3"]);
    collect("d", &["--shards", "0..1"]);
    collect("d", &[]);
    for other in ["b", "c", "d"] {
        assert_same_tables(&path(other), &path("a"));
    }
}

#[test]
fn no_tokens_leaves_neither_ids_nor_texts_in_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("t.txt");
    std::fs::write(&text, "The canary zanzibarquux sang all day long, and nobody wrote its song down.\n")
        .unwrap();
    let out = dir.path().join("run");
    let dataset = format!("t={}", text.display());
    let (out_text, run) = (out.display().to_string(), &out);
    succeeds(&["collect", "--quiet", "--no-tokens", "--dataset", &dataset, "--out", &out_text]);
    assert!(!run.join("tokens.parquet").exists());
    let columns = succeeds(&["inspect", &out_text]);
    assert!(!columns.contains("token_id,"), "{columns}");
    for (name, bytes) in tables(run) {
        assert!(!bytes.windows(12).any(|w| w == b"zanzibarquux"), "{} holds the text", name.display());
    }
}

#[test]
fn optional_columns_are_there_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let more = ["--router-logits", "--nll", "--hidden", "4", "--weights", "f32"];
    succeeds(&[&["collect", "--quiet", "--traces", "6", "--out", &out], &more[..]].concat());
    let shown = succeeds(&["inspect", &out]);
    for column in ["token_id", "logits_01", "experts_03", "nll"] {
        assert!(shown.contains(column), "{column} is missing in\n{shown}");
    }
    assert!(tables(out.as_ref()).keys().any(|name| name.starts_with("hidden")));
}

#[test]
fn plan_writes_nothing_and_lists_the_shards_that_collect_then_writes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = ["--traces", "12", "--out", out.to_str().unwrap()];
    let plan: Value = serde_json::from_str(&succeeds(&[&["plan", "--json"], &args[..]].concat())).unwrap();
    assert!(!out.exists());
    succeeds(&[&["collect", "--quiet"], &args[..]].concat());
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(plan["shards"], manifest["shards"]);
    assert_eq!(plan["plan_hash"], manifest["plan_hash"]);
    let written: u64 =
        tables(&out).iter().filter(|t| t.0.starts_with("data")).map(|t| t.1.len() as u64).sum();
    let estimated = plan["estimate"]["output_bytes"].as_u64().unwrap();
    assert!((written / 4..=written * 4).contains(&estimated), "estimated {estimated}, written {written}");
}

#[test]
fn inspect_lists_the_tensors_of_a_checkpoint() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/model");
    let shown = succeeds(&["inspect", fixtures]);
    assert!(shown.contains("model.layers.1.mlp.experts.63.down_proj.weight"), "{shown}");
    assert!(shown.contains("6 of 64 experts per token, 5,874,816 parameters"), "{shown}");
}

#[test]
fn completions_name_every_command() {
    let script = succeeds(&["completions", "bash"]);
    for command in ["collect", "plan", "status", "metrics", "compare", "inspect"] {
        assert!(script.contains(command), "{command}");
    }
}
