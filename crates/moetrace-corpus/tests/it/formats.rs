//! Every format yields the same rows.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use moetrace_corpus::CorpusError;
use tempfile::TempDir;

use crate::common::{gzip, ids, json_lines, labels, plan_one, settings, texts, write};

const TEXTS: [&str; 3] = ["first text", "second, \"quoted\"\ntext", "dritter täxt 三"];

fn label_names() -> Vec<Option<String>> {
    ["1", "0", "1"].map(|l| Some(l.to_owned())).to_vec()
}

fn json_objects() -> Vec<String> {
    let object = |(text, label): (&str, i32)| {
        serde_json::json!({"id": 7, "text": text, "label": label, "deep": [[{"x": null}]]}).to_string()
    };
    TEXTS.into_iter().zip([1, 0, 1]).map(object).collect()
}

fn table(strings: ArrayRef) -> RecordBatch {
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0, 1]));
    RecordBatch::try_from_iter([("id", labels.clone()), ("text", strings), ("label", labels)]).unwrap()
}

#[test]
fn text_formats_yield_the_same_rows_plain_and_compressed() {
    let lines = json_objects().join("\n");
    let array = format!("\u{feff}[\n{}\n]\n", json_objects().join(",\n"));
    let rows = |delimiter: &str| {
        let quoted = TEXTS.map(|text| format!("\"{}\"", text.replace('"', "\"\"")));
        let row = |(text, label): (String, i32)| format!("7{delimiter}{text}{delimiter}{label}\r\n");
        let body: String = quoted.into_iter().zip([1, 0, 1]).map(row).collect();
        format!("\u{feff}id{delimiter}Text{delimiter}Label\r\n{body}")
    };
    let all = [
        ("a.jsonl", lines.clone()),
        ("a.ndjson", format!("\u{feff}{lines}\r\n\r\n")),
        ("a.json", array.clone()),
        ("lines.json", lines.clone()),
        ("a.csv", rows(",")),
        ("a.tsv", rows("\t")),
        ("no_suffix", lines.clone()),
    ];
    let folder = TempDir::new().unwrap();
    for (name, content) in all {
        let zst = zstd::encode_all(content.as_bytes(), 3).unwrap();
        let mut gz_members = gzip(&content.as_bytes()[..40]);
        gz_members.extend(gzip(&content.as_bytes()[40..]));
        let plain = content.into_bytes();
        let files =
            [(name.to_owned(), plain), (format!("{name}.gz"), gz_members), (format!("{name}.zst"), zst)];
        for (name, bytes) in files.into_iter().filter(|(name, _)| !name.starts_with("no_suffix.")) {
            let plan = plan_one(&write(&folder, &name, bytes), None, &settings()).unwrap();
            assert_eq!(texts(&plan), TEXTS, "{name}");
            assert_eq!(labels(&plan), label_names(), "{name}");
            assert_eq!((plan.rows_seen, plan.usable, plan.skipped.total()), (3, 3, 0), "{name}");
            assert!(plan.column.eq_ignore_ascii_case("text"), "{name}");
            let first = plan.samples.iter().find(|s| s.id.0 == 0).unwrap();
            assert_eq!(first.tokens.iter().map(|t| t.0).collect::<Vec<_>>(), ids(TEXTS[0]), "{name}");
        }
    }
}

#[test]
fn parquet_and_arrow_yield_the_same_rows_in_every_string_type() {
    let folder = TempDir::new().unwrap();
    let plain: ArrayRef = Arc::new(StringArray::from(TEXTS.to_vec()));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let arrays: [(&str, ArrayRef); 4] = [
        ("utf8", plain.clone()),
        ("large", cast(&plain, &DataType::LargeUtf8).unwrap()),
        ("view", Arc::new(StringViewArray::from(TEXTS.to_vec()))),
        ("dictionary", cast(&plain, &dictionary).unwrap()),
    ];
    for (kind, strings) in arrays {
        let batch = table(strings);
        let parquet = folder.path().join(format!("{kind}.parquet"));
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(File::create(&parquet).unwrap(), batch.schema(), None)
                .unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let (file, stream) =
            (folder.path().join(format!("{kind}.arrow")), folder.path().join(format!("{kind}.arrows")));
        let mut writer =
            arrow::ipc::writer::FileWriter::try_new(File::create(&file).unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut writer =
            arrow::ipc::writer::StreamWriter::try_new(File::create(&stream).unwrap(), &batch.schema())
                .unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let unnamed = folder.path().join(format!("{kind}-without-suffix"));
        std::fs::copy(&stream, &unnamed).unwrap();
        for path in [parquet, file, stream, unnamed] {
            let plan = plan_one(&path, None, &settings()).unwrap();
            assert_eq!(texts(&plan), TEXTS, "{}", path.display());
            assert_eq!(labels(&plan), label_names(), "{}", path.display());
        }
    }
}

#[test]
fn numbers_of_classes_become_their_names_where_the_file_has_them() {
    let folder = TempDir::new().unwrap();
    let features = r#"{"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}"#;
    let schema = Schema::new_with_metadata(
        vec![Field::new("text", DataType::Utf8, false), Field::new("label", DataType::Int64, false)],
        [("huggingface".to_owned(), features.to_owned())].into(),
    );
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(TEXTS.to_vec())), Arc::new(Int64Array::from(vec![1, 0, -1]))];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let (parquet, arrow) = (folder.path().join("a.parquet"), folder.path().join("a.arrow"));
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(File::create(&parquet).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut writer =
        arrow::ipc::writer::FileWriter::try_new(File::create(&arrow).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    for path in [parquet, arrow] {
        let plan = plan_one(&path, None, &settings()).unwrap();
        assert_eq!(
            labels(&plan),
            ["pos", "neg", "-1"].map(|name| Some(name.to_owned())),
            "{}",
            path.display()
        );
    }
}

#[test]
fn compressed_arrow_batches_are_read() {
    let folder = TempDir::new().unwrap();
    let long = TEXTS.map(|text| text.repeat(100));
    let batch = table(Arc::new(StringArray::from(long.to_vec())));
    for compression in [arrow::ipc::CompressionType::LZ4_FRAME, arrow::ipc::CompressionType::ZSTD] {
        let path = folder.path().join("a.feather");
        let options =
            arrow::ipc::writer::IpcWriteOptions::default().try_with_compression(Some(compression)).unwrap();
        let file = File::create(&path).unwrap();
        let mut writer =
            arrow::ipc::writer::FileWriter::try_new_with_options(file, &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(texts(&plan_one(&path, None, &settings()).unwrap()), long);
    }
}

#[test]
fn csv_without_header_needs_a_number_or_a_single_column() {
    let folder = TempDir::new().unwrap();
    let table = write(&folder, "t.csv", "3,\"some text\nhere\"\n1,another text\n");
    let plan = plan_one(&table, Some("1"), &settings()).unwrap();
    assert_eq!(texts(&plan), ["some text\nhere", "another text"]);
    let error = plan_one(&table, None, &settings()).unwrap_err();
    assert!(matches!(error, CorpusError::NoTextColumn { .. }), "{error}");
    assert!(plan_one(&table, Some("2"), &settings()).is_err());
    let single = write(&folder, "s.csv", "some text\n\nanother text\n");
    assert_eq!(texts(&plan_one(&single, None, &settings()).unwrap()), ["some text", "another text"]);
    let headed = write(&folder, "h.csv", "label,body\n1,some text\n");
    let plan = plan_one(&headed, Some("1"), &settings()).unwrap();
    assert_eq!((plan.column.as_str(), texts(&plan)), ("body", vec!["some text".to_owned()]));
}

#[test]
fn text_files_are_paragraphs_or_lines_if_no_blank_line_divides_them() {
    let folder = TempDir::new().unwrap();
    let book = write(&folder, "book.txt", "\n\nOne para-\ngraph here.\n \t\n\nAnother one.\n");
    assert_eq!(
        texts(&plan_one(&book, None, &settings()).unwrap()),
        ["One para-\ngraph here.", "Another one."]
    );
    let list = write(&folder, "list.txt", "\nfirst text\nsecond text\r\nthird text\n\n");
    let plan = plan_one(&list, None, &settings()).unwrap();
    assert_eq!(texts(&plan), ["first text", "second text", "third text"]);
    assert!(matches!(plan_one(&list, Some("body"), &settings()), Err(CorpusError::MissingColumn { .. })));
    assert!(plan_one(&list, Some("text"), &settings()).is_ok());
}

#[test]
fn sample_ids_run_on_over_the_files_of_a_folder_in_name_order() {
    let folder = TempDir::new().unwrap();
    write(&folder, "b/two.csv", "text\nfourth text\n");
    write(&folder, "a.jsonl", "{\"text\": \"first text\"}\nbroken\n{\"text\": \"third text\"}\n");
    write(&folder, "c.txt", "fifth text\n");
    write(&folder, "README.txt", "about these texts\n");
    let plan = plan_one(folder.path(), None, &settings()).unwrap();
    let mut found: Vec<_> =
        plan.samples.iter().map(|s| (s.id.0, s.file, s.row, s.text.clone().unwrap())).collect();
    found.sort();
    let expected = [(0, 0, 0, "first"), (2, 0, 2, "third"), (3, 1, 0, "fourth"), (4, 2, 0, "fifth")];
    assert_eq!(found, expected.map(|(id, file, row, text)| (id, file, row, format!("{text} text"))));
    let files: Vec<_> = plan.files.iter().map(|f| (f.path.as_str(), f.read, f.blake3.len())).collect();
    assert_eq!(files, [("a.jsonl", true, 64), ("b/two.csv", true, 64), ("c.txt", true, 64)]);
}

#[test]
fn empty_unknown_and_absent_files_have_their_own_errors() {
    let folder = TempDir::new().unwrap();
    for name in ["e.jsonl", "e.csv", "e.txt", "e.json", "e.arrow"] {
        let error = plan_one(&write(&folder, name, ""), None, &settings()).unwrap_err();
        assert!(matches!(error, CorpusError::NothingUsable { rows: 0, .. }), "{name}: {error}");
    }
    let error = plan_one(&write(&folder, "e.parquet", ""), None, &settings()).unwrap_err();
    assert!(matches!(error, CorpusError::Damaged { .. }), "{error}");
    let error = plan_one(&write(&folder, "e.bin", "\0\0\0\0"), None, &settings()).unwrap_err();
    assert!(matches!(error, CorpusError::UnknownFormat { .. }), "{error}");
    let error = plan_one(&folder.path().join("absent.csv"), None, &settings()).unwrap_err();
    assert!(matches!(error, CorpusError::Io { .. }), "{error}");
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let error = plan_one(&folder.path().join("empty"), None, &settings()).unwrap_err();
    assert!(matches!(error, CorpusError::NoFiles { .. }), "{error}");
    let nested = write(&folder, "squad.json", "{\n  \"data\": [\n  ]\n}\n");
    let error = plan_one(&nested, None, &settings()).unwrap_err();
    assert!(matches!(error, CorpusError::NestedJson { .. }), "{error}");
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_refused_and_never_waited_for() {
    let error = plan_one(std::path::Path::new("/dev/zero"), None, &settings()).unwrap_err();
    assert!(error.to_string().contains("/dev/zero is a device, expected a file"), "{error}");
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = plan_one(&pipe, None, &settings()).unwrap_err();
    assert!(error.to_string().contains("pipe.jsonl is a pipe, expected a file"), "{error}");
}

#[test]
#[cfg(unix)]
fn a_link_that_leads_nowhere_is_noted_and_refused_where_no_fault_is_allowed() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.jsonl", json_lines(["some text"]));
    std::os::unix::fs::symlink("nowhere", folder.path().join("b.jsonl")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("b.py")).unwrap();
    let plan = plan_one(folder.path(), None, &settings()).unwrap();
    assert_eq!((texts(&plan).len(), plan.notes.len()), (1, 1));
    assert!(
        plan.notes[0].ends_with("b.jsonl is a link that leads nowhere and was passed over"),
        "{:?}",
        plan.notes
    );
    let strict = moetrace_corpus::CorpusSettings { strict: true, ..settings() };
    let error = plan_one(folder.path(), None, &strict).unwrap_err();
    assert!(matches!(&error, CorpusError::Io { path, .. } if path.ends_with("b.jsonl")), "{error}");
}

#[test]
fn the_label_column_is_that_of_the_first_object_that_has_one() {
    let folder = TempDir::new().unwrap();
    let lines = "{\"text\": \"first text\"}\n{\"topic\": \"t\", \"Label\": \"a\", \"text\": \"second text\"}\n\
                 {\"text\": \"third text\", \"Label\": 7, \"label\": \"no\"}\n{\"text\": \"fourth text\", \"topic\": \"t\"}\n";
    let plan = plan_one(&write(&folder, "a.jsonl", lines), None, &settings()).unwrap();
    assert_eq!(labels(&plan), [None, Some("a".to_owned()), Some("7".to_owned()), None]);
    assert_eq!(plan.label_column.as_deref(), Some("Label"));
    let asked = write(
        &folder,
        "b.jsonl",
        "{\"topic\": \"first text\"}\n{\"topic\": \"second text\", \"class\": 1}\n",
    );
    let plan = plan_one(&asked, Some("topic"), &settings()).unwrap();
    assert_eq!((texts(&plan).len(), labels(&plan)), (2, vec![None, Some("1".to_owned())]));
}

#[test]
fn a_truncated_compressed_file_is_damaged_and_not_shorter() {
    let folder = TempDir::new().unwrap();
    let content = json_lines((0..500).map(|i| format!("text number {i}")));
    let mut zst = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    zst.write_all(content.as_bytes()).unwrap();
    for (name, bytes) in [("a.jsonl.gz", gzip(content.as_bytes())), ("a.jsonl.zst", zst.finish().unwrap())] {
        let path = write(&folder, name, &bytes[..bytes.len() - 9]);
        let error = plan_one(&path, None, &settings()).unwrap_err();
        assert!(matches!(error, CorpusError::Damaged { .. }), "{name}: {error}");
    }
}
