//! The samples table: one row per text.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{UInt32Type, UInt64Type};
use moetrace_routing::SampleId;
use parquet::errors::ParquetError;

use crate::array::constant_text;
use crate::column::Part;
use crate::file::TraceFile;
use crate::metadata::{DATASET, table_metadata};
use crate::schema::{MAX_GROUP_BYTES, sample_fields, schema};
use crate::table::{TableChunk, TableWriter};
use crate::{TraceError, TraceSettings};

/// Rows decoded at once.
const READ_ROWS: usize = 4_096;
/// Rows of a row group, fewer where texts are long: an Arrow array of texts holds 2 GB at most.
const GROUP_ROWS: usize = 8_192;

/// One text of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRow {
    /// Row of the text in its source split, files taken in name order.
    pub sample_id: SampleId,
    /// The file it came from, below the source's root.
    pub source_file: String,
    /// Its row in that file, from 0.
    pub source_row: u64,
    /// Its label, where the source has one.
    pub label: Option<String>,
    /// Tokens recorded.
    pub tokens: u32,
    /// Whether it was cut at the length limit.
    pub truncated: bool,
    /// Whether its first token is a beginning-of-sequence token that was put before it.
    pub begins_with_bos: bool,
    /// Hash of the trimmed text, in hexadecimal digits.
    pub text_hash: String,
    /// The text itself; written only if the trace keeps texts.
    pub text: Option<String>,
}

/// Writes the samples of one shard, in plan order.
///
/// # Errors
/// [`TraceError::MetadataKey`] and [`TraceError::Write`].
pub fn write_samples<W: Write + Send>(
    sink: W,
    dataset: &str,
    rows: &[SampleRow],
    settings: &TraceSettings,
) -> Result<W, TraceError> {
    let mut metadata = table_metadata(settings, "samples")?;
    metadata.insert(DATASET.to_owned(), dataset.to_owned());
    let schema = schema(sample_fields(settings.columns), &metadata);
    let write = || -> Result<W, ParquetError> {
        let mut table = TableWriter::new(schema, &metadata, sink, settings.threads)?;
        let mut rest = rows;
        while !rest.is_empty() {
            let (group, later) = rest.split_at(group_len(rest));
            table.write(&TableChunk { columns: columns(dataset, group, settings)?, ends_group: true })?;
            rest = later;
        }
        table.finish()
    };
    write().map_err(|source| TraceError::Write { table: "samples", source })
}

/// How many of `rows` make a row group; at least one.
fn group_len(rows: &[SampleRow]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&SampleRow| {
        bytes += row.text.as_ref().map_or(0, String::len);
        bytes <= MAX_GROUP_BYTES
    };
    rows.iter().take(GROUP_ROWS).take_while(fits).count().max(1)
}

fn columns(
    dataset: &str,
    rows: &[SampleRow],
    settings: &TraceSettings,
) -> Result<Vec<ArrayRef>, ParquetError> {
    let text = |of: fn(&SampleRow) -> Option<&str>| {
        Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef
    };
    let flag = |of: fn(&SampleRow) -> bool| {
        Arc::new(rows.iter().map(|r| Some(of(r))).collect::<BooleanArray>()) as ArrayRef
    };
    let mut columns = vec![
        constant_text(dataset, rows.len())?,
        Arc::new(rows.iter().map(|r| r.sample_id.0).collect::<UInt32Array>()) as ArrayRef,
        text(|r| Some(&r.source_file)),
        Arc::new(rows.iter().map(|r| r.source_row).collect::<UInt64Array>()),
        text(|r| r.label.as_deref()),
        Arc::new(rows.iter().map(|r| r.tokens).collect::<UInt32Array>()),
        flag(|r| r.truncated),
        flag(|r| r.begins_with_bos),
        text(|r| Some(&r.text_hash)),
    ];
    if settings.columns.text {
        columns.push(text(|r| r.text.as_deref()));
    }
    Ok(columns)
}

/// Reads a samples table whole.
///
/// # Errors
/// Those of a file that cannot be read, is damaged or is another table.
pub fn read_samples(path: &Path) -> Result<Vec<SampleRow>, TraceError> {
    let file = TraceFile::open(path, "samples")?;
    let with_text = file.has("text");
    let mut batches = file.batches(READ_ROWS, |_| true)?;
    let mut rows = Vec::new();
    while let Some(batch) = batches.next()? {
        let part = Part { file: path, row: rows.len() as u64, batch: &batch };
        let (ids, tokens) = (part.numbers::<UInt32Type>("sample_id")?, part.numbers::<UInt32Type>("tokens")?);
        let source_rows = part.numbers::<UInt64Type>("source_row")?;
        let (files, labels) = (part.whole_texts("source_file")?, part.texts("label")?);
        let (truncated, bos) = (part.flags("truncated")?, part.flags("begins_with_bos")?);
        let hashes = part.whole_texts("text_hash")?;
        let texts = with_text.then(|| part.texts("text")).transpose()?;
        let optional = |array: &StringArray, i: usize| array.is_valid(i).then(|| array.value(i).to_owned());
        for i in 0..batch.num_rows() {
            rows.push(SampleRow {
                sample_id: SampleId(ids[i]),
                source_file: files.value(i).to_owned(),
                source_row: source_rows[i],
                label: optional(labels, i),
                tokens: tokens[i],
                truncated: truncated.value(i),
                begins_with_bos: bos.value(i),
                text_hash: hashes.value(i).to_owned(),
                text: texts.and_then(|texts| optional(texts, i)),
            });
        }
    }
    Ok(rows)
}
