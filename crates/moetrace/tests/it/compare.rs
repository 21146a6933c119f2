//! Two runs of the real program, compared by it.

use std::path::{Path, PathBuf};

use moetrace_model::Family;
use moetrace_model::synthetic::{SyntheticSettings, tiny_config, write_checkpoint};
use serde_json::Value;

use crate::program::{ends, fails, moetrace, run, succeeds};

/// Collects a few texts of the embedded model and data sets.
fn collect(dir: &Path, name: &str, more: &[&str]) -> PathBuf {
    let out = dir.join(name);
    let traces = if more.contains(&"--traces") { &[][..] } else { &["--traces", "12"] };
    let args = ["collect", "--quiet", "--out", out.to_str().unwrap()];
    succeeds(&[&args[..], traces, more].concat());
    out
}

fn compared(a: &Path, b: &Path, more: &[&str]) -> Value {
    let args = ["compare", "--json", a.to_str().unwrap(), b.to_str().unwrap()];
    serde_json::from_str(&succeeds(&[&args[..], more].concat())).unwrap()
}

#[test]
fn bf16_routes_like_f32_in_most_rows_and_most_of_the_others_have_a_small_margin() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--nll", "--router-logits"];
    let f32 =
        collect(dir.path(), "f32", &[&["--precision", "f32", "--shard-tokens", "300"], &more[..]].concat());
    let bf16 = collect(dir.path(), "bf16", &[&["--precision", "bf16"], &more[..]].concat());
    let json = compared(&f32, &bf16, &[]);
    let comparison = &json["comparison"];
    let precision = |side: &str| comparison[side]["model"]["precision"].as_str().unwrap().to_owned();
    assert_eq!((precision("reference"), precision("other")), ("f32".into(), "bf16".into()));
    assert_eq!(comparison["basis"], "token_ids");
    assert_eq!(comparison["tokens"], comparison["reference"]["tokens"]);
    let fidelity = &comparison["fidelity"];
    assert_eq!((&fidelity["samples"], &fidelity["bos_excluded"]), (&12.into(), &12.into()));
    assert_eq!(fidelity["layers"].as_array().unwrap().len(), 3);
    let rate = |value: &Value, what: &str| value[what].as_f64().unwrap();
    for layer in fidelity["layers"].as_array().unwrap() {
        let all = &layer["all"];
        assert!(rate(all, "set_overlap") > 0.95 && rate(all, "exact_set_rate") < 1.0, "{all}");
        assert!(rate(all, "jaccard") <= rate(all, "set_overlap"), "{all}");
        assert!(rate(&layer["logits"], "kl_bits") > 0.0 && rate(&layer["logits"], "rmse") < 0.5, "{layer}");
    }
    let bins = fidelity["overall"]["margin_bins"].as_array().unwrap();
    let (least, most) = (&bins[0], &bins[4]);
    assert!(rate(least, "exact_set_rate") < rate(most, "exact_set_rate"), "{bins:?}");
    assert!(rate(&fidelity["nll"], "delta").abs() < 0.1, "{}", fidelity["nll"]);

    let text = succeeds(&["compare", f32.to_str().unwrap(), bf16.to_str().unwrap()]);
    for part in
        ["f32 on the cpu", "bf16 on the cpu", "12 BOS tokens left out", "KL (bits)", "margin in A", "loss"]
    {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let with_bos = compared(&f32, &bf16, &["--include-bos", "--trust"]);
    assert_eq!(with_bos["comparison"]["fidelity"]["tokens"], comparison["tokens"]);
}

#[test]
fn runs_of_the_same_bytes_agree_in_every_row_whatever_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    let whole = collect(dir.path(), "whole", &[]);
    let cut = collect(dir.path(), "cut", &["--shard-tokens", "100", "--no-tokens"]);
    let fidelity = &compared(&whole, &cut, &[])["comparison"]["fidelity"];
    for rate in ["set_overlap", "jaccard", "exact_set_rate", "rank_1_agreement", "weight_overlap_share"] {
        assert_eq!(fidelity["overall"]["all"][rate]["min"], 1.0, "{rate}");
    }
    assert_eq!(fidelity["divergence"]["differing"], 0);
    let text = succeeds(&["compare", whole.to_str().unwrap(), cut.to_str().unwrap()]);
    assert!(text.contains("the same tokenizer and text hashes"), "{text}");
}

#[test]
fn what_is_not_compared_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let short = collect(dir.path(), "short", &[]);
    let long = collect(dir.path(), "long", &["--traces", "24"]);
    let output = run(&["compare", short.to_str().unwrap(), long.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("note: compared are 12 of 24 texts") && stderr.contains("/long"), "{stderr}");
    let part = collect(dir.path(), "part", &["--shards", "0..2"]);
    let (code, stderr) = ends(moetrace().arg("compare").arg(&part).arg(&short));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("2 of 6 shards of") && stderr.contains("compared are 4 of 12 texts"), "{stderr}");
    let last = collect(dir.path(), "last", &["--shards", "5..6"]);
    let (code, stderr) = ends(moetrace().arg("compare").arg(&part).arg(&last));
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("E-EMPTY") && stderr.contains("no committed text in common"), "{stderr}");
}

#[test]
fn runs_over_different_tokens_are_refused_with_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let base = collect(dir.path(), "base", &[]);
    for (name, more, named) in
        [("seed", ["--seed", "9"], "seed 0 -> 9"), ("length", ["--max-length", "16"], "max_length 512 -> 16")]
    {
        let other = collect(dir.path(), name, &more);
        let (code, stderr) = fails(&["compare", base.to_str().unwrap(), other.to_str().unwrap()]);
        assert_eq!(code, 78, "{stderr}");
        for part in ["E-COMPARE", "over different tokens: data set mathematics", named, "help: collect both"]
        {
            assert!(stderr.contains(part), "{part:?} is missing in {stderr}");
        }
    }
    let dataset = crate::program::texts(dir.path());
    let out = dir.path().join("river").display().to_string();
    succeeds(&["collect", "--quiet", "--dataset", &dataset, "--out", &out]);
    let (code, stderr) = fails(&["compare", base.to_str().unwrap(), &out]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("data set mathematics is in") && stderr.contains("base only"), "{stderr}");
}

#[test]
fn models_of_another_shape_are_refused_and_other_weights_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids.jsonl");
    std::fs::write(&ids, "{\"input_ids\": [1, 5, 9, 40, 7]}\n{\"input_ids\": [1, 3, 80]}\n").unwrap();
    let dataset = format!("ids={}", ids.display());
    let model = |name: &str, chosen: usize, seed: u64| {
        let folder = dir.path().join(format!("model-{name}"));
        std::fs::create_dir(&folder).unwrap();
        let mut config = tiny_config(Family::Mixtral);
        config["num_experts_per_tok"] = chosen.into();
        let settings = SyntheticSettings { seed, ..SyntheticSettings::default() };
        write_checkpoint(&folder, &config, &settings).unwrap();
        let out = dir.path().join(name).display().to_string();
        let model = folder.display().to_string();
        succeeds(&["collect", "--quiet", "--model", &model, "--dataset", &dataset, "--out", &out]);
        out
    };
    let (one, other, all) = (model("one", 3, 0), model("other", 3, 1), model("all", 8, 0));
    let fidelity = &compared(one.as_ref(), other.as_ref(), &[])["comparison"]["fidelity"];
    // Both texts begin with the BOS that the configuration names; those two rows are left out.
    assert_eq!((&fidelity["tokens"], &fidelity["samples"]), (&6.into(), &2.into()));
    assert!(fidelity["overall"]["all"]["set_overlap"]["mean"].as_f64().unwrap() < 0.9, "{fidelity}");
    let (code, stderr) = fails(&["compare", &one, &all]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("E-COMPARE") && stderr.contains("experts per token 3 -> 8"), "{stderr}");
    // Where every expert is chosen there is nothing to choose differently.
    let text = succeeds(&["compare", &all, &all]);
    assert!(text.contains("100.00 % by chance") && !text.contains("margin in A"), "{text}");
}

#[test]
fn damaged_and_missing_runs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (collect(dir.path(), "a", &[]), collect(dir.path(), "b", &[]));
    let data = b.join("data/verse-00000-of-00001.parquet");
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let (code, stderr) = fails(&["compare", a.to_str().unwrap(), b.to_str().unwrap()]);
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("E-HASH") && stderr.contains("b/data/verse-00000-of-00001.parquet"), "{stderr}");
    let (code, stderr) = fails(&["compare", a.to_str().unwrap(), dir.path().join("none").to_str().unwrap()]);
    assert_eq!(code, 66, "{stderr}");
    assert!(stderr.contains("E-NORUN") && stderr.contains("none"), "{stderr}");
    assert_eq!(fails(&["compare", a.to_str().unwrap()]).0, 2);
}
