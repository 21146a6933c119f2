//! A flat table of numbers computed from a trace, for whoever reads Parquet rather than JSON.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field};
use parquet::errors::ParquetError;

use crate::metadata::table_metadata;
use crate::schema::schema;
use crate::table::{TableChunk, TableWriter};
use crate::{TraceError, TraceSettings};

/// One column, `[rows]`; all of a table have as many rows.
#[derive(Debug, Clone, PartialEq)]
pub enum NumberColumn {
    /// Names.
    Texts(Vec<String>),
    /// Counts and ids.
    Integers(Vec<u64>),
    /// Numbers; none where there is none to give.
    Reals(Vec<Option<f64>>),
}

impl NumberColumn {
    fn array(&self) -> ArrayRef {
        match self {
            Self::Texts(values) => Arc::new(StringArray::from_iter_values(values)),
            Self::Integers(values) => Arc::new(UInt64Array::from_iter_values(values.iter().copied())),
            Self::Reals(values) => Arc::new(values.iter().copied().collect::<Float64Array>()),
        }
    }

    fn field(&self, name: &str) -> Field {
        match self {
            Self::Texts(_) => Field::new(name, DataType::Utf8, false),
            Self::Integers(_) => Field::new(name, DataType::UInt64, false),
            Self::Reals(_) => Field::new(name, DataType::Float64, true),
        }
    }
}

/// Writes a table of named columns.
///
/// # Errors
/// [`TraceError::MetadataKey`] and [`TraceError::Write`]; columns of unequal length are one.
pub fn write_numbers<W: Write + Send>(
    sink: W,
    columns: &[(&str, NumberColumn)],
    settings: &TraceSettings,
) -> Result<W, TraceError> {
    let metadata = table_metadata(settings, "metrics")?;
    let schema = schema(columns.iter().map(|(name, column)| column.field(name)).collect(), &metadata);
    let write = || -> Result<W, ParquetError> {
        let mut table = TableWriter::new(schema, &metadata, sink, settings.threads)?;
        let columns: Vec<ArrayRef> = columns.iter().map(|(_, column)| column.array()).collect();
        let rows = columns.first().map_or(0, |column| column.len());
        if columns.iter().any(|column| column.len() != rows) {
            return Err(ParquetError::General("columns of unequal length".to_owned()));
        }
        if rows > 0 {
            table.write(&TableChunk { columns, ends_group: true })?;
        }
        table.finish()
    };
    write().map_err(|source| TraceError::Write { table: "metrics", source })
}
