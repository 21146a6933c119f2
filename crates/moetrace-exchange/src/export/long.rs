//! One row for each token and layer.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field, Float32Type, UInt8Type, UInt16Type, UInt32Type};
use moetrace_run::Manifest;

use super::table::{Table, column, lists};
use super::{Text, Writer, dataset_file};
use crate::ExchangeError;

/// Above it ids take two bytes, as in the trace itself.
const BYTE_EXPERTS: usize = 256;

pub(super) struct Long {
    root: PathBuf,
    experts: usize,
    chosen: usize,
    open: Option<(String, Table)>,
}

impl Long {
    pub(super) fn new(root: PathBuf, manifest: &Manifest) -> Self {
        Self { root, experts: manifest.geometry.experts, chosen: manifest.geometry.chosen, open: None }
    }

    fn fields(&self, text: &Text<'_>) -> Vec<Field> {
        let list = |item: DataType| {
            DataType::FixedSizeList(Arc::new(Field::new("element", item, false)), self.chosen as i32)
        };
        let id = if self.experts <= BYTE_EXPERTS { DataType::UInt8 } else { DataType::UInt16 };
        let first = &text.layers[0];
        let columns = [
            ("dataset", Some(DataType::Utf8)),
            ("sample_id", Some(DataType::UInt32)),
            ("position", Some(DataType::UInt16)),
            ("token_id", text.has_tokens.then_some(DataType::UInt32)),
            ("layer", Some(DataType::UInt16)),
            ("experts", Some(list(id))),
            ("weights", first.weights.as_ref().map(|_| list(DataType::Float32))),
            ("margin", first.margins.as_ref().map(|_| DataType::Float32)),
            ("gate_entropy", first.gate_entropy.as_ref().map(|_| DataType::Float32)),
        ];
        columns.into_iter().filter_map(|(name, kind)| Some(Field::new(name, kind?, false))).collect()
    }
}

impl Writer for Long {
    fn text(&mut self, text: &Text<'_>) -> Result<(), ExchangeError> {
        if self.open.as_ref().is_none_or(|(dataset, _)| dataset != text.dataset) {
            if let Some((_, table)) = self.open.take() {
                table.finish()?;
            }
            let path = dataset_file(&self.root, text.dataset, "parquet");
            self.open = Some((text.dataset.to_owned(), Table::create(&path, self.fields(text))?));
        }
        let (n, l, k) = (text.batch.len(), text.layers.len(), self.chosen);
        let each = |row: usize| (0..l).map(move |layer| (row, layer));
        let slots = || (0..n).flat_map(each);
        let ids = || slots().flat_map(|(row, layer)| &text.layers[layer].experts[row * k..(row + 1) * k]);
        let mut columns = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text.dataset, n * l))) as _,
            column::<UInt32Type>(slots().map(|_| text.sample.sample_id.0)),
            // Positions fit the 16 bits that they came from.
            column::<UInt16Type>(slots().map(|(row, _)| text.batch.positions()[row] as u16)),
        ];
        if text.has_tokens {
            columns.push(column::<UInt32Type>(slots().map(|(row, _)| text.batch.token_ids()[row].0)));
        }
        columns.push(column::<UInt16Type>(slots().map(|(_, layer)| text.layers[layer].number)));
        columns.push(if self.experts <= BYTE_EXPERTS {
            lists::<UInt8Type>(ids().map(|id| id.0 as u8), k)
        } else {
            lists::<UInt16Type>(ids().map(|id| id.0), k)
        });
        let weights: Option<Vec<&[f32]>> = text.layers.iter().map(|layer| layer.weights.as_deref()).collect();
        if let Some(weights) = weights {
            let values = slots().flat_map(|(row, layer)| &weights[layer][row * k..(row + 1) * k]).copied();
            columns.push(lists::<Float32Type>(values, k));
        }
        for plane in [
            text.layers.iter().map(|layer| layer.margins.as_deref()).collect::<Option<Vec<&[f32]>>>(),
            text.layers.iter().map(|layer| layer.gate_entropy.as_deref()).collect(),
        ] {
            columns.extend(
                plane.map(|plane| column::<Float32Type>(slots().map(|(row, layer)| plane[layer][row]))),
            );
        }
        self.open.as_mut().map_or(Ok(()), |(_, table)| table.write(columns))
    }

    fn finish(self: Box<Self>) -> Result<(), ExchangeError> {
        self.open.map_or(Ok(()), |(_, table)| table.finish())
    }
}
