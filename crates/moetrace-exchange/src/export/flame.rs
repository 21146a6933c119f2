//! FLAME-MoE-Traces: `samples/000.parquet` with `token_id`, and `actives/iter_0000/layer_LL.parquet` with `scores` and
//! `indices`, lists of K in falling order. Row i of each is the same token; texts follow each other without a mark.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float16Type, Int16Type, Int32Type};
use half::f16;
use moetrace_run::{Manifest, RunFolder};

use super::table::{Table, column};
use super::{Text, Writer};
use crate::ExchangeError;
use crate::error::OnPath;

/// Ids have 15 bits.
const MOST_EXPERTS: usize = 1 << 15;

pub(super) struct Flame {
    run: PathBuf,
    chosen: usize,
    tokens: Table,
    layers: Vec<Table>,
}

impl Flame {
    pub(super) fn new(root: &Path, run: &RunFolder, manifest: &Manifest) -> Result<Self, ExchangeError> {
        let geometry = &manifest.geometry;
        if geometry.experts > MOST_EXPERTS {
            let what = format!("{} experts, the layout holds at most {MOST_EXPERTS}", geometry.experts);
            return Err(ExchangeError::file(run.root(), what));
        }
        let (samples, actives) = (root.join("samples"), root.join("actives/iter_0000"));
        for folder in [&samples, &actives] {
            std::fs::create_dir_all(folder).on("cannot create", folder)?;
        }
        let tokens = Table::create(
            &samples.join("000.parquet"),
            vec![Field::new("token_id", DataType::Int32, false)],
        )?;
        let list = |name: &str, item: DataType| {
            Field::new(name, DataType::List(Arc::new(Field::new("element", item, false))), false)
        };
        let mut layers = Vec::new();
        for layer in &geometry.layers {
            let path: &Path = &actives.join(format!("layer_{layer:02}.parquet"));
            let fields = vec![list("scores", DataType::Float16), list("indices", DataType::Int16)];
            layers.push(Table::create(path, fields)?);
        }
        Ok(Self { run: run.root().to_owned(), chosen: geometry.chosen, tokens, layers })
    }
}

impl Writer for Flame {
    fn text(&mut self, text: &Text<'_>) -> Result<(), ExchangeError> {
        let lacks = |what: &str| {
            ExchangeError::file(&self.run, format!("it records no {what}, which the layout asks for"))
        };
        let ids = text.token_ids().ok_or_else(|| lacks("token ids"))?;
        // Bits beyond the sign are no vocabulary's.
        self.tokens.write(vec![column::<Int32Type>(ids.map(|id| id as i32))])?;
        let n = text.batch.len();
        for (table, layer) in self.layers.iter_mut().zip(text.layers) {
            let weights = layer.weights.as_ref().ok_or_else(|| {
                ExchangeError::file(&self.run, "it records no weights, which the layout asks for")
            })?;
            let scores = weights.iter().map(|&weight| f16::from_f32(weight));
            let indices = layer.experts.iter().map(|id| id.0 as i16);
            table.write(vec![
                lists::<Float16Type>(scores, n, self.chosen),
                lists::<Int16Type>(indices, n, self.chosen),
            ])?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ExchangeError> {
        self.tokens.finish()?;
        self.layers.into_iter().try_for_each(Table::finish)
    }
}

/// Lists without a fixed length, as the layout has them.
fn lists<T: ArrowPrimitiveType>(
    values: impl IntoIterator<Item = T::Native>,
    rows: usize,
    width: usize,
) -> ArrayRef {
    let field = Arc::new(Field::new("element", T::DATA_TYPE, false));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, rows));
    Arc::new(ListArray::new(field, offsets, column::<T>(values), None))
}
