//! A Parquet file of an export.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::ExchangeError;
use crate::error::OnPath;

/// Bytes of rows that wait to be encoded; then a row group ends.
const GROUP_BYTES: usize = 64_000_000;

pub(super) struct Table {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<File>,
}

impl Table {
    pub(super) fn create(path: &Path, fields: Vec<Field>) -> Result<Self, ExchangeError> {
        let schema = Arc::new(Schema::new(fields));
        let file = File::create_new(path).on("cannot create", path)?;
        let make = || -> Result<_, ParquetError> {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                .set_created_by(concat!("moetrace version ", env!("CARGO_PKG_VERSION")).to_owned())
                .build();
            ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
        };
        let writer = make().map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_owned(), schema, writer })
    }

    pub(super) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<(), ExchangeError> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(ParquetError::from);
        let written = batch.and_then(|batch| self.writer.write(&batch));
        let written = written.and_then(|()| {
            if self.writer.in_progress_size() > GROUP_BYTES { self.writer.flush() } else { Ok(()) }
        });
        written.map_err(|error| failed(&self.path, &error))
    }

    pub(super) fn finish(self) -> Result<(), ExchangeError> {
        let file = self.writer.into_inner().map_err(|error| failed(&self.path, &error))?;
        file.sync_all().on("cannot write", &self.path)
    }
}

fn failed(path: &Path, error: &ParquetError) -> ExchangeError {
    // A full disk is known as one where the error is the system's.
    let kind = match error {
        ParquetError::External(inner) => inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
        _ => None,
    };
    let source = kind.map_or_else(|| std::io::Error::other(error.to_string()), std::io::Error::from);
    ExchangeError::Io { action: "cannot write", path: path.to_owned(), source }
}

/// Numbers.
pub(super) fn column<T: ArrowPrimitiveType>(values: impl IntoIterator<Item = T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

/// Lists of `width` numbers.
pub(super) fn lists<T: ArrowPrimitiveType>(
    values: impl IntoIterator<Item = T::Native>,
    width: usize,
) -> ArrayRef {
    let field = Arc::new(Field::new("element", T::DATA_TYPE, false));
    // K is at most 65,536.
    Arc::new(FixedSizeListArray::new(field, width as i32, column::<T>(values), None))
}
