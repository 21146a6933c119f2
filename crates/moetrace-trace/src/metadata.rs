//! The keys that every file carries, both in its Arrow schema and in its Parquet footer.
//!
//! Both, because each reader shows only one of the two: pyarrow the Arrow schema's, `DuckDB` the footer's.

use std::collections::BTreeMap;
use std::path::Path;

use moetrace_routing::{LayerIndex, RoutingGeometry, WeightPrecision};

use crate::{TraceError, TraceSettings};

/// The version that is written, and the highest that is read.
pub const SCHEMA_VERSION: u32 = 1;

/// What every key of ours begins with.
pub(crate) const PREFIX: &str = "moetrace.";

pub(crate) const VERSION: &str = "schema_version";
pub(crate) const TABLE: &str = "table";
pub(crate) const DATASET: &str = "dataset";
const EXPERTS: &str = "experts";
const CHOSEN: &str = "experts_per_token";
const HIDDEN: &str = "hidden_size";
const LAYERS: &str = "moe_layers";
const SHARED_GATE: &str = "shared_gate";
const WEIGHTS: &str = "weights";

/// Keys that a run may not set.
const RESERVED: [&str; 9] = [VERSION, TABLE, DATASET, EXPERTS, CHOSEN, HIDDEN, LAYERS, SHARED_GATE, WEIGHTS];

/// Keys without prefix, sorted: files must not depend on the order of a hash map.
pub(crate) type Metadata = BTreeMap<String, String>;

/// The run's own keys with those every table has.
pub(crate) fn table_metadata(settings: &TraceSettings, table: &str) -> Result<Metadata, TraceError> {
    if let Some(key) = settings.metadata.keys().find(|key| RESERVED.contains(&key.as_str())) {
        return Err(TraceError::MetadataKey { key: key.clone() });
    }
    let mut all = settings.metadata.clone();
    all.insert(VERSION.to_owned(), SCHEMA_VERSION.to_string());
    all.insert(TABLE.to_owned(), table.to_owned());
    Ok(all)
}

/// Adds what a reader needs to know before the first row.
pub(crate) fn add_geometry(
    metadata: &mut Metadata,
    geometry: &RoutingGeometry,
    dataset: &str,
    weights: WeightPrecision,
) {
    let layers: Vec<String> = geometry.layers().iter().map(LayerIndex::to_string).collect();
    let weights = match weights {
        WeightPrecision::Half => "f16",
        WeightPrecision::Full => "f32",
    };
    for (key, value) in [
        (DATASET, dataset.to_owned()),
        (EXPERTS, geometry.experts().to_string()),
        (CHOSEN, geometry.chosen().to_string()),
        (HIDDEN, geometry.hidden().to_string()),
        (LAYERS, layers.join(",")),
        (SHARED_GATE, geometry.has_shared_gate().to_string()),
        (WEIGHTS, weights.to_owned()),
    ] {
        metadata.insert(key.to_owned(), value);
    }
}

/// The geometry back from the metadata of `file`.
pub(crate) fn geometry(metadata: &Metadata, file: &Path) -> Result<RoutingGeometry, TraceError> {
    let number = |key| parse(metadata, file, key, "a number");
    let layers: Option<Vec<LayerIndex>> = metadata
        .get(LAYERS)
        .and_then(|list| list.split(',').map(|n| n.parse().ok().map(LayerIndex)).collect());
    let layers = layers.ok_or_else(|| wrong(metadata, file, LAYERS, "layer numbers with commas between"))?;
    let geometry = RoutingGeometry::new(number(EXPERTS)?, number(CHOSEN)?, number(HIDDEN)?, layers)
        .map_err(|source| TraceError::Routing { file: file.to_owned(), row: 0, source })?;
    let shared_gate: bool = parse(metadata, file, SHARED_GATE, "true or false")?;
    Ok(if shared_gate { geometry.with_shared_gate() } else { geometry })
}

/// One value, parsed.
pub(crate) fn parse<T: std::str::FromStr>(
    metadata: &Metadata,
    file: &Path,
    key: &str,
    expected: &'static str,
) -> Result<T, TraceError> {
    metadata.get(key).and_then(|v| v.parse().ok()).ok_or_else(|| wrong(metadata, file, key, expected))
}

/// The error for a value that is missing or not as expected.
pub(crate) fn wrong(metadata: &Metadata, file: &Path, key: &str, expected: &'static str) -> TraceError {
    let found = metadata.get(key).cloned();
    TraceError::Metadata { file: file.to_owned(), key: format!("{PREFIX}{key}"), found, expected }
}
