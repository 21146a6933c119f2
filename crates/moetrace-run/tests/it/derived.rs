//! summary.json, README.md and tokens.parquet follow from what is committed.

use moetrace_run::Summary;

use crate::support::{Call, content, plan};

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
