//! One Parquet file of ours, opened with suspicion: it may have been cut, flipped or written by others.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use crate::TraceError;
use crate::column::Part;
use crate::error::DecoderPanic;
use crate::metadata::{Metadata, PREFIX, SCHEMA_VERSION, TABLE, VERSION, parse, wrong};

/// More rows would not fit the 32-bit numbers of samples and rows.
const MOST_ROWS: u64 = 1 << 32;
/// Eight times what we write: other tools that rewrite a file make groups of up to 2^20 rows.
const MOST_GROUP_ROWS: u64 = 1 << 20;
/// One column of one row group, decoded; far above what `MAX_GROUP_BYTES` lets us write.
const MOST_COLUMN_BYTES: u64 = 1 << 31;

/// A file whose footer has been read.
pub(crate) struct TraceFile {
    path: PathBuf,
    file: Arc<File>,
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
        let footer = read_footer(path, &file)?;
        let bytes =
            file.metadata().map_err(|source| TraceError::Read { file: path.to_owned(), source })?.len();
        guard(path, 0, || Ok(check_claims(path, footer.metadata(), bytes)))??;
        let metadata = our_metadata(&footer);
        let version: u32 = parse(&metadata, path, VERSION, "a number")?;
        if version == 0 || version > SCHEMA_VERSION {
            return Err(TraceError::Version {
                file: path.to_owned(),
                found: version,
                supported: SCHEMA_VERSION,
            });
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(file), footer, metadata })
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

    pub(crate) fn footer(&self) -> &ParquetMetaData {
        self.footer.metadata()
    }

    /// The open file. Its place is shared; whoever reads looks up its own first.
    pub(crate) fn source(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(crate) fn rows(&self) -> u64 {
        // Checked to be in range when the file was opened; negative numbers are above it.
        self.footer.metadata().file_metadata().num_rows() as u64
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.schema().field_with_name(column).is_ok()
    }

    /// Refuses a file whose column is missing or of another type. How a list's items are called, and whether
    /// they might be null, is let pass: tools that rewrite a file change it.
    pub(crate) fn expect(&self, column: &str, data_type: &DataType) -> Result<(), TraceError> {
        let found = self.schema().field_with_name(column).map(|f| f.data_type().clone()).ok();
        let same = match (&found, data_type) {
            (Some(DataType::FixedSizeList(a, n)), DataType::FixedSizeList(b, m)) => {
                n == m && a.data_type() == b.data_type()
            }
            (found, data_type) => found.as_ref() == Some(data_type),
        };
        if same {
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
    pub(crate) fn batches(&self, rows: usize, keep: impl Fn(&str) -> bool) -> Result<Batches, TraceError> {
        let file =
            self.file.try_clone().map_err(|source| TraceError::Read { file: self.path.clone(), source })?;
        let names = self.schema().fields().iter().enumerate();
        let kept: Vec<usize> = names.filter(|(_, field)| keep(field.name())).map(|(i, _)| i).collect();
        let reader = guard(&self.path, 0, || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), kept.iter().copied());
            Ok(builder.with_projection(mask).with_batch_size(rows).build()?)
        })?;
        Ok(Batches { path: self.path.clone(), reader, row: 0 })
    }
}

/// Record batches of one file, in row order.
pub(crate) struct Batches {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    row: u64,
}

impl Batches {
    /// The next rows, or `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, TraceError> {
        let batch = guard(&self.path, self.row, || Ok(self.reader.next().transpose()?))?;
        if let Some(batch) = &batch {
            self.row += batch.num_rows() as u64;
        }
        Ok(batch)
    }
}

/// The rows of a file that were read last.
pub(crate) struct RowsAtHand {
    batches: Batches,
    batch: Option<RecordBatch>,
    /// The row of the file at which they begin.
    first: u64,
}

impl RowsAtHand {
    /// Before the first row.
    pub(crate) fn new(batches: Batches) -> Self {
        Self { batches, batch: None, first: 0 }
    }

    /// Goes on to the next rows: how many they are, 0 behind the last. After an error there are no more.
    pub(crate) fn advance(&mut self) -> Result<usize, TraceError> {
        self.first = self.batches.row;
        self.batch = self.batches.next()?;
        Ok(self.batch.as_ref().map_or(0, RecordBatch::num_rows))
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// `None` before the first call of [`advance`](Self::advance) and behind the last row.
    pub(crate) fn part(&self) -> Option<Part<'_>> {
        let batch = self.batch.as_ref()?;
        Some(Part { file: &self.batches.path, row: self.first, batch })
    }
}

/// Runs a decoder that may panic on damaged bytes; either way the file and the row are named.
pub(crate) fn guard<T>(
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

fn read_footer(path: &Path, file: &File) -> Result<ArrowReaderMetadata, TraceError> {
    guard(path, 0, || Ok(ArrowReaderMetadata::load(file, ArrowReaderOptions::default())?))
}

/// What the footer claims, before anything is allocated on its word. Panics on negative offsets.
fn check_claims(path: &Path, footer: &ParquetMetaData, bytes: u64) -> Result<(), TraceError> {
    let at_most = |what, found: u64, most: u64| {
        if found <= most {
            return Ok(());
        }
        Err(TraceError::Limit { file: path.to_owned(), what, found, most })
    };
    // As `u64` a negative number is above every limit.
    let rows = footer.file_metadata().num_rows() as u64;
    at_most("number of rows", rows, MOST_ROWS)?;
    let mut in_groups = 0;
    for group in footer.row_groups() {
        at_most("number of rows of a row group", group.num_rows() as u64, MOST_GROUP_ROWS)?;
        in_groups += group.num_rows() as u64;
        for column in group.columns() {
            at_most("decoded size of a column", column.uncompressed_size() as u64, MOST_COLUMN_BYTES)?;
            let (start, length) = column.byte_range();
            at_most("end of a column", start.saturating_add(length), bytes)?;
        }
    }
    at_most("number of rows", rows, in_groups)?;
    at_most("number of rows in all row groups", in_groups, rows)
}

/// Keys of ours without their prefix. The Arrow schema's come last and win: tools that rewrite a file keep
/// those rather than the footer's.
fn our_metadata(footer: &ArrowReaderMetadata) -> Metadata {
    let pairs = footer.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let pairs = pairs.filter_map(|pair| Some((&pair.key, pair.value.as_ref()?)));
    let ours = |(key, value): (&String, &String)| Some((key.strip_prefix(PREFIX)?.to_owned(), value.clone()));
    pairs.chain(footer.schema().metadata()).filter_map(ours).collect()
}

/// Rows of a written file of any table by its footer; whoever commits a file compares them with what was
/// written.
///
/// # Errors
/// A [`TraceError`] that names the file: it cannot be read, is damaged, or is no table of ours.
pub fn verify_footer(path: &Path) -> Result<u64, TraceError> {
    TraceFile::open_any(path).map(|file| file.rows())
}

/// The keys that a file of any table carries, without their prefix.
///
/// # Errors
/// Those of [`verify_footer`].
pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>, TraceError> {
    TraceFile::open_any(path).map(|file| file.metadata)
}

/// Names of a file's columns, in file order.
///
/// # Errors
/// [`TraceError::Read`] or [`TraceError::Damaged`].
pub fn read_columns(path: &Path) -> Result<Vec<String>, TraceError> {
    let file = File::open(path).map_err(|source| TraceError::Read { file: path.to_owned(), source })?;
    let footer = read_footer(path, &file)?;
    Ok(footer.schema().fields().iter().map(|field| field.name().clone()).collect())
}
