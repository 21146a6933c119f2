//! Every refusal says what, where and what to do, with its own exit code.

use std::path::Path;

use crate::program::{fails, moetrace, run, succeeds};

/// A data set file in `dir`.
fn file(dir: &Path, name: &str, text: &str) -> String {
    std::fs::write(dir.join(name), text).unwrap();
    format!("d={}", dir.join(name).display())
}

#[test]
fn wrong_inputs_have_their_code_and_name_the_thing() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let out = d.join("run").display().to_string();
    let with = |dataset: &str| fails(&["collect", "--quiet", "--out", &out, "--dataset", dataset]);
    let cases = [
        (with(&format!("d={}", d.join("none.jsonl").display())), 66, "none.jsonl"),
        (with(&file(d, "columns.jsonl", "{\"a\": \"x\", \"b\": 1}\n")), 65, "columns: a, b"),
        (with(&file(d, "empty.jsonl", "")), 65, "help:"),
        (with(&file(d, "short.jsonl", "{\"text\": \"too short\"}\n")), 65, "too_short"),
        (with(&file(d, "what.xyz", "x")), 65, "what.xyz"),
        (with("=x"), 2, "NAME=PATH"),
        (fails(&["collect", "--quiet", "--out", &out, "--model", d.to_str().unwrap()]), 66, "config.json"),
        (fails(&["collect", "--max-length", "0"]), 2, "max-length"),
        (fails(&["collect", "--modle", "x"]), 2, "--model"),
        (fails(&["collect", "--quiet", "--traces", "6", "--out", &out, "--shards", "90..99"]), 2, "shards"),
        (fails(&["status", d.to_str().unwrap()]), 66, "manifest.json"),
        (fails(&["metrics", d.to_str().unwrap()]), 66, "manifest.json"),
        (fails(&["inspect", d.to_str().unwrap()]), 66, "config.json"),
        (fails(&["collect", "--config", d.join("none.toml").to_str().unwrap()]), 78, "none.toml"),
    ];
    for ((code, stderr), expected, named) in cases {
        assert_eq!(code, expected, "{stderr}");
        assert!(stderr.contains(named), "{named:?} is missing in {stderr}");
    }
}

#[test]
fn bad_lines_are_counted_named_by_line_and_skipped_and_strict_makes_them_errors() {
    let dir = tempfile::tempdir().unwrap();
    let long = "A text that is long enough to be taken, since it has more than fifty characters.";
    let lines =
        format!("{{\"text\": \"{long}\"}}\n{{broken\n{{\"text\": 5}}\n{{\"text\": \"{long} Twice.\"}}\n");
    let dataset = file(dir.path(), "bad.jsonl", &lines);
    let out = dir.path().join("run").display().to_string();
    let lenient = run(&["collect", "--out", &out, "--dataset", &dataset]);
    let stderr = String::from_utf8(lenient.stderr).unwrap();
    assert!(lenient.status.success(), "{stderr}");
    assert!(stderr.contains("bad.jsonl:2:") && stderr.contains("bad.jsonl:3:"), "{stderr}");
    assert!(String::from_utf8(lenient.stdout).unwrap().contains("2 traces (texts)"));
    let (code, stderr) = fails(&["collect", "--strict", "--out", &format!("{out}-2"), "--dataset", &dataset]);
    assert_eq!(code, 65);
    assert!(stderr.contains("bad.jsonl:2"), "{stderr}");
}

#[test]
fn a_broken_checkpoint_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures.join(name), model.join(name)).unwrap();
    }
    let out = dir.path().join("run");
    let collect = || fails(&["collect", "--out", out.to_str().unwrap(), "--model", model.to_str().unwrap()]);
    std::fs::write(model.join("pytorch_model.bin"), b"\x80\x04").unwrap();
    let (code, stderr) = collect();
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("E-PICKLE"), "{stderr}");
    let weights = std::fs::read(fixtures.join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let (code, stderr) = collect();
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("model.safetensors") && stderr.contains("E-TRUNC"), "{stderr}");
    let config = std::fs::read_to_string(fixtures.join("config.json")).unwrap();
    for (from, to) in
        [("\"deepseek\"", "\"gpt2\""), ("\"num_experts_per_tok\": 6", "\"num_experts_per_tok\": 65")]
    {
        assert!(config.contains(from), "{from}");
        std::fs::write(model.join("config.json"), config.replace(from, to)).unwrap();
        let (code, stderr) = collect();
        assert_eq!(code, 65, "{stderr}");
        assert!(stderr.contains("E-CONFIG"), "{stderr}");
    }
    assert!(!out.exists());
}

#[test]
fn other_settings_damage_and_foreign_folders_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let base = ["collect", "--quiet", "--traces", "6", "--out", out.to_str().unwrap()];
    succeeds(&base);
    let (code, stderr) = fails(&[&base[..], &["--seed", "9"]].concat());
    assert_eq!(code, 78);
    assert!(stderr.contains("seed 0 -> 9") && stderr.contains("--fresh"), "{stderr}");
    let data = std::fs::read_dir(out.join("data")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let (code, stderr) = fails(&base);
    assert_eq!(code, 65);
    assert!(stderr.contains("blake3") && stderr.contains("--repair"), "{stderr}");
    succeeds(&[&base[..], &["--repair"]].concat());
    succeeds(&["metrics", out.to_str().unwrap()]);
    succeeds(&[&base[..], &["--fresh", "--seed", "9"]].concat());
    assert!(dir.path().join("run.bak/manifest.json").exists());
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("mine.txt"), "x").unwrap();
    let (code, stderr) = fails(&["collect", "--quiet", "--traces", "6", "--out", foreign.to_str().unwrap()]);
    assert_eq!(code, 73);
    assert!(stderr.contains("mine.txt"), "{stderr}");
    let below_a_file = foreign.join("mine.txt/run");
    let (code, stderr) =
        fails(&["collect", "--quiet", "--traces", "6", "--out", below_a_file.to_str().unwrap()]);
    assert_eq!(code, 73, "{stderr}");
}

#[test]
fn a_full_device_as_standard_output_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = dir.path().join("run");
    let output = moetrace()
        .args(["collect", "--traces", "6", "--out", out.to_str().unwrap()])
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("E-STDOUT"), "{stderr}");
}

#[test]
fn every_flag_that_a_hint_names_is_one_the_parser_accepts() {
    let sources = [
        include_str!("../../src/failure/mod.rs"),
        include_str!("../../src/failure/compare.rs"),
        include_str!("../../src/failure/exchange.rs"),
        include_str!("../../src/failure/hub.rs"),
        include_str!("../../src/failure/inputs.rs"),
        include_str!("../../src/inputs.rs"),
        include_str!("../../src/command/collect.rs"),
        include_str!("../../src/prepare.rs"),
        include_str!("../../src/device/mod.rs"),
        include_str!("../../src/device/fit.rs"),
        include_str!("../../src/device/map.rs"),
        include_str!("../../src/device/refused.rs"),
        include_str!("../../src/on_gpu.rs"),
        include_str!("../../src/doctor/gpu.rs"),
        include_str!("../../src/doctor/libraries.rs"),
        include_str!("../../src/doctor/host.rs"),
        include_str!("../../src/doctor/disk.rs"),
        include_str!("../../src/doctor/hub.rs"),
        include_str!("../../src/doctor/model.rs"),
        include_str!("../../src/command/doctor.rs"),
        include_str!("../../../../docs/memory.md"),
        include_str!("../../../../README.md"),
    ];
    let mut help = String::new();
    for command in
        ["collect", "plan", "doctor", "status", "metrics", "compare", "inspect", "export", "import", "report"]
    {
        help += &succeeds(&[command, "--help"]);
    }
    // Of cargo, in the README's commands.
    let others = ["--workspace", "--release", "--example", "--package", "--path", "--json", "--help"];
    let mut seen = 0;
    for word in sources.iter().flat_map(|s| s.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))) {
        let is_flag = word.starts_with("--") && word.len() > 4 && !word.starts_with("---");
        if is_flag && !others.contains(&word) {
            assert!(help.contains(word), "{word} is named but not accepted");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} flags were found");
}
