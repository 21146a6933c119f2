//! Which samples are chosen: by seed, evenly, extensibly.

use moetrace_corpus::{CorpusError, CorpusEvent, CorpusSettings, ListedFile, SourceSpec, files_needed, plan};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{json_lines, plan_all, plan_one, settings, source, tokenizer, write};

fn numbered(n: usize) -> String {
    json_lines((0..n).map(|i| format!("text number {i}")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_smaller_quota_is_a_prefix_and_the_same_seed_gives_the_same_plan(
        rows in 1usize..200, small in 1usize..100, more in 0usize..100, seed: u64,
    ) {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, "a.jsonl", numbered(rows));
        let of = |traces| plan_one(&path, None, &CorpusSettings { traces, seed, ..settings() }).unwrap();
        let (few, many) = (of(small), of(small + more));
        prop_assert_eq!(few.samples.len(), small.min(rows));
        prop_assert_eq!(&few.samples[..], &many.samples[..few.samples.len()]);
        prop_assert_eq!(few.shortfall(), small - small.min(rows));
        prop_assert_eq!(of(small), few);
    }
}

#[test]
fn another_seed_or_name_chooses_other_rows() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", numbered(200));
    let rows = |name: &str, seed| {
        let settings = CorpusSettings { traces: 20, seed, ..settings() };
        let plan = plan_all(&[source(name, &path, None)], &settings).unwrap();
        plan.datasets[0].samples.iter().map(|s| s.id.0).collect::<Vec<_>>()
    };
    assert_ne!(rows("a", 0), rows("a", 1));
    assert_ne!(rows("a", 0), rows("b", 0));
}

#[test]
fn samples_come_from_the_whole_split() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", numbered(4_000));
    let plan = plan_one(&path, None, &CorpusSettings { traces: 400, ..settings() }).unwrap();
    let mut quarters = [0; 4];
    for sample in &plan.samples {
        quarters[sample.id.index() / 1_000] += 1;
    }
    // 100 each are expected, with a standard deviation of 8.2 (hypergeometric); 40 away is 4.9 of them.
    assert!(quarters.iter().all(|q| (60..=140).contains(q)), "{quarters:?}");
}

#[test]
fn the_quota_is_shared_equally_and_remainders_go_to_the_first() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", numbered(50));
    let short = write(&folder, "b.jsonl", numbered(2));
    let sources = [source("a", &path, None), source("b", &short, None), source("c", &path, None)];
    let plan = plan_all(&sources, &CorpusSettings { traces: 14, ..settings() }).unwrap();
    let found: Vec<_> = plan.datasets.iter().map(|d| (d.quota, d.samples.len(), d.shortfall())).collect();
    assert_eq!(found, [(5, 5, 0), (5, 2, 3), (4, 4, 0)]);
    let plan = plan_all(&sources, &CorpusSettings { traces: 1, ..settings() }).unwrap();
    let found: Vec<_> = plan.datasets.iter().map(|d| (d.samples.len(), d.files[0].read)).collect();
    assert_eq!(found, [(1, true), (0, false), (0, false)]);
}

#[test]
fn beyond_the_file_budget_a_seeded_choice_of_whole_files_is_read() {
    let folder = TempDir::new().unwrap();
    for file in 0..10 {
        write(&folder, &format!("{file}.jsonl"), json_lines((0..20).map(|i| format!("text {i} of {file}"))));
    }
    let one = std::fs::metadata(folder.path().join("0.jsonl")).unwrap().len();
    let read = |file_budget, seed| {
        let plan =
            plan_one(folder.path(), None, &CorpusSettings { file_budget, seed, ..settings() }).unwrap();
        let read: Vec<bool> = plan.files.iter().map(|f| f.read).collect();
        assert!(plan.samples.iter().all(|s| read[s.file as usize]));
        assert!(plan.files.iter().all(|f| f.read != f.blake3.is_empty()));
        assert_eq!(plan.rows_seen, 20 * read.iter().filter(|r| **r).count() as u64);
        read
    };
    let count = |read: &[bool]| read.iter().filter(|r| **r).count();
    assert_eq!(count(&read(10 * one, 0)), 10);
    assert_eq!(count(&read(3 * one, 0)), 3);
    assert_eq!(count(&read(1, 0)), 1);
    assert_eq!(read(3 * one, 5), read(3 * one, 5));
    assert!((1..20).any(|seed| read(3 * one, seed) != read(3 * one, 0)));
}

#[test]
fn of_files_that_are_known_beforehand_those_left_out_need_not_be_there() {
    let folder = TempDir::new().unwrap();
    let listed: Vec<ListedFile> = (0..10)
        .rev()
        .map(|file| {
            let lines = json_lines((0..20).map(|i| format!("text {i} of {file}")));
            let (path, bytes, read) = (format!("part/{file}.jsonl"), lines.len() as u64, file % 4 == 1);
            if read {
                write(&folder, &path, lines);
            }
            ListedFile { path, bytes, read }
        })
        .collect();
    write(&folder, "part/not-listed.jsonl", json_lines(["a text of another file".to_owned()]));
    let known = SourceSpec { listed, ..source("n", folder.path(), None) };
    let plan = plan_all(&[known], &settings()).unwrap().datasets.remove(0);
    let files = plan.files.iter();
    let files: Vec<(&str, bool)> = files.map(|f| (f.path.as_str(), f.read)).filter(|f| f.1).collect();
    assert_eq!(files, ["part/1.jsonl", "part/5.jsonl", "part/9.jsonl"].map(|path| (path, true)));
    assert_eq!((plan.files.len(), plan.rows_seen), (10, 60));
}

#[test]
fn of_files_that_are_not_here_as_many_are_needed_as_hold_four_rows_for_each_sample() {
    let names: Vec<String> = (0..10).map(|i| format!("train-{i:05}.parquet")).collect();
    let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 100)).collect();
    let needed = |file_budget, seed, quota, rows: u64| {
        let settings = CorpusSettings { file_budget, seed, ..settings() };
        let mut asked = 0;
        let needed = files_needed(&files, "n", &settings, quota, |_| {
            asked += 1;
            Ok::<_, ()>(rows)
        });
        (needed.unwrap(), asked)
    };
    let count = |(needed, asked): (Vec<bool>, usize)| (needed.iter().filter(|n| **n).count(), asked);
    // What fits is taken whole, and nobody is asked.
    assert_eq!(count(needed(1000, 0, 1, 50)), (10, 0));
    assert_eq!(count(needed(999, 0, 1, 50)), (1, 1));
    assert_eq!(count(needed(999, 0, 12, 50)), (1, 1));
    assert_eq!(count(needed(999, 0, 13, 50)), (2, 2));
    assert_eq!(count(needed(999, 0, 1000, 50)), (10, 10));
    // More samples only add files; another seed takes others.
    let (few, many) = (needed(999, 3, 20, 50).0, needed(999, 3, 60, 50).0);
    assert!(few.iter().zip(&many).all(|(few, many)| !few || *many) && few != many);
    assert!((0..20).any(|seed| needed(999, seed, 20, 50).0 != few));
    let refused = files_needed(&files, "n", &CorpusSettings { file_budget: 1, ..settings() }, 1, |_| Err(7));
    assert_eq!(refused, Err(7));
}

#[test]
fn settings_and_sources_out_of_range_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", numbered(5));
    let a = source("a", &path, None);
    for bad in [
        CorpusSettings { traces: 0, ..settings() },
        CorpusSettings { max_length: 0, ..settings() },
        CorpusSettings { max_length: 65_537, ..settings() },
        CorpusSettings { max_text_bytes: 0, ..settings() },
    ] {
        let error = plan_all(std::slice::from_ref(&a), &bad).unwrap_err();
        assert!(matches!(error, CorpusError::Setting { .. }), "{error}");
    }
    assert!(matches!(plan_all(&[], &settings()), Err(CorpusError::NoSources)));
    assert!(matches!(plan_all(&[a.clone(), a], &settings()), Err(CorpusError::SameName { .. })));
    let escaping = source("../a", &path, None);
    assert!(matches!(plan_all(&[escaping], &settings()), Err(CorpusError::SourceName { .. })));
}

#[test]
fn progress_ends_with_every_row_and_every_sample() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", numbered(50));
    let mut events = Vec::new();
    plan(&[source("a", &path, None)], Some(&tokenizer()), &settings(), &mut |e| events.push(e)).unwrap();
    assert!(matches!(events.first(), Some(CorpusEvent::Opened { files: 1, bytes, .. }) if *bytes > 0));
    assert!(events.iter().any(|e| matches!(e, CorpusEvent::Scanned { rows: 50, .. })));
    assert!(matches!(events.last(), Some(CorpusEvent::Tokenized { done: 50, of: 50, .. })));
}

#[test]
fn a_file_that_changes_between_its_two_readings_is_an_error() {
    let folder = TempDir::new().unwrap();
    for changed in [numbered(40), json_lines((0..50).map(|i| format!("other text {i}"))), String::new()] {
        let path = write(&folder, "a.jsonl", numbered(50));
        let mut change = |event| {
            if let CorpusEvent::Scanned { .. } = event {
                std::fs::write(&path, &changed).unwrap();
            }
        };
        let found = plan(&[source("a", &path, None)], Some(&tokenizer()), &settings(), &mut change);
        assert!(matches!(found, Err(CorpusError::Changed { .. })), "{found:?}");
    }
}
