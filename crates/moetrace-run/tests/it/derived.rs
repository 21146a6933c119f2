//! summary.json, README.md and tokens.parquet follow from what is committed.

use moetrace_run::{RunFolder, Summary};

use crate::support::{Call, Fault, FaultyFs, content, plan};

#[test]
fn the_summary_counts_what_the_plan_promised() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan).unwrap();
    let text = std::fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: Summary = serde_json::from_str(&text).unwrap();
    assert_eq!(summary.samples, 13);
    assert_eq!(summary.tokens, 81 + 120);
    assert_eq!(summary.metrics.tokens, summary.tokens);
    assert_eq!(summary.shards, plan.shards.len());
    let on_disk: u64 = ["data", "samples", "hidden"]
        .iter()
        .flat_map(|d| std::fs::read_dir(out.join(d)).unwrap())
        .map(|f| f.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(summary.bytes, on_disk);
}

#[test]
fn the_card_names_every_data_set_and_the_columns_that_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan).unwrap();
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for line in
        ["- config_name: tokens", "- config_name: samples", "- config_name: hidden", "  - split: alpha"]
    {
        assert!(card.lines().any(|l| l == line), "{line:?} is missing in\n{card}");
    }
    assert!(card.contains("| beta | 4 | 120 | 0 | none |"), "{card}");
}

#[test]
fn the_vocabulary_holds_each_token_seen_once() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan).unwrap();
    let rows = moetrace_trace::read_vocabulary(&out.join("tokens.parquet")).unwrap();
    // Rows of both data sets count from 100 times their number: beta's ids cover alpha's for rows 0 to 3.
    assert_eq!(rows.len(), 4 * 30 + (9 + 10 + 11 + 12 + 13));
    assert!(rows.iter().all(|(id, text)| *text == format!("t{id}")));
}

#[test]
fn a_card_that_was_edited_stays_and_what_is_there_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), content());
    let out = dir.path().join("run");
    Call::default().collect(&out, &plan).unwrap();
    let path = |name: &str| out.join(name);
    std::fs::write(path("README.md"), "edited").unwrap();
    let when = |name: &str| std::fs::metadata(path(name)).unwrap().modified().unwrap();
    let before = (when("summary.json"), when("tokens.parquet"));
    // No call to the disk but for folders that are there.
    let fs = FaultyFs::new(6, Fault::Crash);
    assert!(Call { fs: &fs, ..Call::default() }.collect(&out, &plan).unwrap().complete);
    assert_eq!((when("summary.json"), when("tokens.parquet")), before);
    // A shard done again changes numbers at most; the card is the user's.
    std::fs::write(RunFolder::new(&out).commit_path(&plan.shards[0].name), "{").unwrap();
    Call { repair: true, ..Call::default() }.collect(&out, &plan).unwrap();
    assert_eq!(std::fs::read_to_string(path("README.md")).unwrap(), "edited");
    // What is damaged comes back.
    for name in ["summary.json", "tokens.parquet"] {
        let sound = std::fs::read(path(name)).unwrap();
        std::fs::write(path(name), "x").unwrap();
        Call::default().collect(&out, &plan).unwrap();
        assert!(std::fs::read(path(name)).unwrap() == sound, "{name}");
    }
}
