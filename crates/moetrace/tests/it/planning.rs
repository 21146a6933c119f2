//! What plan promises, collect keeps.

use serde_json::Value;

use crate::program::{succeeds, tables};

#[test]
fn the_estimate_of_bytes_is_within_a_factor_of_two_whatever_the_columns() {
    let dir = tempfile::tempdir().unwrap();
    for (i, more) in [
        &[][..],
        &["--no-tokens"],
        &["--nll", "--hidden", "16"],
        &["--router-logits"],
        &["--precision", "f32"],
        &["--precision", "f32", "--weights", "f32", "--router-logits", "--hidden", "16"],
        &["--shard-tokens", "512"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(i.to_string());
        let args = [&["--traces", "24", "--out", out.to_str().unwrap()][..], more].concat();
        let plan: Value =
            serde_json::from_str(&succeeds(&[&["plan", "--json"], &args[..]].concat())).unwrap();
        assert!(!out.exists(), "plan wrote into {}", out.display());
        succeeds(&[&["collect", "--quiet"], &args[..]].concat());
        let written: usize = tables(&out)
            .iter()
            .filter(|(name, _)| name.components().count() > 1)
            .map(|(_, bytes)| bytes.len())
            .sum();
        let ratio = plan["estimate"]["output_bytes"].as_f64().unwrap() / written as f64;
        assert!((0.5..=2.0).contains(&ratio), "{more:?}: estimated {ratio:.2} of {written} bytes");
    }
}

#[test]
fn plan_says_what_is_committed_already() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let args = ["--traces", "6", "--out", &out];
    succeeds(&[&["collect", "--quiet", "--shards", "0..2"], &args[..]].concat());
    let plan: Value = serde_json::from_str(&succeeds(&[&["plan", "--json"], &args[..]].concat())).unwrap();
    assert_eq!((plan["shards_committed"].as_u64(), plan["shards"].as_array().unwrap().len()), (Some(2), 6));
    let text = succeeds(&[&["plan", "--quiet"], &args[..]].concat());
    assert!(text.contains("2 of them committed") && text.contains("nothing has been written"), "{text}");
}

#[test]
fn a_run_keeps_the_shard_size_it_was_begun_with() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let args = ["collect", "--json", "--quiet", "--traces", "12", "--out", &out];
    let first: Value =
        serde_json::from_str(&succeeds(&[&args[..], &["--shard-tokens", "256"]].concat())).unwrap();
    let again: Value = serde_json::from_str(&succeeds(&args)).unwrap();
    assert!(first["shards"].as_u64().unwrap() > 6);
    assert_eq!((&again["shards"], &again["written"]), (&first["shards"], &0.into()));
}
