//! Parquet files, by row group and page.

use std::fs::File;
use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;

use super::columnar::{self, ROWS};
use super::columns::{self, ChosenColumns};
use super::foreign::{check_columns, guarded};
use super::{RowSink, Wanted};
use crate::CorpusError;

pub(crate) fn read(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let file = File::open(path).map_err(|e| CorpusError::io("open", path, e))?;
    let bytes = file.metadata().map_err(|e| CorpusError::io("open", path, e))?.len();
    let builder = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))?;
    let rows = guarded(path, || check_footer(builder.metadata(), bytes))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    check_columns(path, names.len())?;
    let chosen = columns::choose(path, &names, wanted.column)?;
    let read =
        names.iter().enumerate().filter(|(_, n)| **n == chosen.text || Some(*n) == chosen.label.as_ref());
    let mask = ProjectionMask::roots(builder.parquet_schema(), read.map(|(i, _)| i));
    let mut reader = guarded(path, || builder.with_projection(mask).with_batch_size(ROWS).build())?;
    let mut seen = 0;
    while let Some(batch) = guarded(path, || reader.next().transpose())? {
        if columnar::emit(path, &batch, &chosen, seen, sink)?.is_break() {
            return Ok(Some(chosen));
        }
        seen += batch.num_rows() as u64;
    }
    if seen != rows {
        return Err(CorpusError::damaged(path, format_args!("it holds {seen} rows, its footer says {rows}")));
    }
    Ok(Some(chosen))
}

/// The number of rows, if the footer's claims fit the file.
fn check_footer(footer: &ParquetMetaData, bytes: u64) -> Result<u64, String> {
    let rows =
        u64::try_from(footer.file_metadata().num_rows()).ok().filter(|&rows| u32::try_from(rows).is_ok());
    let rows = rows.ok_or_else(|| format!("its footer claims {} rows", footer.file_metadata().num_rows()))?;
    let mut in_groups = 0u64;
    for group in footer.row_groups() {
        in_groups = in_groups.saturating_add(u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
        for column in group.columns() {
            let (start, length) = column.byte_range();
            if start.checked_add(length).is_none_or(|end| end > bytes) {
                return Err(format!("column data {start} + {length} lies outside its {bytes} bytes"));
            }
        }
    }
    if in_groups != rows {
        return Err(format!("its footer says {rows} rows, its row groups {in_groups}"));
    }
    Ok(rows)
}
