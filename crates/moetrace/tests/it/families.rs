//! Models of the five families beside each other, over the same tokens.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{json, succeeds};

/// Name of the case, its own type, layers that route, experts, chosen, and numbers of one expert's three projections of
/// 64 x I.
const FAMILIES: [(&str, &str, u64, u64, u64, u64); 5] = [
    ("deepseek_small", "deepseek", 3, 16, 6, 3 * 64 * 48),
    ("qwen2_moe_small", "qwen2_moe", 3, 12, 4, 3 * 64 * 48),
    ("mixtral_small", "mixtral", 3, 8, 2, 3 * 64 * 96),
    ("olmoe_small", "olmoe", 3, 16, 8, 3 * 64 * 48),
    ("qwen3_moe_small", "qwen3_moe", 4, 16, 8, 3 * 64 * 24),
];

/// Random checkpoints of 16 bits a number, each with a run over the same rows of token ids.
fn runs(dir: &Path) -> Vec<String> {
    let row = |i: u64| {
        let ids: Vec<u64> = (0..40).map(|j| 3 + (i * 31 + j * j * 7 + i * j) % 250).collect();
        format!("{{\"input_ids\": {ids:?}}}\n")
    };
    fs::write(dir.join("ids.jsonl"), (0..20).map(row).collect::<String>()).unwrap();
    let ids = dir.join("ids.jsonl").display().to_string();
    let run = |(name, ..): &(&str, &str, u64, u64, u64, u64)| {
        let config =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/parity/{name}/config.json"));
        let (model, out) = (dir.join(name).display().to_string(), dir.join(format!("run-{name}")));
        succeeds(&["synth", "--quiet", "--like", config.to_str().unwrap(), "--out", &model, "--seed", "5"]);
        let out = out.display().to_string();
        succeeds(&[
            "collect",
            "--quiet",
            "--model",
            &model,
            "--dataset",
            &ids,
            "--traces",
            "20",
            "--out",
            &out,
        ]);
        out
    };
    FAMILIES.iter().map(run).collect()
}

/// Numbers of a checkpoint, counted from its files' headers.
fn stored(model: &Path) -> u64 {
    let files = fs::read_dir(model).unwrap().map(|entry| entry.unwrap().path());
    let weights = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let of = |path: std::path::PathBuf| {
        let bytes = fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let shapes = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
        let product = |t: &Value| -> u64 {
            t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product()
        };
        shapes.map(|(_, tensor)| product(tensor)).sum::<u64>()
    };
    weights.map(of).sum()
}

#[test]
fn models_of_all_families_stand_side_by_side_with_numbers_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let runs = runs(dir.path());
    let names: Vec<&str> = runs.iter().map(String::as_str).collect();
    let read: Value =
        serde_json::from_str(&succeeds(&[&["metrics", "--json"], &names[..]].concat())).unwrap();
    let text = succeeds(&[&["metrics"], &names[..]].concat());
    assert!(!text.contains("over different texts"), "{text}");
    for (i, (name, family, layers, e, k, expert)) in FAMILIES.into_iter().enumerate() {
        let (run, model) = (&read[i], dir.path().join(name));
        assert_eq!(run["run"], names[i]);
        assert_eq!(run["model"]["family"], family);
        let total = stored(&model);
        assert_eq!(run["model"]["total_parameters"], total, "{name}");
        assert_eq!(run["model"]["active_parameters"], total - layers * (e - k) * expert, "{name}");
        assert_eq!(run["model"]["weight_bytes"], 2 * total, "{name}");
        let metrics = &run["metrics"];
        assert_eq!((&metrics["experts"], &metrics["chosen"]), (&e.into(), &k.into()));
        let each = metrics["layers"].as_array().unwrap();
        assert_eq!(each.len() as u64, layers);
        let (mut seen, mut entropy, mut violation) = (0.0, 0.0, 0.0);
        for layer in each {
            let loads: Vec<f64> =
                layer["loads"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
            let sum: f64 = loads.iter().sum();
            assert_eq!(sum as u64, metrics["tokens"].as_u64().unwrap() * k);
            seen += loads.iter().filter(|n| **n > 0.0).count() as f64;
            let parts = loads.iter().map(|n| n / sum).filter(|p| *p > 0.0);
            entropy += parts.map(|p| -p * p.ln()).sum::<f64>() / (e as f64).ln();
            violation += loads.iter().fold(0.0, |a: f64, n| a.max(*n)) * e as f64 / sum - 1.0;
        }
        let near = |key: &str, expected: f64| {
            let found = run[key].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-12, "{name}: {key} {found}, expected {expected}");
        };
        near("coverage", seen / (layers * e) as f64);
        near("load_entropy_normalised", entropy / layers as f64);
        near("max_vio", violation / layers as f64);
        assert!(run["srp_above_chance"].is_f64() && run["affinity_share"].is_f64() && run["reuse"].is_f64());
        assert!(text.contains(&format!("{k} of {e}")) && text.contains(name), "{text}");
        assert!(succeeds(&["verify", names[i]]).ends_with("no fault found\n"));
    }
}

/// What only runs of one shape have in common is left out, and said so; nothing is drawn of layers that are not there.
#[test]
fn the_page_of_two_families_compares_their_models_and_not_their_experts() {
    let dir = tempfile::tempdir().unwrap();
    let runs = runs(dir.path());
    let page = dir.path().join("page.html");
    let args = ["report", &runs[0], &runs[2], "--out", page.to_str().unwrap()];
    succeeds(&args);
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<section id=\"models\""));
    for part in [
        "Routing of deepseek_small and mixtral_small",
        "A: 6 of 16 in each of 3 layers, B: 2 of 8 in each of 3 layers",
        // 2 of 8 reach less by chance than 6 of 16: each run has a line of chance of its own.
        "A: at random, K / E",
        "B: at random, K / E",
        "A: pairs if chosen at random",
        "B: tokens shuffled",
        "B: at random",
        "in bits, A: 4.00, B: 3.00",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("over different texts"), "both are over the same");
    assert!(!page.contains("<section id=\"fidelity\""), "choices of other experts cannot agree");
    assert_eq!(json(&Path::new(&runs[2]).join("manifest.json"))["geometry"]["experts"], 8);
}

/// As many tokens say nothing: all texts may be cut at the same length.
#[test]
fn other_texts_of_as_many_tokens_are_told_and_other_shards_of_the_same_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        |i: usize| format!("{}\n", "a tale of so many words that it is cut off somewhere ".repeat(3 + i));
    fs::write(dir.path().join("texts.txt"), (0..40).map(text).collect::<String>()).unwrap();
    let texts = dir.path().join("texts.txt").display().to_string();
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name).display().to_string();
        let args = ["collect", "--quiet", "--dataset", &texts, "--traces", "8", "--max-length", "16"];
        succeeds(&[&args[..], &["--out", &out], more].concat());
        out
    };
    let (a, b) = (run("a", &[]), run("b", &["--shard-tokens", "30"]));
    let other = run("other", &["--seed", "7"]);
    let read = |pair: [&str; 2]| -> (String, Value) {
        let text = succeeds(&[&["metrics", "--core"], &pair[..]].concat());
        let json = succeeds(&[&["metrics", "--core", "--json"], &pair[..]].concat());
        (text, serde_json::from_str(&json).unwrap())
    };
    let (text, same) = read([&a, &b]);
    assert!(!text.contains("different texts") && same[0]["texts_hash"] == same[1]["texts_hash"], "{text}");
    let (text, parted) = read([&a, &other]);
    assert_eq!(parted[0]["metrics"]["tokens"], parted[1]["metrics"]["tokens"]);
    assert!(text.contains("different texts") && parted[0]["texts_hash"] != parted[1]["texts_hash"], "{text}");
    let page = dir.path().join("page.html").display().to_string();
    succeeds(&["report", &a, &other, "--out", &page]);
    assert!(fs::read_to_string(&page).unwrap().contains("A and B are over different texts"));
}
