//! Data sets of which little or nothing can be used: which rows, why, and what to do.

use std::path::Path;

use serde_json::Value;

use crate::program::{fails, run, succeeds, texts};

fn file(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    std::fs::write(dir.join(name), bytes).unwrap();
    format!("d={}", dir.join(name).display())
}

/// The embedded model's files without its tokenizer.
fn without_tokenizer(dir: &Path) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures.join(name), dir.join(name)).unwrap();
    }
    dir.display().to_string()
}

#[test]
fn a_data_set_without_a_usable_row_shows_rows_and_what_to_do_about_most_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let out = d.join("run").display().to_string();
    let five = |line: &str| format!("{line}\n").repeat(5);
    for (name, content, shown, help) in [
        ("types.jsonl", five("{\"text\": [\"a\"]}"), "types.jsonl:1: wrong_type: text is a list", ":COLUMN"),
        ("broken.jsonl", five("PAR1"), "broken.jsonl:3: broken_json: ", "what its name says"),
        ("short.jsonl", five("{\"text\": \"short\"}"), "too_short", "--min-chars"),
        ("empty.jsonl", String::new(), "none of its 0 rows", "has no rows"),
        ("ids.jsonl", five("{\"input_ids\": [2048]}"), "ids.jsonl:2: out_of_vocabulary: ", "another model"),
        ("quote.csv", "text\n\"open".to_owned(), "quote.csv:2: unclosed_quote: ", "close the quote"),
    ] {
        let dataset = file(d, name, content);
        let (code, stderr) = fails(&["plan", "--quiet", "--out", &out, "--dataset", &dataset]);
        assert_eq!(code, 65, "{stderr}");
        assert!(stderr.contains("E-EMPTY") && stderr.contains(shown), "{shown:?} is missing in {stderr}");
        let (_, hint) = stderr.split_once("help: ").unwrap();
        assert!(hint.contains(help), "{help:?} is missing in {stderr}");
        assert!(stderr.matches("where: ").count() <= 3, "{stderr}");
    }
    let dataset = file(d, "utf16.txt", b"\xFF\xFEt\0e\0x\0t\0");
    let (code, stderr) = fails(&["plan", "--quiet", "--out", &out, "--dataset", &dataset]);
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("UTF-16, expected UTF-8") && stderr.contains("iconv -f UTF-16"), "{stderr}");
}

#[test]
fn plan_as_json_lists_the_faulty_rows_and_what_is_odd_about_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("texts");
    std::fs::create_dir(&folder).unwrap();
    texts(&folder);
    std::fs::write(folder.join("bad.jsonl"), "{\"text\": 5}\n{\"text\": \"short\"}\n").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("gone.jsonl")).unwrap();
    let dataset = format!("d={}", folder.display());
    let out = dir.path().join("run").display().to_string();
    let args = ["plan", "--out", &out, "--dataset", &dataset];
    let plan: Value = serde_json::from_str(&succeeds(&[&args[..], &["--json"]].concat())).unwrap();
    let row = &plan["faulty_rows"][0];
    assert_eq!((&row["dataset"], &row["file"], &row["line"]), (&"d".into(), &"bad.jsonl".into(), &1.into()));
    assert_eq!(row["reason"], "wrong_type");
    assert!(plan["faulty_rows"].as_array().unwrap().len() == 1, "{plan}");
    assert!(plan["notes"][0]["note"].as_str().unwrap().contains("leads nowhere"), "{plan}");
    let stderr = String::from_utf8(run(&args).stderr).unwrap();
    assert!(stderr.contains("bad.jsonl:1: wrong_type") && stderr.contains("leads nowhere"), "{stderr}");
}

#[test]
fn ids_that_the_model_has_not_are_left_out_by_plan_and_collect_alike() {
    let dir = tempfile::tempdir().unwrap();
    let ids = file(dir.path(), "ids.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 2048]}\n");
    let out = dir.path().join("run").display().to_string();
    for command in ["plan", "collect"] {
        let text = run(&[command, "--out", &out, "--dataset", &ids]);
        let stderr = String::from_utf8(text.stderr).unwrap();
        assert!(text.status.success(), "{stderr}");
        assert!(stderr.contains("ids.jsonl:2: out_of_vocabulary: token id 2048"), "{stderr}");
    }
}

#[test]
fn bos_rows_of_token_ids_stay_out_of_the_metrics_without_a_tokenizer_too() {
    let dir = tempfile::tempdir().unwrap();
    let model = without_tokenizer(dir.path());
    // The model's configuration says that 0 begins a sequence.
    let ids = file(dir.path(), "ids.jsonl", "{\"input_ids\": [0, 5, 6]}\n{\"input_ids\": [7, 0, 8]}\n");
    let out = dir.path().join("run").display().to_string();
    succeeds(&["collect", "--quiet", "--out", &out, "--model", &model, "--dataset", &ids]);
    let metrics: Value = serde_json::from_str(&succeeds(&["metrics", "--json", &out])).unwrap();
    assert_eq!(metrics["bos_excluded"], 1, "{metrics}");
}
