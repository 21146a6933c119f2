//! One pass of a recorded shard: its rows are read, its layers are handed out one at a time.

use std::path::Path;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Float32Type, UInt16Type, UInt32Type};
use moetrace_routing::{
    MoeOrdinal, Name, RoutingError, RoutingSink, RoutingView, SampleId, Span, TokenBatch, TokenId,
};

use crate::column::Part;
use crate::layer::LayerBuffers;
use crate::lists::LayerLists;
use crate::schema::{NLL, POSITION, SAMPLE, TOKEN};
use crate::{SampleRow, ShardReader, TraceColumns, TraceError};

/// Whole samples of a recorded shard, as one pass: to be played to a listener, or looked at layer by layer.
pub struct RecordedPass<'a> {
    rows: Rows<'a>,
    columns: TraceColumns,
    /// One entry a layer.
    lists: &'a [LayerLists],
    buffers: &'a mut LayerBuffers,
    batch: TokenBatch,
    /// Losses in nats, `[N]`.
    nll: Option<Vec<f32>>,
}

impl std::fmt::Debug for RecordedPass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordedPass").field("row", &self.rows.first).finish_non_exhaustive()
    }
}

impl<'a> RecordedPass<'a> {
    /// The pass of `samples`, whose rows are `pieces` and begin at row `first` of the file.
    pub(crate) fn new(
        shard: &'a ShardReader,
        samples: &[SampleRow],
        (first, pieces): (u64, Vec<RecordBatch>),
        columns: TraceColumns,
        (lists, buffers): (&'a [LayerLists], &'a mut LayerBuffers),
    ) -> Result<Self, TraceError> {
        let rows = Rows { shard, first, pieces };
        let batch = rows.batch(samples)?;
        let nll = if columns.nll { Some(rows.nll()?) } else { None };
        Ok(Self { rows, columns, lists, buffers, batch, nll })
    }

    /// The tokens of the pass; ids are 0 where the file leaves them out.
    pub fn batch(&self) -> &TokenBatch {
        &self.batch
    }

    /// What one MoE layer's router decided, checked as a live view is.
    ///
    /// # Errors
    /// A [`TraceError`] naming file and row of what is damaged, or that there is no such layer.
    pub fn layer(&mut self, ordinal: MoeOrdinal) -> Result<RoutingView<'_>, TraceError> {
        let geometry = self.rows.shard.geometry();
        self.buffers.clear();
        if let Some(layer) = geometry.layer(ordinal) {
            for part in self.rows.parts() {
                self.buffers.add_numbers(&part, layer, self.columns)?;
            }
        }
        let is_last = ordinal.index() + 1 == geometry.layers().len();
        let nll = self.nll.as_deref().filter(|_| is_last);
        let mut planes = self.buffers.planes(self.columns, nll);
        if let Some(lists) = self.lists.get(ordinal.index()) {
            planes.experts = &lists.experts;
            planes.weights = lists.weights.as_ref().map(|weights| weights.values.as_slice());
            planes.logits = lists.logits.as_ref().map(|logits| logits.values.as_slice());
        }
        RoutingView::new(geometry, ordinal, self.batch.len(), planes)
            .map_err(|source| self.rows.invalid(source))
    }

    /// Plays the pass to a listener: its tokens, every layer, its end.
    pub(crate) fn play(&mut self, sink: &mut dyn RoutingSink) -> Result<(), TraceError> {
        sink.begin(&self.batch)?;
        for ordinal in self.rows.shard.geometry().ordinals() {
            sink.record(&self.layer(ordinal)?)?;
        }
        Ok(sink.end()?)
    }
}

/// The rows of a pass in the pieces they were decoded in.
struct Rows<'a> {
    shard: &'a ShardReader,
    /// Row of the file that the pass begins at.
    first: u64,
    pieces: Vec<RecordBatch>,
}

impl Rows<'_> {
    fn file(&self) -> &Path {
        self.shard.file().path()
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let mut row = self.first;
        self.pieces.iter().map(move |batch| {
            let part = Part { file: self.file(), row, batch };
            row += batch.num_rows() as u64;
            part
        })
    }

    /// The tokens, if they are those of `samples`.
    fn batch(&self, samples: &[SampleRow]) -> Result<TokenBatch, TraceError> {
        let (mut ids, mut positions, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for part in self.parts() {
            owners.extend_from_slice(part.numbers::<UInt32Type>(SAMPLE)?);
            positions.extend(part.numbers::<UInt16Type>(POSITION)?.iter().map(|&p| u32::from(p)));
            if self.shard.columns().token_ids {
                ids.extend(part.numbers::<UInt32Type>(TOKEN)?.iter().map(|&id| TokenId(id)));
            }
        }
        ids.resize(owners.len(), TokenId::default());
        let mut spans = Vec::with_capacity(samples.len());
        let mut start = 0;
        for sample in samples.iter().filter(|sample| sample.tokens > 0) {
            let len = sample.tokens as usize;
            if let Some(at) = owners[start..start + len].iter().position(|&id| id != sample.sample_id.0) {
                return Err(TraceError::SampleOrder {
                    file: self.file().to_owned(),
                    samples: self.shard.samples_path().to_owned(),
                    row: self.first + (start + at) as u64,
                    found: SampleId(owners[start + at]),
                    expected: sample.sample_id,
                });
            }
            spans.push(Span {
                sample: sample.sample_id,
                dataset: self.shard.dataset().clone(),
                label: sample.label.as_deref().map(Name::from),
                start,
                len,
                begins_with_bos: sample.begins_with_bos,
            });
            start += len;
        }
        TokenBatch::new(ids, positions, spans).map_err(|source| self.invalid(source))
    }

    fn nll(&self) -> Result<Vec<f32>, TraceError> {
        let mut all = Vec::new();
        for part in self.parts() {
            let column = part.nullable::<Float32Type>(NLL)?;
            all.extend(
                (0..column.len()).map(|i| if column.is_valid(i) { column.value(i) } else { f32::NAN }),
            );
        }
        Ok(all)
    }

    fn invalid(&self, source: RoutingError) -> TraceError {
        let row = match &source {
            RoutingError::ExpertRange { row, .. }
            | RoutingError::ExpertTwice { row, .. }
            | RoutingError::WeightOrder { row, .. }
            | RoutingError::NotFinite { row, .. } => *row,
            _ => 0,
        };
        TraceError::Routing { file: self.file().to_owned(), row: self.first + row as u64, source }
    }
}
