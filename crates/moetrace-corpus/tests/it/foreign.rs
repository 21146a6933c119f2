//! Damaged binary files: an error that names them, never a panic, never an abort.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use moetrace_corpus::{CorpusError, CorpusSettings, ListedFile, ParquetRows, SourceSpec, parquet_rows};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{plan_one, settings, texts, write};

fn batch() -> RecordBatch {
    let strings: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..40).map(|i| format!("text number {i}"))));
    let labels: ArrayRef = Arc::new(Int32Array::from_iter_values(0..40));
    RecordBatch::try_from_iter([("text", strings), ("label", labels)]).unwrap()
}

fn parquet() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch().schema(), None).unwrap();
    writer.write(&batch()).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow(stream: bool, compressed: bool) -> Vec<u8> {
    let compression = compressed.then_some(arrow::ipc::CompressionType::ZSTD);
    let options = arrow::ipc::writer::IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let (mut bytes, batch) = (Vec::new(), batch());
    if stream {
        let mut writer =
            arrow::ipc::writer::StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options)
                .unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    } else {
        let mut writer =
            arrow::ipc::writer::FileWriter::try_new_with_options(&mut bytes, &batch.schema(), options)
                .unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }
    bytes
}

fn all() -> [(&'static str, Vec<u8>); 5] {
    [
        ("a.parquet", parquet()),
        ("a.arrow", arrow(false, false)),
        ("b.arrow", arrow(false, true)),
        ("c.arrows", arrow(true, false)),
        ("d.arrows", arrow(true, true)),
    ]
}

fn survives(path: &Path) -> Result<usize, CorpusError> {
    plan_one(path, None, &settings()).map(|plan| texts(&plan).len())
}

#[test]
fn whole_files_are_read_whole() {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in all() {
        assert_eq!(survives(&write(&folder, name, bytes)).unwrap(), 40, "{name}");
    }
}

#[test]
fn a_file_cut_at_any_length_is_an_error() {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in all() {
        for length in (0..bytes.len()).step_by(7) {
            let found = plan_one(&write(&folder, name, &bytes[..length]), None, &strict());
            assert!(found.is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn the_rows_of_a_parquet_file_are_told_by_its_end_alone() {
    let (bytes, path) = (parquet(), Path::new("a.parquet"));
    let rows = |end: usize| parquet_rows(path, &bytes[bytes.len() - end..], bytes.len() as u64).unwrap();
    let ParquetRows::Needs(needed) = rows(8) else { panic!("8 bytes do not hold a footer") };
    assert_eq!(rows(needed as usize - 1), ParquetRows::Needs(needed));
    assert_eq!([needed as usize, bytes.len()].map(rows), [ParquetRows::Known(40), ParquetRows::Known(40)]);
    let says = |end: &[u8], bytes: u64| parquet_rows(path, end, bytes).unwrap_err().to_string();
    assert_eq!(says(b"PAR1", 4), "a.parquet is damaged: it is too short");
    assert_eq!(says(b"12345678", 8), "a.parquet is damaged: it does not end as a Parquet file does");
    assert_eq!(
        says(b"\xff\xff\0\0PAR1", 4000),
        "a.parquet is damaged: its footer claims to be longer than it"
    );
    // Column data outside the file, and a footer of noise.
    assert!(says(&bytes[bytes.len() - needed as usize..], needed + 4).contains("lies outside"));
    assert!(says(&[&[7; 20][..], &20u32.to_le_bytes(), b"PAR1"].concat(), 100).contains("is damaged"));
}

#[test]
fn an_encrypted_parquet_file_is_called_so() {
    let folder = TempDir::new().unwrap();
    let mut bytes = parquet();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(b"PARE");
    let refused = parquet_rows(Path::new("a.parquet"), &bytes, bytes.len() as u64).unwrap_err();
    assert_eq!(refused.to_string(), "a.parquet is encrypted Parquet, which is not read");
    let refused = plan_one(&write(&folder, "a.parquet", &bytes), None, &settings()).unwrap_err();
    assert!(matches!(refused, CorpusError::Encrypted { .. }), "{refused}");
}

#[test]
fn a_column_that_is_not_there_is_known_by_the_first_file_that_is_read() {
    let folder = TempDir::new().unwrap();
    write(&folder, "b.parquet", parquet());
    let source = |column: Option<&str>, read: &str| SourceSpec {
        name: "x".into(),
        path: folder.path().into(),
        column: column.map(str::to_owned),
        listed: ["a.parquet", "b.parquet"]
            .map(|path| ListedFile { path: path.into(), bytes: 1, read: path == read })
            .into(),
    };
    assert!(source(None, "b.parquet").check_column().is_ok());
    let refused = source(Some("nope"), "b.parquet").check_column().unwrap_err();
    assert!(matches!(&refused, CorpusError::MissingColumn { column, .. } if column == "nope"), "{refused}");
    // A file that is to be read and is not there is missed by its name.
    let refused = source(None, "a.parquet").check_column().unwrap_err();
    assert!(refused.to_string().contains("a.parquet"), "{refused}");
    assert!(source(Some("nope"), "none of them").check_column().is_ok());
}

fn strict() -> CorpusSettings {
    CorpusSettings { strict: true, ..settings() }
}

#[test]
fn a_stream_without_the_mark_that_ends_it_is_noted_and_refused_where_no_fault_is_allowed() {
    let folder = TempDir::new().unwrap();
    for compressed in [false, true] {
        let bytes = arrow(true, compressed);
        let path = write(&folder, "a.arrows", &bytes[..bytes.len() - 8]);
        let plan = plan_one(&path, None, &settings()).unwrap();
        assert_eq!(texts(&plan).len(), 40);
        assert!(plan.notes[0].starts_with("a.arrows: it ends without the mark"), "{:?}", plan.notes);
        let error = plan_one(&path, None, &strict()).unwrap_err();
        assert!(error.to_string().contains("ends without the mark"), "{error}");
        let whole = plan_one(&write(&folder, "b.arrows", &bytes), None, &strict()).unwrap();
        assert!(whole.notes.is_empty());
    }
}

#[test]
fn a_feather_file_of_the_first_version_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.feather", b"FEA1\0\0\0\0\0\0\0\0FEA1");
    let error = plan_one(&path, None, &settings()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a.feather is a Feather file of version 1, expected version 2, which is Arrow IPC"),
        "{error}"
    );
    assert!(plan_one(&write(&folder, "b.feather", b"FE"), None, &settings()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn changed_bytes_never_panic(
        file in 0usize..5, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let folder = TempDir::new().unwrap();
        let (name, mut bytes) = all()[file].clone();
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        // Whether the change can be seen at all depends on where it fell; what counts is that we return.
        if let Err(error) = survives(&write(&folder, name, bytes)) {
            prop_assert!(!error.to_string().contains(char::is_control), "{}", error);
        }
    }
}

#[test]
fn lengths_that_no_file_has_are_refused_before_anything_is_allocated() {
    let folder = TempDir::new().unwrap();
    let bytes = arrow(true, true);
    let mut refused = 0;
    for at in (0..bytes.len() - 8).step_by(8) {
        let mut huge = bytes.clone();
        huge[at..at + 8].copy_from_slice(&(1i64 << 60).to_le_bytes());
        refused += usize::from(survives(&write(&folder, "a.arrows", huge)).is_err());
    }
    assert!(refused > 20, "{refused}");
}
