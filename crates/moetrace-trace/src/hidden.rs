//! Rows of the hidden table: a few tokens' router input, layer by layer.
//!
//! A pass delivers all its rows of layer 1, then all of layer 2. The table holds token after token instead,
//! all layers of each, or its order would depend on the passes.

use arrow::datatypes::{Float32Type, UInt16Type, UInt32Type};
use moetrace_routing::{HiddenRows, LayerIndex, TokenBatch};
use parquet::errors::ParquetError;

use crate::array::{column, list_column};
use crate::schema::{MAX_GROUP_BYTES, MAX_GROUP_ROWS};
use crate::table::TableChunk;

/// The most bytes encoded in one go.
const CHUNK_BYTES: usize = 8_000_000;

/// Some rows of the hidden table.
#[derive(Debug, Default)]
pub(crate) struct HiddenRowsTable {
    samples: Vec<u32>,
    positions: Vec<u16>,
    layers: Vec<u16>,
    values: Vec<f32>,
    ends_group: bool,
}

impl HiddenRowsTable {
    pub(crate) fn into_chunk(self, width: usize) -> Result<TableChunk, ParquetError> {
        let columns = vec![
            column::<UInt32Type>(self.samples),
            column::<UInt16Type>(self.positions),
            column::<UInt16Type>(self.layers),
            list_column::<Float32Type>(self.values, width)?,
        ];
        Ok(TableChunk { columns, ends_group: self.ends_group })
    }
}

/// Gathers hidden rows over passes.
#[derive(Debug)]
pub(crate) struct HiddenGatherer {
    width: usize,
    chunk_rows: usize,
    group_rows: usize,
    in_group: usize,
    open: HiddenRowsTable,
    /// This pass: each layer's rows and values, in the order they came.
    pass: Vec<(LayerIndex, Vec<u32>, Vec<f32>)>,
}

impl HiddenGatherer {
    /// For hidden states of `width` values, rows of `row_bytes` bytes.
    pub(crate) fn new(width: usize, row_bytes: usize) -> Self {
        Self {
            width,
            chunk_rows: (CHUNK_BYTES / row_bytes).max(1),
            group_rows: (MAX_GROUP_BYTES / row_bytes).clamp(1, MAX_GROUP_ROWS),
            in_group: 0,
            open: HiddenRowsTable::default(),
            pass: Vec::new(),
        }
    }

    pub(crate) fn add_layer(&mut self, layer: LayerIndex, hidden: HiddenRows<'_>) {
        self.pass.push((layer, hidden.rows.to_vec(), hidden.values.to_vec()));
    }

    /// The pass is over: its rows in file order, as far as they fill chunks.
    pub(crate) fn end_pass(&mut self, batch: &TokenBatch) -> Vec<HiddenRowsTable> {
        let pass = std::mem::take(&mut self.pass);
        let mut places: Vec<(u32, usize, usize)> = pass
            .iter()
            .enumerate()
            .flat_map(|(layer, (_, rows, _))| rows.iter().enumerate().map(move |(at, &row)| (row, layer, at)))
            .collect();
        places.sort_unstable();
        let mut full = Vec::new();
        for (row, layer, at) in places {
            let Some(span) = batch.span_of(row as usize) else { continue };
            if self.open.samples.len() == self.chunk_rows || self.in_group == self.group_rows {
                let ends_group = self.in_group == self.group_rows;
                self.in_group = if ends_group { 0 } else { self.in_group };
                full.push(HiddenRowsTable { ends_group, ..std::mem::take(&mut self.open) });
            }
            let (number, _, values) = &pass[layer];
            self.open.samples.push(span.sample.0);
            self.open.positions.push(batch.positions()[row as usize] as u16);
            self.open.layers.push(number.0);
            self.open.values.extend_from_slice(&values[at * self.width..(at + 1) * self.width]);
            self.in_group += 1;
        }
        full
    }

    /// What no chunk has been filled with yet.
    pub(crate) fn rest(self) -> Option<HiddenRowsTable> {
        (!self.open.samples.is_empty()).then_some(HiddenRowsTable { ends_group: true, ..self.open })
    }
}
