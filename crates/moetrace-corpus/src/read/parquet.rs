//! Parquet files, by row group and page.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::classes::ClassNames;
use super::columnar::{self, ROWS, Table};
use super::columns::{self, ChosenColumns};
use super::foreign::{check_columns, guarded};
use super::{RowSink, Wanted};
use crate::CorpusError;

pub(crate) fn read(
    path: &Path,
    wanted: Wanted<'_>,
    sink: &mut RowSink<'_>,
) -> Result<Option<ChosenColumns>, CorpusError> {
    let (builder, rows, names) = opened(path)?;
    let chosen = columns::choose(path, &names, wanted.column)?;
    let classes = ClassNames::of(builder.schema().metadata(), chosen.label.as_deref());
    let table = Table { path, chosen: &chosen, classes };
    let read =
        names.iter().enumerate().filter(|(_, n)| **n == chosen.text || Some(*n) == chosen.label.as_ref());
    let mask = ProjectionMask::roots(builder.parquet_schema(), read.map(|(i, _)| i));
    let mut reader = guarded(path, || builder.with_projection(mask).with_batch_size(ROWS).build())?;
    let mut seen = 0;
    while let Some(batch) = guarded(path, || reader.next().transpose())? {
        if columnar::emit(&table, &batch, seen, sink)?.is_break() {
            return Ok(Some(chosen));
        }
        seen += batch.num_rows() as u64;
    }
    if seen != rows {
        return Err(CorpusError::damaged(path, format_args!("it holds {seen} rows, its footer says {rows}")));
    }
    Ok(Some(chosen))
}

/// Refuses a file that is no Parquet file, or has not the column of texts that is asked for.
pub(crate) fn check_column(path: &Path, asked: Option<&str>) -> Result<(), CorpusError> {
    let (_, _, names) = opened(path)?;
    columns::choose(path, &names, asked).map(drop)
}

/// A file with its checked number of rows and the names of its columns.
fn opened(path: &Path) -> Result<(ParquetRecordBatchReaderBuilder<File>, u64, Vec<String>), CorpusError> {
    let file = File::open(path).map_err(|e| CorpusError::io("open", path, e))?;
    let bytes = file.metadata().map_err(|e| CorpusError::io("open", path, e))?.len();
    refuse_encrypted(path, &file)?;
    let builder = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))?;
    let rows = guarded(path, || check_footer(builder.metadata(), bytes))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    check_columns(path, names.len())?;
    Ok((builder, rows, names))
}

fn refuse_encrypted(path: &Path, mut file: &File) -> Result<(), CorpusError> {
    let mut magic = [0; 4];
    // A file that is shorter is refused for that.
    let is_read = file.seek(SeekFrom::End(-4)).and_then(|_| file.read_exact(&mut magic)).is_ok();
    if is_read && magic == ENCRYPTED {
        return Err(CorpusError::Encrypted { path: path.to_owned() });
    }
    Ok(())
}

/// What the end of a Parquet file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParquetRows {
    /// The file has so many rows.
    Known(u64),
    /// So many bytes of its end are needed to know.
    Needs(u64),
}

/// How many rows a Parquet file of `bytes` bytes has, by the `end` of it, which has 8 bytes at least if the file does.
///
/// # Errors
/// [`CorpusError::Damaged`] naming `path`: it is no Parquet file, or its footer makes claims that cannot be;
/// [`CorpusError::Encrypted`].
pub fn parquet_rows(path: &Path, end: &[u8], bytes: u64) -> Result<ParquetRows, CorpusError> {
    let wrong = |what: &str| CorpusError::damaged(path, what);
    let (before, last) = end.split_last_chunk::<8>().ok_or_else(|| wrong("it is too short"))?;
    let ([a, b, c, d], magic) = (last.first_chunk::<4>().copied().unwrap_or_default(), &last[4..]);
    if magic == ENCRYPTED {
        return Err(CorpusError::Encrypted { path: path.to_owned() });
    }
    if magic != MAGIC {
        return Err(wrong("it does not end as a Parquet file does"));
    }
    let length = u32::from_le_bytes([a, b, c, d]);
    if u64::from(length) + 12 > bytes {
        return Err(wrong("its footer claims to be longer than it"));
    }
    let Some(at) = before.len().checked_sub(length as usize) else {
        return Ok(ParquetRows::Needs(u64::from(length) + 8));
    };
    let footer = guarded(path, || ParquetMetaDataReader::decode_metadata(&before[at..]))?;
    guarded(path, || check_footer(&footer, bytes)).map(ParquetRows::Known)
}

/// What a file ends with whose footer is encrypted.
const ENCRYPTED: &[u8] = b"PARE";

/// What a file that is not encrypted begins and ends with.
const MAGIC: &[u8] = b"PAR1";

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
