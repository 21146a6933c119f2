//! Length, repeats, truncation, token ids as they stand.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use moetrace_corpus::{CorpusError, CorpusSettings, SkipReason, plan};
use moetrace_routing::TokenId;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{
    byte_tokenizer, ids, json_lines, labels, open_tokenizer, plan_one, settings, source, texts, write,
};

#[test]
fn texts_of_more_characters_than_asked_for_after_trimming_are_used_as_they_stand() {
    let folder = TempDir::new().unwrap();
    let (fifty, more) = ("ä".repeat(50), format!("  {} ", "ä".repeat(51)));
    let path = write(&folder, "a.jsonl", json_lines([&format!(" {fifty} \n"), &more, &String::new()]));
    let plan = plan_one(&path, None, &CorpusSettings { min_chars: 50, ..settings() }).unwrap();
    assert_eq!(texts(&plan), [more.as_str()]);
    assert_eq!(plan.samples[0].tokens.iter().map(|t| t.0).collect::<Vec<_>>(), ids(&more));
    assert_eq!(plan.skipped.get(SkipReason::TooShort), 2);
}

#[test]
fn the_first_of_equal_trimmed_texts_stays() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.jsonl", json_lines(["same text", "other text", " same text\n"]));
    write(&folder, "b.jsonl", json_lines(["other text", "third text", "Same text"]));
    let plan = plan_one(folder.path(), None, &settings()).unwrap();
    assert_eq!(texts(&plan), ["same text", "other text", "third text", "Same text"]);
    assert_eq!((plan.usable, plan.skipped.get(SkipReason::Duplicate)), (4, 2));
    let trimmed = blake3::hash(b"same text");
    let first = plan.samples.iter().find(|s| s.id.0 == 0).unwrap();
    assert_eq!(first.text_hash, trimmed.as_bytes()[..16]);
}

#[test]
fn max_length_counts_the_bos_token_and_truncation_is_recorded() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", json_lines(["abcdefg", "abcdefgh", "abcdefghi"]));
    let plan = plan_one(&path, None, &CorpusSettings { max_length: 9, ..settings() }).unwrap();
    let mut found: Vec<_> = plan.samples.iter().map(|s| (s.id.0, s.tokens.len(), s.truncated)).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, 8, false), (1, 9, false), (2, 9, true)]);
    assert!(plan.samples.iter().all(|s| s.begins_with_bos));
    assert_eq!(plan.tokens(), 26);
}

#[test]
fn token_ids_are_used_as_they_stand_without_a_tokenizer() {
    let folder = TempDir::new().unwrap();
    let rows = "{\"text\": \"ignored\", \"input_ids\": [5], \"labels\": [5]}\n{\"input_ids\": [256, 7, 8, 9]}\n\
                {\"input_ids\": []}\n{\"input_ids\": [-1]}\n{\"input_ids\": [1.5]}\n{\"input_ids\": [4294967296]}\n\
                {\"input_ids\": \"5\"}\n{\"input_ids\": [5]}\n{\"input_ids\": [4294967295]}\n";
    let path = write(&folder, "a.jsonl", rows);
    let settings = CorpusSettings { max_length: 3, ..settings() };
    for tokenizer in [None, Some(crate::common::tokenizer())] {
        let sources = [source("ids", &path, None)];
        let plan = plan(&sources, tokenizer.as_ref(), &settings, &mut |_| {}).unwrap().datasets.remove(0);
        let mut found: Vec<_> = plan
            .samples
            .iter()
            .map(|s| {
                (s.id.0, s.tokens.iter().map(|t| t.0).collect::<Vec<_>>(), s.truncated, s.begins_with_bos)
            })
            .collect();
        found.sort();
        let known_bos = tokenizer.is_some();
        let expected = [
            (0, vec![5], false, false),
            (1, vec![256, 7, 8], true, known_bos),
            (8, vec![u32::MAX], false, false),
        ];
        assert_eq!(found, expected);
        assert_eq!(plan.skipped.to_string(), "1 duplicate, 4 wrong_type, 1 empty_after_tokenizing");
        assert!(plan.samples.iter().all(|s| s.text.is_none() && s.label.is_none()));
        assert_eq!(plan.column, "input_ids");
    }
}

#[test]
fn token_ids_come_out_of_parquet_and_csv_too() {
    let folder = TempDir::new().unwrap();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), Some(2)]),
        None,
        Some(vec![Some(3), None]),
        Some(vec![Some(-1)]),
    ]);
    let labels_column: ArrayRef = Arc::new(Int32Array::from(vec![9, 9, 9, 9]));
    let batch =
        RecordBatch::try_from_iter([("input_ids", Arc::new(lists) as ArrayRef), ("label", labels_column)]);
    let batch = batch.unwrap();
    let path = folder.path().join("a.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let plan = plan_one(&path, None, &settings()).unwrap();
    assert_eq!(plan.samples[0].tokens.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((plan.samples.len(), plan.skipped.get(SkipReason::WrongType)), (1, 3));
    assert_eq!(labels(&plan), [Some("9".to_owned())]);
    let csv = write(&folder, "a.csv", "input_ids,label\n\"[1, 2]\",x\n1 2,y\n");
    let plan = plan_one(&csv, None, &settings()).unwrap();
    assert_eq!(plan.samples[0].tokens.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(plan.skipped.get(SkipReason::WrongType), 1);
}

#[test]
fn texts_without_a_tokenizer_are_an_error() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", json_lines(["some text"]));
    let error = plan(&[source("d", &path, None)], None, &settings(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, CorpusError::NoTokenizer { .. }), "{error}");
    assert!(error.to_string().contains("column \"text\" holds text, which needs a tokenizer"), "{error}");
    let path = write(&folder, "b.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}");
    let error = plan(&[source("d", &path, None)], None, &settings(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("column \"messages\" holds conversations"), "{error}");
}

#[test]
fn token_ids_that_the_model_has_not_are_faulty_rows() {
    let folder = TempDir::new().unwrap();
    let ids = write(&folder, "ids.jsonl", "{\"input_ids\": [5, 99]}\n{\"input_ids\": [5, 100, 7]}\n");
    let small = CorpusSettings { vocabulary: Some(100), ..settings() };
    let dataset = plan_one(&ids, None, &small).unwrap();
    assert_eq!((dataset.samples.len(), dataset.skipped.to_string()), (1, "1 out_of_vocabulary".to_owned()));
    let shown = dataset.examples[0].to_string();
    assert_eq!(shown, "ids.jsonl:2: out_of_vocabulary: token id 100, expected one of the model's 100");
    let strict = CorpusSettings { strict: true, ..small.clone() };
    assert!(matches!(plan_one(&ids, None, &strict), Err(CorpusError::Row { line: 2, .. })));
    // The tokenizer of the tests makes ids up to 256, the one before every text.
    let path = write(&folder, "a.jsonl", json_lines(["some text", "other text"]));
    let error = plan_one(&path, None, &CorpusSettings { vocabulary: Some(256), ..settings() }).unwrap_err();
    assert!(matches!(error, CorpusError::NothingUsable { .. }), "{error}");
    let whole = plan_one(&path, None, &CorpusSettings { vocabulary: Some(257), ..settings() }).unwrap();
    assert_eq!((whole.samples.len(), whole.skipped.total()), (2, 0));
}

#[test]
fn the_models_own_bos_token_counts_in_token_ids_where_no_tokenizer_has_one() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", "{\"input_ids\": [1, 5]}\n{\"input_ids\": [256, 5]}\n");
    let texts = write(&folder, "b.jsonl", json_lines(["\u{1}some text"]));
    let plain = open_tokenizer(&byte_tokenizer(), None).unwrap();
    let with_bos = crate::common::tokenizer();
    let settings = CorpusSettings { bos: Some(TokenId(1)), ..settings() };
    for (tokenizer, expected) in
        [(None, [true, false]), (Some(&plain), [true, false]), (Some(&with_bos), [false, true])]
    {
        let found = plan(&[source("ids", &path, None)], tokenizer, &settings, &mut |_| {}).unwrap();
        let mut samples: Vec<_> =
            found.datasets[0].samples.iter().map(|s| (s.id.0, s.begins_with_bos)).collect();
        samples.sort_unstable();
        assert_eq!(samples, [(0, expected[0]), (1, expected[1])]);
    }
    // The tokenizer made this text's ids, and says that it has no such token.
    let found = plan(&[source("t", &texts, None)], Some(&plain), &settings, &mut |_| {}).unwrap();
    assert!(!found.datasets[0].samples[0].begins_with_bos);
}

#[test]
fn labels_are_short_scalars_and_texts_are_kept_only_if_asked_for() {
    let folder = TempDir::new().unwrap();
    let long = "x".repeat(201);
    let rows: Vec<String> = ["\"pos\"", "3", "true", "null", "[1]", &format!("\"{long}\""), "\"\"", "1.5"]
        .iter()
        .enumerate()
        .map(|(i, label)| format!("{{\"text\": \"text {i}\", \"label\": {label}}}"))
        .collect();
    let path = write(&folder, "a.jsonl", rows.join("\n"));
    let plan = plan_one(&path, None, &settings()).unwrap();
    let expected = [Some("pos"), Some("3"), Some("true"), None, None, None, None, Some("1.5")];
    assert_eq!(labels(&plan), expected.map(|l| l.map(str::to_owned)));
    let plan = plan_one(&path, None, &CorpusSettings { keep_text: false, ..settings() }).unwrap();
    assert!(plan.samples.iter().all(|s| s.text.is_none()));
}

#[test]
fn null_texts_and_lists_of_texts_in_parquet_are_of_a_wrong_type() {
    let folder = TempDir::new().unwrap();
    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("some text"), None]));
    let batch = RecordBatch::try_from_iter([("text", strings)]).unwrap();
    let path = folder.path().join("a.arrow");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let plan = plan_one(&path, None, &settings()).unwrap();
    assert_eq!((plan.samples.len(), plan.skipped.get(SkipReason::WrongType)), (1, 1));
    assert_eq!(plan.examples[0].to_string(), "a.arrow:2: wrong_type: text is null, expected a string");
}

#[test]
fn a_text_that_becomes_no_token_is_counted() {
    let mut deleting = byte_tokenizer();
    deleting["normalizer"] =
        serde_json::json!({"type": "Replace", "pattern": {"String": "x"}, "content": ""});
    let tokenizer = open_tokenizer(&deleting, None).unwrap();
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", json_lines(["xxxxxxxx", "some text"]));
    let plan = plan(&[source("d", &path, None)], Some(&tokenizer), &settings(), &mut |_| {});
    let plan = plan.unwrap().datasets.remove(0);
    assert_eq!(texts(&plan), ["some text"]);
    assert_eq!(plan.skipped.to_string(), "1 empty_after_tokenizing");
    assert_eq!(plan.usable, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_row_is_a_sample_or_counted_and_the_first_of_equal_rows_stays(
        words in prop::collection::vec("[ab ]{0,6}", 1..60),
        faults in prop::collection::vec(0usize..60, 0..5),
    ) {
        let folder = TempDir::new().unwrap();
        let mut rows: Vec<String> = words.iter().map(|w| json_lines([w])).collect();
        for at in faults.into_iter().filter(|&at| at < words.len()) {
            rows[at] = "broken\n".into();
        }
        let path = write(&folder, "a.jsonl", rows.concat());
        let is_text = |i: &usize| rows[*i] != "broken\n";
        let expected: Vec<u32> = (0..words.len())
            .filter(is_text)
            .filter(|&i| words[i].trim().len() > settings().min_chars)
            .filter(|&i| !(0..i).filter(is_text).any(|j| words[j].trim() == words[i].trim()))
            .map(|i| i as u32)
            .collect();
        match plan_one(&path, None, &settings()) {
            Ok(plan) => {
                let mut found: Vec<u32> = plan.samples.iter().map(|s| s.id.0).collect();
                found.sort_unstable();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(plan.samples.len() as u64 + plan.skipped.total(), words.len() as u64);
            }
            Err(CorpusError::NothingUsable { rows, skipped, .. }) => {
                prop_assert_eq!((expected.len(), rows), (0, words.len() as u64));
                prop_assert_eq!(skipped.total(), rows);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
