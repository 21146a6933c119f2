//! One column of a Parquet file of others, read with suspicion.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::ExchangeError;
use crate::error::open_file;

/// Rows decoded at once.
const READ_ROWS: usize = 8_192;

/// A column from its first row to its last.
pub(super) struct Column {
    path: PathBuf,
    name: &'static str,
    reader: ParquetRecordBatchReader,
    /// Decoded, and not yet taken.
    open: Option<ArrayRef>,
    /// Rows taken.
    row: u64,
    rows: u64,
}

impl Column {
    pub(super) fn open(path: &Path, name: &'static str) -> Result<Self, ExchangeError> {
        let file = open_file(path)?;
        let (reader, rows) = guard(path, 0, || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let index = builder.schema().index_of(name)?;
            let rows = builder.metadata().file_metadata().num_rows();
            let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
            Ok((builder.with_projection(mask).with_batch_size(READ_ROWS).build()?, rows))
        })?;
        let rows = u64::try_from(rows)
            .map_err(|_| ExchangeError::file(path, format!("its footer says that it has {rows} rows")))?;
        Ok(Self { path: path.to_owned(), name, reader, open: None, row: 0, rows })
    }

    /// Rows, as the footer has them.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Length of the lists, by the type or by the first row.
    pub(super) fn width(&mut self) -> Result<usize, ExchangeError> {
        let Some(open) = self.fill()? else { return Err(ExchangeError::file(&self.path, "it has no row")) };
        let width = match open.data_type() {
            DataType::FixedSizeList(_, width) => usize::try_from(*width).unwrap_or(0),
            DataType::List(_) => open.as_list::<i32>().value_length(0) as usize,
            DataType::LargeList(_) => open.as_list::<i64>().value_length(0) as usize,
            other => {
                let what = format!("column `{}` is {other}, expected lists", self.name);
                return Err(ExchangeError::file(&self.path, what));
            }
        };
        Ok(width)
    }

    /// The next `n` values, fewer at the end.
    pub(super) fn integers(&mut self, n: usize) -> Result<Vec<i64>, ExchangeError> {
        self.values::<Int64Type>(n, None, DataType::is_integer)
    }

    /// The next `n` lists of `width` whole numbers, `[n, width]`, fewer at the end.
    pub(super) fn integer_lists(&mut self, n: usize, width: usize) -> Result<Vec<i64>, ExchangeError> {
        self.values::<Int64Type>(n, Some(width), DataType::is_integer)
    }

    /// The next `n` lists of `width` numbers, `[n, width]`, fewer at the end.
    pub(super) fn float_lists(&mut self, n: usize, width: usize) -> Result<Vec<f32>, ExchangeError> {
        self.values::<Float32Type>(n, Some(width), DataType::is_floating)
    }

    fn values<T: ArrowPrimitiveType>(
        &mut self,
        n: usize,
        width: Option<usize>,
        is_of_kind: fn(&DataType) -> bool,
    ) -> Result<Vec<T::Native>, ExchangeError> {
        let mut values = Vec::with_capacity(n * width.unwrap_or(1));
        let mut missing = n;
        while missing > 0 {
            let Some(open) = self.fill()? else { break };
            let take = missing.min(open.len());
            let piece = open.slice(0, take);
            self.open = (take < open.len()).then(|| open.slice(take, open.len() - take));
            let leaf = match width {
                Some(width) => self.items(&piece, width)?,
                None => piece,
            };
            if !is_of_kind(leaf.data_type()) {
                let what =
                    format!("column `{}` holds {}, which was not expected", self.name, leaf.data_type());
                return Err(ExchangeError::file(&self.path, what));
            }
            if leaf.null_count() > 0 {
                let what = format!("column `{}` has an empty cell at or after this row", self.name);
                return Err(ExchangeError::row(&self.path, self.row, what));
            }
            let typed = guard(&self.path, self.row, || Ok(cast(&leaf, &T::DATA_TYPE)?))?;
            // A number that does not fit becomes empty.
            if typed.null_count() > 0 {
                let what =
                    format!("column `{}` has a number that is too large at or after this row", self.name);
                return Err(ExchangeError::row(&self.path, self.row, what));
            }
            values.extend_from_slice(typed.as_primitive::<T>().values());
            self.row += take as u64;
            missing -= take;
        }
        Ok(values)
    }

    /// What has been decoded and not taken; decodes more if that is nothing.
    fn fill(&mut self) -> Result<Option<ArrayRef>, ExchangeError> {
        while self.open.as_ref().is_none_or(Array::is_empty) {
            let Some(batch) = guard(&self.path, self.row, || Ok(self.reader.next().transpose()?))? else {
                return Ok(None);
            };
            self.open = Some(batch.column(0).clone());
        }
        Ok(self.open.clone())
    }

    /// The items of lists that must all have `width` of them.
    fn items(&self, lists: &ArrayRef, width: usize) -> Result<ArrayRef, ExchangeError> {
        let wrong = |row: usize, found: usize| {
            let what = format!("column `{}` has a list of {found}, expected {width}", self.name);
            ExchangeError::row(&self.path, self.row + row as u64, what)
        };
        if let Some(row) = (0..lists.len()).find(|&row| lists.is_null(row)) {
            return Err(wrong(row, 0));
        }
        match lists.data_type() {
            DataType::FixedSizeList(_, found) if *found as usize == width => {
                let typed = lists.as_fixed_size_list();
                Ok(typed.values().slice(typed.value_offset(0) as usize, lists.len() * width))
            }
            DataType::FixedSizeList(_, found) => Err(wrong(0, *found as usize)),
            DataType::List(_) => {
                let typed = lists.as_list::<i32>();
                let lengths = typed.offsets().lengths();
                match lengths.enumerate().find(|(_, length)| *length != width) {
                    Some((row, found)) => Err(wrong(row, found)),
                    None => Ok(typed.values().slice(typed.value_offsets()[0] as usize, lists.len() * width)),
                }
            }
            other => {
                let what = format!("column `{}` is {other}, expected lists", self.name);
                Err(ExchangeError::file(&self.path, what))
            }
        }
    }
}

/// Runs a decoder that may panic on damaged bytes; either way the file and the row are named.
fn guard<T>(
    path: &Path,
    row: u64,
    decode: impl FnOnce() -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T, ExchangeError> {
    // What the closure touches is dropped with the error, so a broken invariant is never seen again.
    let what = match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the decoder gave up".to_owned(),
    };
    Err(ExchangeError::row(path, row, format!("damaged at or after this row: {what}")))
}
