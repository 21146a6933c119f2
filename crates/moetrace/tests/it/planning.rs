//! What plan promises, collect keeps.

use serde_json::Value;

use crate::program::{fails, run, succeeds, tables};

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

#[test]
fn plan_counts_the_chosen_shards_and_shows_which_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let args = ["--traces", "12", "--out", &out];
    let plan = |more: &[&str]| -> Value {
        serde_json::from_str(&succeeds(&[&["plan", "--json"], &args[..], more].concat())).unwrap()
    };
    let (whole, some) = (plan(&[]), plan(&["--shards", "1..3"]));
    let of = |name: &str| {
        let shards = whole["shards"].as_array().unwrap();
        shards[1..3].iter().map(|s| s[name].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(some["shards"], whole["shards"]);
    assert_eq!(
        (some["samples"].as_u64(), some["tokens"].as_u64()),
        (Some(of("samples")), Some(of("tokens")))
    );
    let bytes = |plan: &Value| plan["estimate"]["output_bytes"].as_f64().unwrap();
    assert!(bytes(&some) < 0.6 * bytes(&whole), "{} of {}", bytes(&some), bytes(&whole));
    let text = succeeds(&[&["plan", "--quiet"], &args[..]].concat());
    assert!(text.contains("0..1") && text.contains("5..6"), "{text}");
    let (code, stderr) = fails(&[&["plan", "--shards", "90..99"], &args[..]].concat());
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("E-SHARDS") && stderr.contains("without --shards"), "{stderr}");
}

#[test]
fn plan_refuses_what_collect_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let path = out.to_str().unwrap();
    for command in ["plan", "collect"] {
        let (code, stderr) = fails(&[command, "--traces", "6", "--threads", "3000", "--out", path]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("--threads") && !out.exists(), "{stderr}");
    }
    succeeds(&["collect", "--quiet", "--traces", "6", "--out", path]);
    let other = ["plan", "--traces", "6", "--seed", "5", "--out", path];
    let (code, stderr) = fails(&other);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("E-MANIFEST") && stderr.contains("seed 0 -> 5"), "{stderr}");
    assert!(succeeds(&[&other[..], &["--fresh"]].concat()).contains("0 of them committed"));
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "x").unwrap();
    assert_eq!(fails(&["plan", "--traces", "6", "--out", foreign.to_str().unwrap()]).0, 73);
}

#[test]
fn texts_that_are_not_taken_and_texts_of_a_bos_token_alone_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let notes = |name: &str, more: &[&str]| {
        let out = dir.path().join(name).display().to_string();
        let output = run(&[&["collect", "--out", &out], more].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let stderr = notes("few", &["--traces", "3"]);
    assert!(stderr.contains("no text is taken of verse, chinese, questions"), "{stderr}");
    let stderr = notes("bos", &["--traces", "6", "--max-length", "1"]);
    assert!(stderr.contains("6 of 6 texts hold their BOS token and nothing else"), "{stderr}");
    assert!(!notes("enough", &["--traces", "6"]).contains("no text is taken"));
}
