//! Faulty rows are counted by reason and named by file and line, or stop a strict plan.

use moetrace_corpus::SkipReason::{self, InvalidUtf8, MissingColumn, TooLong};
use moetrace_corpus::{CorpusError, CorpusSettings};
use tempfile::TempDir;

use crate::common::{gzip, json_lines, plan_one, settings, texts, write};

/// A file with one row of each fault between good ones, and the reasons by line.
fn faulty() -> (Vec<u8>, Vec<(u64, SkipReason)>) {
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(5_000));
    let endless = format!("{{\"text\": \"good one but\", \"other\": \"{}\"}}", "x".repeat(50_000));
    let deep = format!("{{\"text\": {}", "[".repeat(10_000));
    let rows: [(&[u8], Option<SkipReason>); 14] = [
        (b"{\"text\": \"good text\"}", None),
        (b"{\"text\": \"cut off", Some(SkipReason::BrokenJson)),
        (b"not json", Some(SkipReason::BrokenJson)),
        (br#"{"text": "a lone \ud800 surrogate"}"#, Some(SkipReason::BrokenJson)),
        (deep.as_bytes(), Some(SkipReason::BrokenJson)),
        (b"{\"text\": 17}", Some(SkipReason::WrongType)),
        (b"{\"text\": null}", Some(SkipReason::WrongType)),
        (b"{\"text\": {\"en\": \"nested\"}}", Some(SkipReason::WrongType)),
        (b"[\"text\", \"in a list\"]", Some(SkipReason::WrongType)),
        (b"{\"text\": \"bad \xFF byte\"}", Some(SkipReason::InvalidUtf8)),
        (b"{\"body\": \"other column\"}", Some(SkipReason::MissingColumn)),
        (long.as_bytes(), Some(SkipReason::TooLong)),
        (endless.as_bytes(), Some(SkipReason::TooLong)),
        (br#"{"text": "nul \u0000 and \u001b[31m stay"}"#, None),
    ];
    let lines: Vec<&[u8]> = rows.iter().map(|(line, _)| *line).collect();
    let reasons = rows.iter().enumerate().filter_map(|(i, (_, r))| r.map(|r| (i as u64 + 1, r))).collect();
    (lines.join(&b"\n"[..]), reasons)
}

fn small() -> CorpusSettings {
    CorpusSettings { max_text_bytes: 4_000, ..settings() }
}

#[test]
fn every_fault_is_counted_and_reported_with_its_line() {
    let folder = TempDir::new().unwrap();
    let (content, reasons) = faulty();
    let plan = plan_one(&write(&folder, "faulty.jsonl", content), None, &small()).unwrap();
    assert_eq!(texts(&plan), ["good text", "nul \0 and \u{1b}[31m stay"]);
    assert_eq!((plan.rows_seen, plan.skipped.total()), (14, reasons.len() as u64));
    let reported: Vec<_> = plan.examples.iter().map(|e| (e.line, e.reason)).collect();
    assert_eq!(reported, reasons);
    for (reason, rows) in plan.skipped.iter() {
        assert_eq!(rows, reasons.iter().filter(|(_, r)| *r == reason).count() as u64, "{reason}");
    }
    let message = plan.examples[0].to_string();
    assert!(message.starts_with("faulty.jsonl:2: broken_json: "), "{message}");
    assert!(plan.examples.iter().all(|e| !e.to_string().contains(char::is_control)));
}

#[test]
fn a_strict_plan_stops_at_the_first_fault_and_names_it() {
    let folder = TempDir::new().unwrap();
    let strict = CorpusSettings { strict: true, ..small() };
    let (content, reasons) = faulty();
    let lines: Vec<&[u8]> = content.split(|&b| b == b'\n').collect();
    for (at, expected) in reasons {
        let path = write(&folder, "one.jsonl", [lines[0], b"", lines[at as usize - 1]].join(&b"\n"[..]));
        let error = plan_one(&path, None, &strict).unwrap_err();
        let CorpusError::Row { line, reason, .. } = &error else { panic!("{error}") };
        assert_eq!((*line, *reason), (3, expected), "{error}");
        assert!(error.to_string().contains("one.jsonl:3: "), "{error}");
    }
    let harmless = write(&folder, "harmless.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"long enough\"}\n");
    assert_eq!(plan_one(&harmless, None, &strict).unwrap().skipped.get(SkipReason::TooShort), 1);
}

#[test]
fn no_more_than_twenty_faults_are_reported_one_by_one() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", format!("{{\"text\": \"good text\"}}\n{}", "broken\n".repeat(50)));
    let plan = plan_one(&path, None, &settings()).unwrap();
    assert_eq!((plan.skipped.get(SkipReason::BrokenJson), plan.examples.len()), (50, 20));
}

#[test]
fn csv_faults_are_counted_too() {
    let folder = TempDir::new().unwrap();
    let mut content = b"id,text\n1,good text\n\n2\n3,bad \xFF byte\n4,\"".to_vec();
    content.extend(b"y".repeat(5_000));
    content.extend(b"\"\n5,\"");
    content.extend(b"z\n".repeat(25_000));
    content.extend(b"\"\n6,last good text\n");
    let plan = plan_one(&write(&folder, "a.csv", content), None, &small()).unwrap();
    assert_eq!(texts(&plan), ["good text", "last good text"]);
    let reported: Vec<_> = plan.examples.iter().map(|e| (e.line, e.reason)).collect();
    assert_eq!(reported, [(4, MissingColumn), (5, InvalidUtf8), (6, TooLong), (7, TooLong)]);
}

#[test]
fn an_unclosed_quote_costs_its_rows_no_memory_and_is_reported() {
    let folder = TempDir::new().unwrap();
    let content = format!("text\ngood text\n\"never closed\n{}", "row after row\n".repeat(100_000));
    let plan = plan_one(&write(&folder, "a.csv", content), None, &small()).unwrap();
    assert_eq!((texts(&plan).len(), plan.skipped.get(SkipReason::UnclosedQuote)), (1, 1));
    assert_eq!(plan.examples[0].line, 3);
}

#[test]
fn a_quote_that_is_open_at_the_end_of_the_file_is_a_fault_of_the_line_it_stands_in() {
    let folder = TempDir::new().unwrap();
    for (name, content) in [
        ("a.csv", "text,n\ngood text,1\n\"never closed,2\nswallowed row,3\n"),
        ("a.tsv", "text\tn\ngood text\t1\n\"never closed\t2\nswallowed row\t3"),
        ("b.csv", "text,n\ngood text,1\nother,\"never closed\nswallowed row,3\"\"\n"),
        ("c.csv", "text,n\ngood text,1\n\""),
    ] {
        let path = write(&folder, name, content);
        let plan = plan_one(&path, None, &settings()).unwrap();
        assert_eq!(texts(&plan), ["good text"], "{name}");
        assert_eq!((plan.rows_seen, plan.skipped.to_string()), (2, "1 unclosed_quote".to_owned()), "{name}");
        assert_eq!(
            (plan.examples[0].line, plan.examples[0].reason),
            (3, SkipReason::UnclosedQuote),
            "{name}"
        );
        assert!(plan.examples[0].detail.contains("still open at the end of the file, line"), "{name}");
        let error = plan_one(&path, None, &CorpusSettings { strict: true, ..settings() }).unwrap_err();
        assert!(matches!(error, CorpusError::Row { line: 3, .. }), "{name}: {error}");
    }
    for (name, content) in [
        ("whole.csv", "text\n\"closed at the end\""),
        ("inner.csv", "text\nan inner \"quote"),
        ("feed.csv", "text\n\"closed at the end\"\r\n\n"),
        ("doubled.csv", "text\n\"doubled\"\"\""),
    ] {
        let plan = plan_one(&write(&folder, name, content), None, &settings()).unwrap();
        assert_eq!((texts(&plan).len(), plan.skipped.total()), (1, 0), "{name}");
    }
}

#[test]
fn rows_before_the_first_with_a_known_column_are_counted_and_cost_nothing_else() {
    let folder = TempDir::new().unwrap();
    for (name, first) in [("a.jsonl", "{\"id\": 1}"), ("b.jsonl", "{}"), ("c.json", "{\"id\": 1}")] {
        let path = write(&folder, name, format!("{first}\n{}", json_lines(["first text", "second text"])));
        let plan = plan_one(&path, None, &settings()).unwrap();
        assert_eq!(texts(&plan), ["first text", "second text"], "{name}");
        assert_eq!(plan.skipped.to_string(), "1 missing_column", "{name}");
        let shown = plan.examples[0].to_string();
        assert!(
            shown.starts_with(&format!("{name}:1: missing_column: no column of a known name")),
            "{shown}"
        );
    }
    let array = write(&folder, "d.json", "[{\"id\": 1}, {\"body\": \"some text\"}]");
    assert_eq!(plan_one(&array, None, &settings()).unwrap().skipped.to_string(), "1 missing_column");
    // Asked for in another case, the column is found in the row that has it.
    let late = write(&folder, "late.jsonl", "{\"n\": 1}\n{\"Body\": \"some text\"}\n");
    assert_eq!(plan_one(&late, Some("body"), &settings()).unwrap().column, "Body");
}

#[test]
fn texts_that_are_not_utf8_by_their_first_bytes_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let text = "text\nfirst text\nsecond text\n";
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(order).collect()
    };
    let utf32: Vec<u8> =
        std::iter::once('\u{feff}').chain(text.chars()).flat_map(|c| (c as u32).to_le_bytes()).collect();
    for name in ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt.gz"] {
        for (bytes, found) in [
            (utf16(u16::to_le_bytes), "UTF-16"),
            (utf16(u16::to_be_bytes), "UTF-16"),
            (utf32.clone(), "UTF-32"),
        ] {
            let bytes = if name == "a.txt.gz" { gzip(&bytes) } else { bytes };
            let error = plan_one(&write(&folder, name, bytes), None, &settings()).unwrap_err();
            assert!(error.to_string().ends_with(&format!("{name} is {found}, expected UTF-8")), "{error}");
        }
    }
}

#[test]
fn paragraphs_over_the_limit_or_not_utf8_are_counted() {
    let folder = TempDir::new().unwrap();
    let mut content = b"good text\n\n".to_vec();
    content.extend(b"line by line\n".repeat(400));
    content.extend(b"\nbad \xFF byte\n\n");
    content.extend(b"q".repeat(5_000));
    content.extend(b"\n\nlast good text");
    let plan = plan_one(&write(&folder, "a.txt", content), None, &small()).unwrap();
    assert_eq!(texts(&plan), ["good text", "last good text"]);
    let reported: Vec<_> = plan.examples.iter().map(|e| (e.line, e.reason)).collect();
    assert_eq!(reported, [(3, TooLong), (404, InvalidUtf8), (406, TooLong)]);
}

#[test]
fn a_column_that_no_row_has_is_an_error_with_the_columns_there_are() {
    let folder = TempDir::new().unwrap();
    for (name, content) in [
        ("a.jsonl", "{\"body\\u001b\": \"some text\", \"n\": 1}\n{\"n\": 2}\n"),
        ("a.csv", "body\u{1b},n\nsome text,1\n"),
    ] {
        let path = write(&folder, name, content);
        let error = plan_one(&path, Some("texts"), &settings()).unwrap_err();
        assert!(matches!(error, CorpusError::MissingColumn { .. }), "{error}");
        assert!(error.to_string().ends_with("columns: body\\u{1b}, n"), "{error}");
        let error = plan_one(&path, None, &settings()).unwrap_err();
        assert!(matches!(error, CorpusError::NoTextColumn { .. }), "{error}");
    }
    let late = write(&folder, "late.jsonl", "{\"n\": 1}\n{\"body\": \"some text\"}\n");
    let plan = plan_one(&late, Some("body"), &settings()).unwrap();
    assert_eq!((plan.samples.len(), plan.skipped.get(SkipReason::MissingColumn)), (1, 1));
}

#[test]
fn a_data_set_without_a_usable_text_is_an_error_with_the_counts() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"  cd  \"}\nbroken\n");
    let error = plan_one(&path, None, &settings()).unwrap_err();
    let message = "data set data: none of its 3 rows can be used; left out: 2 too_short, 1 broken_json";
    assert_eq!(error.to_string(), message);
    let CorpusError::NothingUsable { examples, .. } = error else { panic!("{error}") };
    let found: Vec<_> = examples.iter().map(|row| (row.file.as_str(), row.line, row.reason)).collect();
    assert_eq!(found, [("a.jsonl", 3, SkipReason::BrokenJson)]);
}
