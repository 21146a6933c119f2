//! Files that were cut, flipped or written by somebody else: an error that names them, never a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, RecordBatch, UInt8Array, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, UInt8Type, UInt32Type};
use moetrace_routing::{Planes, RoutingError, SampleId};
use moetrace_trace::{
    ShardReader, TraceError, TraceSettings, read_rows, read_samples, read_vocabulary, verify_footer,
    write_samples, write_vocabulary,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use crate::fixture::{Memory, Numbers, Recording, all_columns, geometry};

const EVERYTHING: Planes = Planes { logits: true, shared_gate: true, hidden: true, nll: true };

fn small() -> Recording {
    Recording::new(&geometry(4, 2, 2).with_shared_gate(), &[3, 1, 5], 1)
}

fn play(data: &Path, samples: &Path) -> Result<Recording, TraceError> {
    let reader = ShardReader::open(data, samples)?;
    let mut memory = Memory::new(reader.geometry(), EVERYTHING);
    reader.play(6, &mut memory)?;
    Ok(memory.heard)
}

fn everything() -> TraceSettings {
    TraceSettings { columns: all_columns(), ..TraceSettings::default() }
}

struct Files {
    _dir: TempDir,
    data: PathBuf,
    samples: PathBuf,
    broken: PathBuf,
}

impl Files {
    /// Reads the broken file as the table it was.
    fn read(&self, table: usize) -> Result<(), TraceError> {
        match table {
            0 => read_rows(&self.broken, 100).and(play(&self.broken, &self.samples)).map(drop),
            1 => play(&self.data, &self.broken).map(drop),
            _ => read_vocabulary(&self.broken).map(drop),
        }
    }
}

fn files() -> (Files, [Vec<u8>; 3]) {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    let words: Vec<_> = recording.token_ids.iter().map(|&id| (id, id.to_string())).collect();
    let words = write_vocabulary(Vec::new(), &words, &everything()).unwrap();
    let bytes = [fs::read(&data).unwrap(), fs::read(&samples).unwrap(), words];
    let broken = dir.path().join("broken.parquet");
    (Files { _dir: dir, data, samples, broken }, bytes)
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let (files, tables) = files();
    for (table, bytes) in tables.iter().enumerate() {
        for length in 0..bytes.len() {
            fs::write(&files.broken, &bytes[..length]).unwrap();
            for error in [files.read(table).unwrap_err(), verify_footer(&files.broken).unwrap_err()] {
                assert!(error.to_string().contains("broken.parquet"), "{length}: {error}");
            }
        }
    }
}

#[test]
fn ten_thousand_flipped_bits_never_panic() {
    let (files, tables) = files();
    let mut numbers = Numbers::new(11);
    let mut noticed = 0;
    for flip in 0..10_000 {
        let table = flip % tables.len();
        let mut bytes = tables[table].clone();
        let at = numbers.next() as usize % bytes.len();
        bytes[at] ^= 1 << (numbers.next() % 8);
        fs::write(&files.broken, &bytes).unwrap();
        if let Err(error) = files.read(table) {
            noticed += 1;
            assert!(error.to_string().contains("broken.parquet"), "{error}");
        }
    }
    // The rest reads as other values: only a hash of the whole file, which a run keeps, finds all.
    assert!(noticed > 2_000, "{noticed} of 10,000");
}

/// Writes the tokens table again with other columns, as another tool would.
fn rewrite(data: &Path, change: impl Fn(&str, &ArrayRef) -> Option<ArrayRef>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(data).unwrap()).unwrap();
    // The batches of a reader leave the schema's metadata out.
    let schema = builder.schema().clone();
    let batch = builder.build().unwrap().next().unwrap().unwrap();
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| change(field.name(), column).unwrap_or_else(|| Arc::clone(column)))
        .collect();
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(data).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The list column with its values replaced, its items named and nullable as `pyarrow` makes them.
fn other_list(column: &ArrayRef, values: Vec<u8>) -> ArrayRef {
    let width = column.as_fixed_size_list().value_length();
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    Arc::new(FixedSizeListArray::new(item, width, Arc::new(UInt8Array::from(values)), None))
}

fn bytes_of(column: &ArrayRef) -> Vec<u8> {
    column.as_fixed_size_list().values().as_primitive::<UInt8Type>().values().to_vec()
}

#[test]
fn a_file_rewritten_by_another_tool_reads_the_same() {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    let before = play(&data, &samples).unwrap();
    rewrite(&data, |name, column| {
        let text = || arrow::compute::cast(column, &DataType::Utf8).ok();
        match name {
            "dataset" => text(),
            _ if name.starts_with("experts_") => Some(other_list(column, bytes_of(column))),
            _ => None,
        }
    });
    let after = play(&data, &samples).unwrap();
    assert_eq!((before.layers, before.spans), (after.layers, after.spans));
}

#[test]
fn routing_that_cannot_be_names_file_and_row() {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    rewrite(&data, |name, column| {
        (name == "experts_02").then(|| {
            let mut ids = bytes_of(column);
            ids[7 * 2 + 1] = ids[7 * 2];
            other_list(column, ids)
        })
    });
    let error = play(&data, &samples).unwrap_err();
    let TraceError::Routing { file, row, source } = error else { unreachable!("{error}") };
    assert_eq!((file, row), (data, 7));
    assert!(matches!(source, RoutingError::ExpertTwice { .. }), "{source}");
}

#[test]
fn rows_in_another_order_than_the_samples_table_are_refused() {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    rewrite(&data, |name, column| {
        (name == "sample_id").then(|| {
            let mut ids = column.as_primitive::<UInt32Type>().values().to_vec();
            ids.swap(3, 4);
            Arc::new(UInt32Array::from(ids)) as ArrayRef
        })
    });
    let error = play(&data, &samples).unwrap_err();
    assert!(
        matches!(error, TraceError::SampleOrder { row: 3, found: SampleId(7), expected: SampleId(4), .. }),
        "{error}"
    );
}

#[test]
fn a_missing_value_or_a_column_of_another_type_is_named() {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    rewrite(&data, |name, column| {
        (name == "sample_id").then(|| {
            let ids = column.as_primitive::<UInt32Type>().values();
            Arc::new(ids.iter().enumerate().map(|(i, &id)| (i != 2).then_some(id)).collect::<UInt32Array>())
                as _
        })
    });
    let error = play(&data, &samples).unwrap_err();
    assert!(matches!(&error, TraceError::Null { column, .. } if column == "sample_id"), "{error}");
    rewrite(&data, |name, column| {
        (name == "margin_01").then(|| arrow::compute::cast(column, &DataType::Float64).unwrap())
    });
    let error = ShardReader::open(&data, &samples).unwrap_err();
    assert!(
        matches!(&error, TraceError::Column { column, found, .. } if column == "margin_01" && found == "Float64"),
        "{error}"
    );
}

#[test]
fn a_samples_table_of_other_lengths_is_refused_before_any_row_is_decoded() {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    let mut rows = recording.samples();
    rows[1].tokens += 1;
    fs::write(&samples, write_samples(Vec::new(), "letters", &rows, &everything()).unwrap()).unwrap();
    let error = ShardReader::open(&data, &samples).unwrap_err();
    assert!(matches!(error, TraceError::RowCount { found: 9, expected: 10, .. }), "{error}");
    // The right sum, but the second sample has a row of the third.
    rows[2].tokens -= 1;
    fs::write(&samples, write_samples(Vec::new(), "letters", &rows, &everything()).unwrap()).unwrap();
    let error = play(&data, &samples).unwrap_err();
    assert!(matches!(error, TraceError::SampleOrder { row: 4, .. }), "{error}");
}

#[test]
fn a_newer_schema_is_refused_with_both_versions() {
    let (recording, dir) = (small(), tempfile::tempdir().unwrap());
    let (data, samples) = recording.write_files(&dir, &everything());
    let batch = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&data).unwrap()).unwrap();
    let mut metadata = batch.schema().metadata().clone();
    metadata.insert("moetrace.schema_version".to_owned(), "2".to_owned());
    let batch = batch.build().unwrap().next().unwrap().unwrap();
    let schema = Arc::new(Schema::new_with_metadata(batch.schema().fields().clone(), metadata));
    let mut writer =
        ArrowWriter::try_new(fs::File::create(&data).unwrap(), Arc::clone(&schema), None).unwrap();
    writer.write(&batch.with_schema(schema).unwrap()).unwrap();
    writer.close().unwrap();
    let error = ShardReader::open(&data, &samples).unwrap_err();
    assert!(matches!(error, TraceError::Version { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let missing = Path::new("there/is/no/such.parquet");
    let error = read_samples(missing).unwrap_err();
    assert_eq!(error.io_error().map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
}
