//! The vocabulary table: what each token id seen stands for.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use moetrace_routing::TokenId;
use parquet::errors::ParquetError;

use crate::column::Part;
use crate::file::TraceFile;
use crate::metadata::table_metadata;
use crate::schema::{TOKEN, schema, vocabulary_fields};
use crate::table::{TableChunk, TableWriter};
use crate::{TraceError, TraceSettings};

/// Writes token ids and their texts, in the order given.
///
/// # Errors
/// [`TraceError::MetadataKey`] and [`TraceError::Write`].
pub fn write_vocabulary<W: Write + Send>(
    sink: W,
    tokens: &[(TokenId, String)],
    settings: &TraceSettings,
) -> Result<W, TraceError> {
    let metadata = table_metadata(settings, "vocabulary")?;
    let schema = schema(vocabulary_fields(), &metadata);
    let write = || -> Result<W, ParquetError> {
        let mut table = TableWriter::new(schema, &metadata, sink, settings.threads)?;
        if !tokens.is_empty() {
            let ids = Arc::new(tokens.iter().map(|(id, _)| id.0).collect::<UInt32Array>()) as ArrayRef;
            let texts = Arc::new(tokens.iter().map(|(_, text)| Some(text)).collect::<StringArray>());
            table.write(&TableChunk { columns: vec![ids, texts], ends_group: true })?;
        }
        table.finish()
    };
    write().map_err(|source| TraceError::Write { table: "vocabulary", source })
}

/// Reads a vocabulary table whole.
///
/// # Errors
/// Those of a file that cannot be read, is damaged or is another table.
pub fn read_vocabulary(path: &Path) -> Result<Vec<(TokenId, String)>, TraceError> {
    let file = TraceFile::open(path, "vocabulary")?;
    let mut batches = file.batches(8_192, |_| true)?;
    let mut tokens = Vec::new();
    while let Some(batch) = batches.next()? {
        let part = Part { file: path, row: tokens.len() as u64, batch: &batch };
        let (ids, texts) = (part.numbers::<UInt32Type>(TOKEN)?, part.whole_texts("token")?);
        tokens.extend(ids.iter().enumerate().map(|(i, &id)| (TokenId(id), texts.value(i).to_owned())));
    }
    Ok(tokens)
}
