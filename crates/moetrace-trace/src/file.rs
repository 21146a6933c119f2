//! One Parquet file of ours, opened with suspicion: it may have been cut, flipped or written by others.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use crate::TraceError;
use crate::error::DecoderPanic;
use crate::metadata::{Metadata, PREFIX, SCHEMA_VERSION, TABLE, VERSION, parse, wrong};

/// Beyond these no file of ours goes; a footer that claims more is damaged, and is not believed.
const MOST_ROWS: u64 = 1 << 32;
const MOST_COLUMNS: u64 = 100_000;
const MOST_GROUPS: u64 = 1 << 20;

/// A file whose footer has been read.
pub(crate) struct TraceFile {
    path: PathBuf,
    file: File,
    footer: ArrowReaderMetadata,
    metadata: Metadata,
}

impl TraceFile {
    /// Opens `path` as the `table` it must be.
    pub(crate) fn open(path: &Path, table: &'static str) -> Result<Self, TraceError> {
        let file = Self::open_any(path)?;
        if file.metadata.get(TABLE).map(String::as_str) != Some(table) {
            return Err(wrong(&file.metadata, path, TABLE, table));
        }
        Ok(file)
    }

    /// Opens a file of any table, and checks its version and its footer's claims.
    pub(crate) fn open_any(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::Read { file: path.to_owned(), source })?;
        let footer = guard(path, 0, || Ok(ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())?))?;
        let info = footer.metadata();
        for (what, found, most) in [
            ("number of rows", info.file_metadata().num_rows() as u64, MOST_ROWS),
            ("number of columns", footer.schema().fields().len() as u64, MOST_COLUMNS),
            ("number of row groups", info.num_row_groups() as u64, MOST_GROUPS),
        ] {
            if found > most {
                return Err(TraceError::Limit { file: path.to_owned(), what, found, most });
            }
        }
        let pairs = info.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
        let metadata: BTreeMap<String, String> = pairs
            .iter()
            .filter_map(|pair| Some((pair.key.strip_prefix(PREFIX)?.to_owned(), pair.value.clone()?)))
            .collect();
        let version: u32 = parse(&metadata, path, VERSION, "a number")?;
        if version > SCHEMA_VERSION {
            return Err(TraceError::Version {
                file: path.to_owned(),
                found: version,
                supported: SCHEMA_VERSION,
            });
        }
        Ok(Self { path: path.to_owned(), file, footer, metadata })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.footer.schema()
    }

    pub(crate) fn rows(&self) -> u64 {
        // Checked to be in range when the file was opened; negative numbers are above it.
        self.footer.metadata().file_metadata().num_rows() as u64
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.schema().field_with_name(column).is_ok()
    }

    /// Refuses a file whose column is missing or of another type.
    pub(crate) fn expect(&self, column: &str, data_type: &DataType) -> Result<(), TraceError> {
        let found = self.schema().field_with_name(column).map(|f| f.data_type().clone()).ok();
        if found.as_ref() == Some(data_type) {
            return Ok(());
        }
        Err(TraceError::Column {
            file: self.path.clone(),
            column: column.to_owned(),
            found: found.map_or_else(|| "missing".to_owned(), |t| t.to_string()),
            expected: data_type.to_string(),
        })
    }

    /// Reads the columns that `keep` names, `rows` at a time.
    pub(crate) fn batches(
        &self,
        rows: usize,
        keep: impl Fn(&str) -> bool,
    ) -> Result<Batches<'_>, TraceError> {
        let file =
            self.file.try_clone().map_err(|source| TraceError::Read { file: self.path.clone(), source })?;
        let names = self.schema().fields().iter().enumerate();
        let kept: Vec<usize> = names.filter(|(_, field)| keep(field.name())).map(|(i, _)| i).collect();
        let reader = guard(&self.path, 0, || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), kept.iter().copied());
            Ok(builder.with_projection(mask).with_batch_size(rows).build()?)
        })?;
        Ok(Batches { path: &self.path, reader, row: 0 })
    }
}

/// Record batches of one file, in row order.
pub(crate) struct Batches<'a> {
    path: &'a Path,
    reader: ParquetRecordBatchReader,
    row: u64,
}

impl Batches<'_> {
    /// The next rows, or `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, TraceError> {
        let batch = guard(self.path, self.row, || Ok(self.reader.next().transpose()?))?;
        if let Some(batch) = &batch {
            self.row += batch.num_rows() as u64;
        }
        Ok(batch)
    }
}

/// Runs a decoder that may panic on damaged bytes; either way the file and the row are named.
fn guard<T>(
    path: &Path,
    row: u64,
    decode: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>>,
) -> Result<T, TraceError> {
    let damaged = |source| TraceError::Damaged { file: path.to_owned(), row, source };
    // What the closure touches is dropped with the error, so a broken invariant is never seen again.
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(damaged),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let message = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Err(damaged(Box::new(DecoderPanic { message: message.unwrap_or_else(|| "unknown".to_owned()) })))
        }
    }
}

/// Rows of a written file by its footer; whoever commits a file compares them with what was written.
///
/// # Errors
/// [`TraceError::Read`] or [`TraceError::Damaged`].
pub fn verify_footer(path: &Path) -> Result<u64, TraceError> {
    let file = File::open(path).map_err(|source| TraceError::Read { file: path.to_owned(), source })?;
    let footer = guard(path, 0, || Ok(ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())?))?;
    Ok(footer.metadata().file_metadata().num_rows() as u64)
}

/// Names of a file's columns, in file order.
///
/// # Errors
/// [`TraceError::Read`] or [`TraceError::Damaged`].
pub fn read_columns(path: &Path) -> Result<Vec<String>, TraceError> {
    let file = File::open(path).map_err(|source| TraceError::Read { file: path.to_owned(), source })?;
    let footer = guard(path, 0, || Ok(ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())?))?;
    Ok(footer.schema().fields().iter().map(|field| field.name().clone()).collect())
}
