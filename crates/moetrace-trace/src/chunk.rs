//! Rows gathered on the engine's thread until there are enough of them to encode.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::{Float32Type, UInt8Type, UInt16Type, UInt32Type};
use moetrace_routing::{ExpertId, LayerIndex, RoutingGeometry, RoutingView, TokenBatch};
use parquet::errors::ParquetError;

use crate::array::{column, constant_text, list_column, nullable_column};
use crate::schema::{MAX_GROUP_BYTES, MAX_GROUP_ROWS, experts_fit_a_byte};
use crate::table::TableChunk;
use crate::{TraceColumns, TraceError};

/// The most rows encoded in one go, and the bytes they may take before encoding. Half a million ids a
/// column keep the threads busy; 8 MB keep what is queued small.
const CHUNK_ROWS: usize = 8_192;
const CHUNK_BYTES: usize = 8_000_000;

/// Where chunks and row groups end. It sees samples only, never passes.
#[derive(Debug)]
pub(crate) struct Cutter {
    group_rows: usize,
    chunk_rows: usize,
    in_group: usize,
    in_chunk: usize,
}

/// What to do before the next rows are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The open chunk takes them.
    None,
    /// They begin a new chunk.
    Chunk,
    /// They begin a new row group.
    Group,
}

impl Cutter {
    /// For rows of `row_bytes` bytes before encoding.
    pub(crate) fn new(row_bytes: usize) -> Self {
        let group_rows = (MAX_GROUP_BYTES / row_bytes).clamp(1, MAX_GROUP_ROWS);
        let chunk_rows = (CHUNK_BYTES / row_bytes).clamp(1, CHUNK_ROWS);
        Self { group_rows, chunk_rows, in_group: 0, in_chunk: 0 }
    }

    /// The pieces of a sample of `len` rows: what comes before each, and its rows in the sample.
    pub(crate) fn sample(&mut self, len: usize) -> Vec<(Cut, Range<usize>)> {
        let mut pieces = Vec::new();
        let mut start = 0;
        if self.in_group > 0 && self.in_group + len > self.group_rows {
            (self.in_group, self.in_chunk) = (0, 0);
            pieces.push((Cut::Group, 0..len.min(self.chunk_rows)));
            start = len.min(self.chunk_rows);
            self.in_chunk = start;
        }
        while start < len {
            let cut = if self.in_chunk == self.chunk_rows { Cut::Chunk } else { Cut::None };
            if cut == Cut::Chunk {
                self.in_chunk = 0;
            }
            let take = (len - start).min(self.chunk_rows - self.in_chunk);
            pieces.push((cut, start..start + take));
            start += take;
            self.in_chunk += take;
        }
        self.in_group += len;
        pieces
    }
}

#[derive(Debug)]
enum ExpertIds {
    Byte(Vec<u8>),
    Short(Vec<u16>),
}

#[derive(Debug)]
struct LayerRows {
    experts: ExpertIds,
    weights: Option<Vec<f32>>,
    margins: Option<Vec<f32>>,
    gate_entropy: Option<Vec<f32>>,
    logits: Option<Vec<f32>>,
    shared_gate: Option<Vec<f32>>,
}

/// Some rows of the tokens table, being filled.
#[derive(Debug)]
pub(crate) struct TokenRows {
    samples: Vec<u32>,
    positions: Vec<u16>,
    token_ids: Option<Vec<u32>>,
    layers: Vec<LayerRows>,
    nll: Option<Vec<f32>>,
    pub(crate) ends_group: bool,
}

impl TokenRows {
    pub(crate) fn new(geometry: &RoutingGeometry, columns: TraceColumns) -> Self {
        let layer = || LayerRows {
            experts: if experts_fit_a_byte(geometry) {
                ExpertIds::Byte(Vec::new())
            } else {
                ExpertIds::Short(Vec::new())
            },
            weights: columns.weights.then(Vec::new),
            margins: columns.margins.then(Vec::new),
            gate_entropy: columns.gate_entropy.then(Vec::new),
            logits: columns.logits.then(Vec::new),
            shared_gate: (columns.shared_gate && geometry.has_shared_gate()).then(Vec::new),
        };
        Self {
            samples: Vec::new(),
            positions: Vec::new(),
            token_ids: columns.token_ids.then(Vec::new),
            layers: geometry.layers().iter().map(|_| layer()).collect(),
            nll: columns.nll.then(Vec::new),
            ends_group: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Adds `rows` of one sample of `batch`; its positions have been checked to fit 16 bits.
    pub(crate) fn add_tokens(&mut self, batch: &TokenBatch, sample: u32, rows: Range<usize>) {
        self.samples.extend(rows.clone().map(|_| sample));
        self.positions.extend(batch.positions()[rows.clone()].iter().map(|&p| p as u16));
        if let Some(ids) = &mut self.token_ids {
            ids.extend(batch.token_ids()[rows].iter().map(|id| id.0));
        }
    }

    /// Adds `rows` of one layer of the pass; `last` when no layer follows.
    pub(crate) fn add_layer(
        &mut self,
        view: &RoutingView<'_>,
        rows: Range<usize>,
        experts: usize,
        last: bool,
    ) -> Result<(), TraceError> {
        let k = view.chosen();
        let layer = &mut self.layers[view.ordinal().index()];
        let pairs = rows.start * k..rows.end * k;
        add_ids(&mut layer.experts, &view.experts()[pairs.clone()]);
        add_plane(&mut layer.weights, view.weights(), pairs, view.layer(), "weights")?;
        add_plane(&mut layer.margins, view.margins(), rows.clone(), view.layer(), "margins")?;
        add_plane(&mut layer.gate_entropy, view.gate_entropy(), rows.clone(), view.layer(), "gate entropy")?;
        let logits = rows.start * experts..rows.end * experts;
        add_plane(&mut layer.logits, view.logits(), logits, view.layer(), "router logits")?;
        add_plane(&mut layer.shared_gate, view.shared_gate(), rows.clone(), view.layer(), "shared gate")?;
        if last {
            add_plane(&mut self.nll, view.nll(), rows, view.layer(), "token loss")?;
        }
        Ok(())
    }

    /// The arrays of these rows, in the order of `token_fields`.
    pub(crate) fn into_chunk(
        self,
        dataset: &str,
        geometry: &RoutingGeometry,
    ) -> Result<TableChunk, ParquetError> {
        let (k, e) = (geometry.chosen(), geometry.experts());
        let mut columns: Vec<ArrayRef> = vec![constant_text(dataset, self.samples.len())?];
        columns.push(column::<UInt32Type>(self.samples));
        columns.push(column::<UInt16Type>(self.positions));
        columns.extend(self.token_ids.map(column::<UInt32Type>));
        for layer in self.layers {
            columns.push(match layer.experts {
                ExpertIds::Byte(ids) => list_column::<UInt8Type>(ids, k)?,
                ExpertIds::Short(ids) => list_column::<UInt16Type>(ids, k)?,
            });
            if let Some(weights) = layer.weights {
                columns.push(list_column::<Float32Type>(weights, k)?);
            }
            columns.extend(layer.margins.map(column::<Float32Type>));
            columns.extend(layer.gate_entropy.map(column::<Float32Type>));
            if let Some(logits) = layer.logits {
                columns.push(list_column::<Float32Type>(logits, e)?);
            }
            columns.extend(layer.shared_gate.map(column::<Float32Type>));
        }
        columns.extend(self.nll.map(|values| nullable_column(&values)));
        Ok(TableChunk { columns, ends_group: self.ends_group })
    }
}

fn add_ids(into: &mut ExpertIds, ids: &[ExpertId]) {
    match into {
        // A checked view holds no id beyond E, and E is at most 256 here.
        ExpertIds::Byte(into) => into.extend(ids.iter().map(|id| id.0 as u8)),
        ExpertIds::Short(into) => into.extend(ids.iter().map(|id| id.0)),
    }
}

fn add_plane(
    into: &mut Option<Vec<f32>>,
    from: Option<&[f32]>,
    rows: Range<usize>,
    layer: LayerIndex,
    plane: &'static str,
) -> Result<(), TraceError> {
    if let Some(into) = into {
        into.extend_from_slice(&from.ok_or(TraceError::PlaneMissing { layer, plane })?[rows]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_tile_each_sample_and_groups_end_with_samples(
            row_bytes in 1_000usize..40_000,
            samples in prop::collection::vec(1usize..9_000, 1..60),
        ) {
            let mut cutter = Cutter::new(row_bytes);
            let (group_rows, chunk_rows) = (cutter.group_rows, cutter.chunk_rows);
            let (mut chunk, mut group) = (0, 0);
            for len in samples {
                let mut next = 0;
                for (index, (cut, rows)) in cutter.sample(len).into_iter().enumerate() {
                    prop_assert_eq!(rows.start, next);
                    prop_assert!(cut != Cut::Group || index == 0, "a row group ends inside a sample");
                    // A chunk ends only when it is full or its row group ends.
                    match cut {
                        Cut::None => {}
                        Cut::Chunk => { prop_assert_eq!(chunk, chunk_rows); chunk = 0; }
                        Cut::Group => {
                            prop_assert!(group + len > group_rows);
                            (chunk, group) = (0, 0);
                        }
                    }
                    chunk += rows.len();
                    prop_assert!(!rows.is_empty() && chunk <= chunk_rows);
                    next = rows.end;
                }
                prop_assert_eq!(next, len);
                group += len;
                prop_assert!(group <= group_rows || group == len, "only a single sample may exceed a group");
            }
        }
    }
}
