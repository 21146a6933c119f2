//! Damage that hashes, sizes, records and footers tell.

use moetrace_run::{FaultKind, ShardRange};
use serde_json::Value;

use super::{Run, edit};
use crate::support::content;

/// Bits flipped, one at a time: minutes without optimisation.
const FLIPS: usize = if cfg!(debug_assertions) { 1_000 } else { 10_000 };

#[test]
fn each_of_thousands_of_flipped_bits_of_a_committed_shard_is_found() {
    let run = Run::with(content(), Some(ShardRange { from: 0, to: 1 }));
    let names = ["data", "samples", "hidden"].map(|kind| run.name(kind, 0));
    let whole = names.clone().map(|name| std::fs::read(run.path(name)).unwrap());
    // Knuth's MMIX generator: any bits will do.
    let mut state = 5u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for flip in 0..FLIPS {
        let (file, mut bytes) = (flip % 3, whole[flip % 3].clone());
        let at = next(bytes.len());
        bytes[at] ^= 1 << next(8);
        std::fs::write(run.path(&names[file]), &bytes).unwrap();
        let fault = run.fault_of(FaultKind::Hash);
        assert_eq!((&fault.first.file, fault.count), (&names[file], 1), "byte {at}");
        std::fs::write(run.path(&names[file]), &whole[file]).unwrap();
    }
    assert_eq!(run.verify().faults, []);
}

#[test]
fn missing_shortened_and_foreign_files_are_told_apart() {
    let run = Run::new();
    let data = run.name("data", 1);
    let bytes = std::fs::read(run.path(&data)).unwrap();
    std::fs::write(run.path(&data), &bytes[..bytes.len() - 9]).unwrap();
    let size = run.fault_of(FaultKind::Size);
    assert_eq!(size.first.file, data);
    assert_eq!(size.what, format!("it holds {} bytes, {} were committed", bytes.len() - 9, bytes.len()));
    // Without its footer it can be read no more.
    assert_eq!(run.fault_of(FaultKind::Unreadable).first.file, data);

    std::fs::remove_file(run.path(&data)).unwrap();
    let missing = run.fault();
    assert_eq!((missing.kind, &missing.first.file), (FaultKind::Missing, &data));

    std::fs::write(run.path(&data), &bytes).unwrap();
    std::fs::write(run.path("data/other-00000-of-00001.parquet"), &bytes).unwrap();
    let stray = run.fault();
    assert_eq!(
        (stray.kind, stray.first.to_string()),
        (FaultKind::Stray, "data/other-00000-of-00001.parquet".into())
    );
}

#[test]
fn records_that_cannot_be_read_or_lie_are_found_and_the_tables_are_looked_at_all_the_same() {
    let run = Run::new();
    let record = run.folder.commit_path(&run.plan.shards[0].name);
    let whole = std::fs::read(&record).unwrap();
    for (change, expected) in [
        ("plan_hash", "its plan_hash is 7, expected"),
        ("first", "its first sample is 7, expected 0"),
        ("rows", "its number of rows is 7, expected"),
        ("shard", "it is the record of shard"),
    ] {
        edit(&record, |record| {
            record[change] = if record[change].is_string() { "7".into() } else { 7.into() };
        });
        let fault = run.fault();
        assert_eq!(fault.kind, FaultKind::Record, "{fault:?}");
        assert!(fault.what.contains(expected) && fault.first.file.starts_with("state/commits"), "{fault:?}");
        std::fs::write(&record, &whole).unwrap();
    }
    std::fs::write(&record, "{").unwrap();
    let found = run.verify();
    assert_eq!(found.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::Record]);
    assert!(found.faults[0].what.starts_with("it is damaged: "), "{}", found.faults[0].what);
    assert_eq!(found.rows, run.plan.tokens());
}

#[test]
fn a_record_that_a_finished_run_has_lost_is_found() {
    let run = Run::new();
    let record = run.folder.commit_path(&run.plan.shards[1].name);
    std::fs::remove_file(&record).unwrap();
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count), (FaultKind::Record, 1));
    assert_eq!(run.path(&fault.first.file), record);
    assert_eq!(fault.what, "it is missing, though there is a summary of the run, which was finished");
    // Without a summary the run may never have been finished.
    std::fs::remove_file(run.path("summary.json")).unwrap();
    assert_eq!(run.verify().faults, []);
}

#[test]
fn tokens_that_the_model_was_not_given_are_found_by_the_record_s_hash_of_them() {
    let run = Run::new();
    run.edit_record(0, |record| record["input_hash"] = "00".into());
    let fault = run.fault();
    assert_eq!((fault.kind, fault.first.file), (FaultKind::Tokens, run.name("data", 0)));
    assert!(fault.what.ends_with("the model was given 00"), "{}", fault.what);
}

#[test]
fn tables_of_another_plan_are_found_by_their_keys() {
    let (run, mut other) = (Run::new(), content());
    other.seed += 1;
    let theirs = Run::with(other, None);
    for kind in ["data", "samples", "hidden"] {
        std::fs::copy(theirs.path(theirs.name(kind, 0)), run.path(run.name(kind, 0))).unwrap();
        run.recommit(kind, 0);
    }
    let fault = run.fault_of(FaultKind::Metadata);
    assert_eq!((fault.count, &fault.first.file), (3, &run.name("samples", 0)));
    assert!(fault.what.starts_with("`moetrace.plan_hash` is "), "{}", fault.what);
    // The same number of texts in another order: what went in is not what lies there.
    run.fault_of(FaultKind::Tokens);
}

#[test]
fn a_summary_and_token_strings_that_are_not_these_shards_are_found() {
    let run = Run::new();
    let summary = run.path("summary.json");
    let whole = std::fs::read(&summary).unwrap();
    edit(&summary, |summary| summary["tokens"] = 1.into());
    let fault = run.fault();
    assert_eq!((fault.kind, fault.first.to_string()), (FaultKind::Summary, "summary.json".into()));
    assert_eq!(fault.what, format!("1 tokens, the manifest says {}", run.plan.tokens()));
    std::fs::write(&summary, "[]").unwrap();
    assert!(run.fault().what.starts_with("it cannot be read"));
    std::fs::write(&summary, &whole).unwrap();
    for (place, change) in [
        ("metrics.layers[0].loads[3]", (|m| &mut m["layers"][0]["loads"][3]) as fn(&mut Value) -> &mut Value),
        ("metrics.overall.max_vio.mean", |m| &mut m["overall"]["max_vio"]["mean"]),
        ("metrics.datasets[0].tokens", |m| &mut m["datasets"][0]["tokens"]),
    ] {
        edit(&summary, |summary| *change(&mut summary["metrics"]) = 12_345.into());
        let fault = run.fault();
        assert!(fault.what.starts_with(&format!("{place} is 12345")), "{}", fault.what);
        assert!(
            fault.kind == FaultKind::Summary && fault.what.contains(", the rows give "),
            "{}",
            fault.what
        );
        std::fs::write(&summary, &whole).unwrap();
    }

    let words = moetrace_trace::read_vocabulary(&run.path("tokens.parquet")).unwrap();
    let settings = moetrace_trace::TraceSettings::default();
    let write = |words: &[(moetrace_routing::TokenId, String)]| {
        let bytes = moetrace_trace::write_vocabulary(Vec::new(), words, &settings).unwrap();
        std::fs::write(run.path("tokens.parquet"), bytes).unwrap();
    };
    write(&words[2..]);
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count), (FaultKind::Vocabulary, 2));
    assert!(fault.what.starts_with(&format!("token id {} of a row", words[0].0)), "{}", fault.what);
    write(&words.iter().rev().cloned().collect::<Vec<_>>());
    assert!(run.fault().what.contains("expected ascending ids"));
    for name in ["summary.json", "tokens.parquet", "README.md"] {
        std::fs::remove_file(run.path(name)).unwrap();
    }
    assert_eq!(run.verify().faults, [], "what can be made again is no fault");
}
