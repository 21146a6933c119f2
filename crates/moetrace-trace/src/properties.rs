//! How columns are encoded. Each choice is measured (`docs/trace-format.md`, "Encoding").

use arrow::datatypes::{DataType, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::metadata::{Metadata, PREFIX};
use crate::schema::{DATASET, POSITION, SAMPLE};

/// Properties for `schema`, with `metadata` in the footer.
///
/// Floats: byte streams split, then zstd, no dictionary. All else: dictionary, then zstd. Statistics only
/// where a reader filters. No time stamp anywhere, so the same rows make the same bytes.
pub(crate) fn writer_properties(
    schema: &Schema,
    metadata: &Metadata,
) -> Result<WriterProperties, ParquetError> {
    let pairs = metadata.iter().map(|(k, v)| KeyValue::new(format!("{PREFIX}{k}"), v.clone())).collect();
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("moetrace version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(pairs));
    for field in schema.fields() {
        let (leaf, path) = match field.data_type() {
            DataType::FixedSizeList(item, _) => {
                (item.data_type(), vec![field.name().clone(), "list".to_owned(), item.name().clone()])
            }
            other => (other, vec![field.name().clone()]),
        };
        let path = ColumnPath::new(path);
        if *leaf == DataType::Float32 {
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), Encoding::BYTE_STREAM_SPLIT);
        }
        if [DATASET, SAMPLE, POSITION].contains(&field.name().as_str()) {
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::Page);
        }
    }
    Ok(builder.build())
}
