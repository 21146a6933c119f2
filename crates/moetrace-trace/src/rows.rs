//! The first rows of a shard, for people to look at.

use std::path::Path;

use arrow::datatypes::{UInt16Type, UInt32Type};
use serde::Serialize;

use crate::column::Part;
use crate::file::TraceFile;
use crate::layer::LayerBuffers;
use crate::metadata::geometry;
use crate::reader::recorded_columns;
use crate::schema::{POSITION, SAMPLE, TOKEN};
use crate::{TraceColumns, TraceError};

/// One token with the routing of every layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenRow {
    /// Row of its text in the source split.
    pub sample_id: u32,
    /// Its position in the text.
    pub position: u16,
    /// Its vocabulary id, unless the trace leaves ids out.
    pub token_id: Option<u32>,
    /// Each MoE layer, ascending.
    pub layers: Vec<LayerRouting>,
}

/// What one layer's router decided for one token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerRouting {
    /// Absolute number of the layer.
    pub layer: u16,
    /// Chosen experts in rank order, `[K]`.
    pub experts: Vec<u16>,
    /// Their weights as applied, `[K]`, if recorded.
    pub weights: Option<Vec<f32>>,
    /// Score of rank k minus score of rank k + 1, if recorded.
    pub margin: Option<f32>,
    /// Entropy of the full softmax in bits, if recorded.
    pub gate_entropy: Option<f32>,
}

/// The first `count` rows of a tokens table.
///
/// # Errors
/// Those of a file that cannot be read, is damaged or is another table.
pub fn read_rows(path: &Path, count: usize) -> Result<Vec<TokenRow>, TraceError> {
    let file = TraceFile::open(path, "tokens")?;
    let geometry = geometry(file.metadata(), path)?;
    let recorded = recorded_columns(&file, &geometry);
    let columns = TraceColumns { logits: false, shared_gate: false, ..recorded };
    let mut rows = Vec::new();
    let mut batches = file.batches(count.clamp(1, 8_192), |_| true)?;
    while rows.len() < count {
        let Some(batch) = batches.next()? else { break };
        let part = Part { file: path, row: rows.len() as u64, batch: &batch };
        let (samples, positions) =
            (part.numbers::<UInt32Type>(SAMPLE)?, part.numbers::<UInt16Type>(POSITION)?);
        let ids = file.has(TOKEN).then(|| part.numbers::<UInt32Type>(TOKEN)).transpose()?;
        let mut layers = Vec::new();
        for &layer in geometry.layers() {
            let mut buffers = LayerBuffers::default();
            buffers.add(&part, layer, &geometry, columns)?;
            layers.push((layer, buffers));
        }
        let k = geometry.chosen();
        let routing = |i: usize| {
            let of = |(layer, b): &(moetrace_routing::LayerIndex, LayerBuffers)| LayerRouting {
                layer: layer.0,
                experts: b.experts[i * k..(i + 1) * k].iter().map(|e| e.0).collect(),
                weights: b.weights.get(i * k..(i + 1) * k).map(<[f32]>::to_vec),
                margin: b.margins.get(i).copied(),
                gate_entropy: b.gate_entropy.get(i).copied(),
            };
            layers.iter().map(of).collect()
        };
        rows.extend((0..batch.num_rows()).take(count - rows.len()).map(|i| TokenRow {
            sample_id: samples[i],
            position: positions[i],
            token_id: ids.map(|ids| ids[i]),
            layers: routing(i),
        }));
    }
    Ok(rows)
}
