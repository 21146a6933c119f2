//! Columns of the four tables, in file order. `docs/trace-format.md` says the same to readers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use moetrace_routing::{LayerIndex, RoutingGeometry};
use serde_json::{Map, Value, json};

use crate::TraceColumns;
use crate::metadata::{Metadata, PREFIX};

/// The most rows of a row group; row groups end where samples end.
pub const MAX_GROUP_ROWS: usize = 131_072;
/// The most uncompressed bytes of a row group, but for a single sample that is larger: 64 MB.
pub const MAX_GROUP_BYTES: usize = 64_000_000;
/// The largest position: the column has 16 bits.
pub const MAX_POSITION: u32 = u16::MAX as u32;
/// The most tokens of one sample.
pub const MAX_SAMPLE_TOKENS: usize = u16::MAX as usize;

pub(crate) const DATASET: &str = "dataset";
pub(crate) const SAMPLE: &str = "sample_id";
pub(crate) const POSITION: &str = "position";
pub(crate) const TOKEN: &str = "token_id";
pub(crate) const NLL: &str = "nll";
pub(crate) const LAYER: &str = "layer";
pub(crate) const HIDDEN: &str = "hidden";
/// Experts above this number need 16 bits.
const BYTE_EXPERTS: usize = 256;

/// Names of one layer's columns: the model's own layer number, two digits at least.
pub(crate) struct LayerColumns {
    pub(crate) experts: String,
    pub(crate) weights: String,
    pub(crate) margin: String,
    pub(crate) gate_entropy: String,
    pub(crate) logits: String,
    pub(crate) shared_gate: String,
}

impl LayerColumns {
    pub(crate) fn of(layer: LayerIndex) -> Self {
        let name = |stem: &str| format!("{stem}_{:02}", layer.0);
        Self {
            experts: name("experts"),
            weights: name("weights"),
            margin: name("margin"),
            gate_entropy: name("gate_entropy"),
            logits: name("logits"),
            shared_gate: name("shared_gate"),
        }
    }
}

/// Whether expert ids of this geometry take one byte.
pub(crate) fn experts_fit_a_byte(geometry: &RoutingGeometry) -> bool {
    geometry.experts() <= BYTE_EXPERTS
}

/// The tokens table: one row per token.
pub(crate) fn token_fields(geometry: &RoutingGeometry, columns: TraceColumns) -> Vec<Field> {
    let mut fields = vec![dataset(), Field::new(SAMPLE, DataType::UInt32, false)];
    fields.push(Field::new(POSITION, DataType::UInt16, false));
    if columns.token_ids {
        fields.push(Field::new(TOKEN, DataType::UInt32, false));
    }
    let id = if experts_fit_a_byte(geometry) { DataType::UInt8 } else { DataType::UInt16 };
    let (k, e) = (geometry.chosen(), geometry.experts());
    for (ordinal, &layer) in geometry.layers().iter().enumerate() {
        let name = LayerColumns::of(layer);
        let mut layer_fields = vec![Field::new(name.experts, list(id.clone(), k), false)];
        if columns.weights {
            layer_fields.push(Field::new(name.weights, list(DataType::Float32, k), false));
        }
        if columns.margins {
            layer_fields.push(Field::new(name.margin, DataType::Float32, false));
        }
        if columns.gate_entropy {
            let field = Field::new(name.gate_entropy, DataType::Float32, false);
            layer_fields.push(with(field, &[("unit", "bit")]));
        }
        if columns.logits {
            layer_fields.push(Field::new(name.logits, list(DataType::Float32, e), false));
        }
        if columns.shared_gate && geometry.has_shared_gate() {
            layer_fields.push(Field::new(name.shared_gate, DataType::Float32, false));
        }
        let (layer, ordinal) = (layer.to_string(), ordinal.to_string());
        let place = [("layer", layer.as_str()), ("moe_ordinal", ordinal.as_str())];
        fields.extend(layer_fields.into_iter().map(|field| with(field, &place)));
    }
    if columns.nll {
        fields.push(with(Field::new(NLL, DataType::Float32, true), &[("unit", "nat")]));
    }
    fields
}

/// The hidden table: one row per chosen token and MoE layer.
pub(crate) fn hidden_fields(geometry: &RoutingGeometry) -> Vec<Field> {
    vec![
        Field::new(SAMPLE, DataType::UInt32, false),
        Field::new(POSITION, DataType::UInt16, false),
        Field::new(LAYER, DataType::UInt16, false),
        Field::new(HIDDEN, list(DataType::Float32, geometry.hidden()), false),
    ]
}

/// The samples table: one row per text.
pub(crate) fn sample_fields(columns: TraceColumns) -> Vec<Field> {
    let mut fields = vec![
        dataset(),
        Field::new(SAMPLE, DataType::UInt32, false),
        Field::new("source_file", DataType::Utf8, false),
        Field::new("source_row", DataType::UInt64, false),
        Field::new("label", DataType::Utf8, true),
        Field::new("tokens", DataType::UInt32, false),
        Field::new("truncated", DataType::Boolean, false),
        Field::new("begins_with_bos", DataType::Boolean, false),
        Field::new("text_hash", DataType::Utf8, false),
    ];
    if columns.text {
        fields.push(Field::new("text", DataType::Utf8, true));
    }
    fields
}

/// The vocabulary table: one row per token id seen.
pub(crate) fn vocabulary_fields() -> Vec<Field> {
    vec![Field::new(TOKEN, DataType::UInt32, false), Field::new("token", DataType::Utf8, false)]
}

/// A schema that carries `metadata`, and the features that the `datasets` library reads from it.
pub(crate) fn schema(fields: Vec<Field>, metadata: &Metadata) -> SchemaRef {
    let features: Map<String, Value> =
        fields.iter().map(|field| (field.name().clone(), feature(field.data_type()))).collect();
    let mut all: HashMap<String, String> =
        metadata.iter().map(|(key, value)| (format!("{PREFIX}{key}"), value.clone())).collect();
    all.insert("huggingface".to_owned(), json!({ "info": { "features": features } }).to_string());
    Arc::new(Schema::new_with_metadata(Fields::from(fields), all))
}

/// Uncompressed bytes of one row, text not counted.
pub(crate) fn row_bytes(schema: &Schema) -> usize {
    fn of(data_type: &DataType) -> usize {
        match data_type {
            DataType::FixedSizeList(item, n) => of(item.data_type()) * *n as usize,
            DataType::Dictionary(key, _) => of(key),
            other => other.primitive_width().unwrap_or(1),
        }
    }
    schema.fields().iter().map(|field| of(field.data_type())).sum()
}

fn dataset() -> Field {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Field::new(DATASET, dictionary, false)
}

/// `element` is the name the Parquet specification gives to a list's items.
pub(crate) fn list_item(item: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", item, false))
}

fn list(item: DataType, width: usize) -> DataType {
    // At most 65,536 experts, so a width always fits; a hidden size beyond 2^31 is no model's.
    DataType::FixedSizeList(list_item(item), i32::try_from(width).unwrap_or(i32::MAX))
}

fn with(field: Field, entries: &[(&str, &str)]) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.extend(entries.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())));
    field.with_metadata(metadata)
}

/// `Sequence`, not the newer `List`: `datasets` before 4 knows no other, later ones still accept it.
fn feature(data_type: &DataType) -> Value {
    match data_type {
        DataType::FixedSizeList(item, length) => {
            json!({ "feature": feature(item.data_type()), "length": length, "_type": "Sequence" })
        }
        other => json!({ "dtype": feature_dtype(other), "_type": "Value" }),
    }
}

fn feature_dtype(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        DataType::Boolean => "bool",
        // Text, plain or behind a dictionary: `datasets` has no dictionary type.
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_by_absolute_layer_with_two_digits_at_least() {
        for (layer, name) in [(1, "experts_01"), (27, "experts_27"), (100, "experts_100")] {
            assert_eq!(LayerColumns::of(LayerIndex(layer)).experts, name);
        }
    }

    #[test]
    fn a_row_at_deepseek_geometry_takes_1037_bytes_before_encoding() {
        let layers = (1..28).map(LayerIndex).collect();
        let geometry = RoutingGeometry::new(64, 6, 2048, layers).unwrap();
        let schema = schema(token_fields(&geometry, TraceColumns::default()), &Metadata::new());
        // data set 4, sample 4, position 2, token 4; in each of 27 layers 6 ids, 6 floats and 2 floats.
        assert_eq!(row_bytes(&schema), 14 + 27 * (6 + 24 + 8));
    }

    #[test]
    fn expert_ids_take_two_bytes_above_256_experts() {
        for (experts, item) in [(256, DataType::UInt8), (257, DataType::UInt16)] {
            let geometry = RoutingGeometry::new(experts, 2, 8, vec![LayerIndex(0)]).unwrap();
            let fields = token_fields(&geometry, TraceColumns::default());
            let ids = fields.iter().find(|f| f.name() == "experts_00").unwrap();
            assert!(matches!(ids.data_type(), DataType::FixedSizeList(f, 2) if *f.data_type() == item));
        }
    }
}
