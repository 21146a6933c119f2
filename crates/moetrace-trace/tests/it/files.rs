//! What the files are made of: row groups, encodings, metadata, the tables beside the tokens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, SchemaRef, UInt16Type, UInt32Type};
use moetrace_routing::{Planes, TokenId, WeightPrecision};
use moetrace_trace::{
    MAX_GROUP_ROWS, SampleRow, ShardReader, TraceColumns, TraceError, TraceSettings, read_columns, read_rows,
    read_samples, read_vocabulary, verify_footer, write_samples, write_vocabulary,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use crate::fixture::{Memory, Recording, all_columns, geometry};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn footer(bytes: &[u8]) -> ParquetMetaData {
    SerializedFileReader::new(file(bytes)).unwrap().metadata().clone()
}

fn batch(bytes: &[u8]) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file(bytes)).unwrap();
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// The batches of a reader leave the schema's metadata out.
fn arrow_schema(bytes: &[u8]) -> SchemaRef {
    ParquetRecordBatchReaderBuilder::try_new(file(bytes)).unwrap().schema().clone()
}

fn column<'a>(footer: &'a ParquetMetaData, path: &str) -> &'a ColumnChunkMetaData {
    footer.row_group(0).columns().iter().find(|c| c.column_path().string() == path).unwrap()
}

#[test]
fn row_groups_end_with_samples_at_131072_rows_whatever_the_passes_and_threads() {
    let geometry = geometry(4, 1, 1);
    // The fourth sample would exceed the first group; the longest sample allowed is among the rest.
    let recording = Recording::new(&geometry, &[40_000, 40_000, 40_000, 12_000, 65_535, 1, 9_000], 5);
    let settings = |threads| TraceSettings { threads, ..TraceSettings::default() };
    let one = recording.write(&settings(1), 7);
    let rows: Vec<i64> = footer(&one.data).row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [120_000, 12_000 + 65_535 + 1 + 9_000]);
    assert!(rows.iter().all(|&rows| rows as usize <= MAX_GROUP_ROWS));
    assert_eq!(one.rows, recording.token_ids.len() as u64);
    for (threads, samples_per_pass) in [(1, 1), (2, 2), (3, 3)] {
        assert!(one.data == recording.write(&settings(threads), samples_per_pass).data);
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, samples) = recording.write_files(&dir, &settings(2));
    let mut memory = Memory::new(&geometry, Planes::default());
    ShardReader::open(&data, &samples).unwrap().play(50_000, &mut memory).unwrap();
    assert_eq!(memory.heard.layers[0].experts, recording.layers[0].experts);
    // 40,000 | 40,000 | 40,000 | 12,000 | 65,535 by itself | the rest
    assert_eq!(memory.passes, 6);
}

#[test]
fn row_groups_of_wide_rows_end_at_64_megabytes() {
    // 1,024 logits a token: 4,125 bytes a row and so 15,515 rows in 64 MB.
    let recording = Recording::new(&geometry(1_024, 1, 1), &[500; 40], 6);
    let columns = TraceColumns { logits: true, ..TraceColumns::default() };
    let shard = recording.write(&TraceSettings { columns, threads: 2, ..TraceSettings::default() }, 8);
    let rows: Vec<i64> = footer(&shard.data).row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [15_500, 4_500]);
}

#[test]
fn floats_are_split_into_byte_streams_and_ids_go_through_a_dictionary() {
    let recording = Recording::new(&geometry(64, 6, 2).with_shared_gate(), &[50, 60], 1);
    let shard = recording.write(&TraceSettings { columns: all_columns(), ..TraceSettings::default() }, 2);
    let footer = footer(&shard.data);
    for path in [
        "weights_01.list.element",
        "margin_02",
        "gate_entropy_01",
        "logits_01.list.element",
        "shared_gate_02",
        "nll",
    ] {
        let column = column(&footer, path);
        assert!(column.encodings().any(|e| e == Encoding::BYTE_STREAM_SPLIT), "{path}");
        assert!(column.dictionary_page_offset().is_none() && column.statistics().is_none(), "{path}");
    }
    for path in ["dataset", "sample_id", "position", "token_id", "experts_01.list.element"] {
        assert!(column(&footer, path).dictionary_page_offset().is_some(), "{path}");
    }
    for path in ["dataset", "sample_id", "position"] {
        assert!(column(&footer, path).statistics().is_some(), "{path}");
    }
    assert!(column(&footer, "experts_01.list.element").statistics().is_none());
    let zstd = |c: &ColumnChunkMetaData| matches!(c.compression(), Compression::ZSTD(_));
    assert!(footer.row_group(0).columns().iter().all(zstd));
    let created_by = footer.file_metadata().created_by().unwrap().to_owned();
    assert_eq!(created_by, concat!("moetrace version ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_table_carries_our_keys_in_the_schema_and_in_the_footer() {
    let recording = Recording::new(&geometry(64, 6, 3), &[5, 6], 2);
    let settings = TraceSettings {
        columns: all_columns(),
        metadata: BTreeMap::from([("plan_hash".to_owned(), "abc".to_owned())]),
        weights: WeightPrecision::Full,
        threads: 1,
    };
    let shard = recording.write(&settings, 2);
    let samples = write_samples(Vec::new(), "letters", &recording.samples(), &settings).unwrap();
    let words = write_vocabulary(Vec::new(), &[(TokenId(1), "a".to_owned())], &settings).unwrap();
    let hidden = shard.hidden.unwrap();
    for (bytes, table) in
        [(&shard.data, "tokens"), (&hidden, "hidden"), (&samples, "samples"), (&words, "vocabulary")]
    {
        let expected =
            [("moetrace.plan_hash", "abc"), ("moetrace.table", table), ("moetrace.schema_version", "1")];
        let footer = footer(bytes);
        let pairs = footer.file_metadata().key_value_metadata().unwrap();
        let schema = arrow_schema(bytes);
        for (key, value) in expected {
            assert_eq!(schema.metadata()[key], value, "{table}");
            assert!(
                pairs.iter().any(|kv| kv.key == key && kv.value.as_deref() == Some(value)),
                "{table} {key}"
            );
        }
        assert!(schema.metadata()["huggingface"].contains("\"features\""));
    }
    let schema = arrow_schema(&shard.data);
    assert_eq!(schema.metadata()["moetrace.weights"], "f32");
    assert_eq!(schema.metadata()["moetrace.moe_layers"], "1,2,3");
    // Layer 1 is the first with a router.
    let experts = schema.field_with_name("experts_01").unwrap();
    assert_eq!(
        (&*experts.metadata()["moetrace.layer"], &*experts.metadata()["moetrace.moe_ordinal"]),
        ("1", "0")
    );
    let nullable: Vec<_> =
        schema.fields().iter().filter(|f| f.is_nullable()).map(|f| f.name().as_str()).collect();
    assert_eq!(nullable, ["nll"]);
}

#[test]
fn the_loss_is_null_exactly_where_a_sample_begins() {
    let recording = Recording::new(&geometry(8, 2, 1), &[3, 1, 4], 3);
    let columns = TraceColumns { nll: true, ..TraceColumns::default() };
    let shard = recording.write(&TraceSettings { columns, ..TraceSettings::default() }, 1);
    let batch = batch(&shard.data);
    let loss = batch.column_by_name("nll").unwrap();
    let null: Vec<usize> = (0..loss.len()).filter(|&row| loss.is_null(row)).collect();
    assert_eq!(null, [0, 3, 4]);
}

#[test]
fn hidden_rows_come_token_by_token_with_their_layers_ascending() {
    let recording = Recording::new(&geometry(8, 2, 3), &[4, 9, 12], 4);
    let columns = TraceColumns { hidden: true, ..TraceColumns::default() };
    let shard = recording.write(&TraceSettings { columns, ..TraceSettings::default() }, 2);
    let batch = batch(&shard.hidden.unwrap());
    assert_eq!(shard.hidden_rows as usize, recording.hidden_rows.len() * 3);
    let samples = batch.column_by_name("sample_id").unwrap().as_primitive::<UInt32Type>();
    let numbers =
        |name: &str| batch.column_by_name(name).unwrap().as_primitive::<UInt16Type>().values().clone();
    let (positions, layers) = (numbers("position"), numbers("layer"));
    let values = batch.column_by_name("hidden").unwrap().as_fixed_size_list().values().clone();
    let values = values.as_primitive::<Float32Type>().values();
    let d = recording.geometry.hidden();
    for (row, index) in (0..batch.num_rows()).map(|at| (at, at / 3)) {
        let token = recording.hidden_rows[index] as usize;
        let span = recording.spans.iter().find(|span| span.rows().contains(&token)).unwrap();
        let found = (samples.value(row), usize::from(positions[row]), usize::from(layers[row]));
        assert_eq!(found, (span.sample.0, token - span.start, row % 3 + 1));
        let expected = &recording.layers[row % 3].hidden[index * d..(index + 1) * d];
        assert_eq!(&values[row * d..(row + 1) * d], expected);
    }
}

#[test]
fn samples_and_vocabulary_read_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.parquet");
    // More rows than a row group of samples takes.
    let recording = Recording::new(&geometry(4, 1, 1), &vec![1; 9_000], 1);
    for (text, threads) in [(true, 1), (false, 2)] {
        let columns = TraceColumns { text, ..TraceColumns::default() };
        let settings = TraceSettings { columns, threads, ..TraceSettings::default() };
        std::fs::write(&path, write_samples(Vec::new(), "d", &recording.samples(), &settings).unwrap())
            .unwrap();
        let expected: Vec<SampleRow> = recording
            .samples()
            .into_iter()
            .map(|row| SampleRow { text: row.text.filter(|_| text), ..row })
            .collect();
        assert_eq!(read_samples(&path).unwrap(), expected);
        assert_eq!(verify_footer(&path).unwrap(), 9_000);
    }
    let words = vec![(TokenId(3), "drei".to_owned()), (TokenId(1), " \u{0}ß".to_owned())];
    for words in [words, vec![]] {
        std::fs::write(&path, write_vocabulary(Vec::new(), &words, &TraceSettings::default()).unwrap())
            .unwrap();
        assert_eq!(read_vocabulary(&path).unwrap(), words);
    }
}

#[test]
fn the_first_rows_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let recording = Recording::new(&geometry(300, 3, 2), &[3, 4], 9);
    let (data, _) = recording.write_files(&dir, &TraceSettings::default());
    assert_eq!(read_rows(&data, 100).unwrap().len(), 7);
    let rows = read_rows(&data, 4).unwrap();
    assert_eq!(rows.len(), 4);
    let last = &rows[3];
    assert_eq!((last.sample_id, last.position, last.token_id), (4, 0, Some(recording.token_ids[3].0)));
    for (found, layer) in last.layers.iter().zip(&recording.layers) {
        let experts: Vec<u16> = layer.experts[9..12].iter().map(|id| id.0).collect();
        assert_eq!((&found.experts, found.weights.as_deref()), (&experts, Some(&layer.weights[9..12])));
        assert_eq!((found.margin, found.gate_entropy), (Some(layer.margins[3]), Some(layer.gate_entropy[3])));
    }
    assert_eq!(
        read_columns(&data).unwrap()[..5],
        ["dataset", "sample_id", "position", "token_id", "experts_01"]
    );
    let hidden = TraceSettings {
        columns: TraceColumns { token_ids: false, ..TraceColumns::default() },
        ..TraceSettings::default()
    };
    let (data, _) = recording.write_files(&dir, &hidden);
    assert!(read_rows(&data, 9).unwrap().iter().all(|row| row.token_id.is_none()));
}

#[test]
fn a_file_is_only_read_as_the_table_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let recording = Recording::new(&geometry(4, 1, 1), &[3], 1);
    let (data, samples) = recording.write_files(&dir, &TraceSettings::default());
    let is_refused = |error: TraceError, path: &Path| match error {
        TraceError::Metadata { file, key, .. } => assert_eq!((&*file, &*key), (path, "moetrace.table")),
        other => unreachable!("{other}"),
    };
    is_refused(ShardReader::open(&samples, &samples).unwrap_err(), &samples);
    is_refused(ShardReader::open(&data, &data).unwrap_err(), &data);
    is_refused(read_vocabulary(&data).unwrap_err(), &data);
}
