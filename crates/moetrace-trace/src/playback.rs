//! Passes out of record batches: whole samples, checked against the samples table row by row.

use std::path::Path;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Float32Type, UInt16Type, UInt32Type};
use moetrace_routing::{
    Name, Planes, RoutingError, RoutingGeometry, RoutingSink, RoutingView, SampleId, Span, TokenBatch,
    TokenId,
};

use crate::column::Part;
use crate::file::{Batches, TraceFile};
use crate::layer::LayerBuffers;
use crate::schema::{DATASET, NLL, POSITION, SAMPLE, TOKEN};
use crate::{SampleRow, TraceError};

/// Rows decoded at once.
const READ_ROWS: usize = 4_096;

/// One playing of a shard.
pub(crate) struct Playback<'a> {
    pub(crate) file: &'a TraceFile,
    pub(crate) samples_path: &'a Path,
    pub(crate) geometry: &'a RoutingGeometry,
    pub(crate) dataset: &'a Name,
    pub(crate) token_ids: bool,
    /// Optional planes to deliver.
    pub(crate) planes: Planes,
    /// First row of the pass in the file.
    pub(crate) row: u64,
}

impl Playback<'_> {
    pub(crate) fn play(
        &mut self,
        samples: &[SampleRow],
        tokens_per_pass: usize,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), TraceError> {
        let planes = self.planes;
        let unwanted = |name: &str| {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            name == DATASET
                || (stem == "logits_" && !planes.logits)
                || (stem == "shared_gate_" && !planes.shared_gate)
                || (name == NLL && !planes.nll)
        };
        let mut source =
            Source { batches: self.file.batches(READ_ROWS, |name| !unwanted(name))?, open: None };
        let mut buffers = LayerBuffers::default();
        let mut rest = samples;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |sample: &&SampleRow| {
                tokens += sample.tokens as usize;
                tokens <= tokens_per_pass
            };
            let taken = rest.iter().take_while(fits).count().max(1);
            let (pass, later) = rest.split_at(taken);
            rest = later;
            self.pass(pass, &mut source, &mut buffers, sink)?;
        }
        Ok(())
    }

    fn pass(
        &mut self,
        samples: &[SampleRow],
        source: &mut Source<'_>,
        buffers: &mut LayerBuffers,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), TraceError> {
        let n = samples.iter().map(|s| s.tokens as usize).sum();
        if n == 0 {
            return Ok(());
        }
        let taken = source.take(n)?;
        let found: usize = taken.iter().map(RecordBatch::num_rows).sum();
        if found != n {
            return Err(TraceError::RowCount {
                file: self.file.path().to_owned(),
                samples: self.samples_path.to_owned(),
                found: self.row + found as u64,
                expected: self.row + n as u64,
            });
        }
        let mut row = self.row;
        let parts: Vec<Part<'_>> = taken
            .iter()
            .map(|batch| {
                let part = Part { file: self.file.path(), row, batch };
                row += batch.num_rows() as u64;
                part
            })
            .collect();
        let batch = self.batch(samples, &parts)?;
        let nll = self.nll(&parts)?;
        sink.begin(&batch)?;
        let last = self.geometry.layers().len().saturating_sub(1);
        for ordinal in self.geometry.ordinals() {
            buffers.clear();
            for part in &parts {
                buffers.add(part, self.geometry.layers()[ordinal.index()], self.geometry, self.planes)?;
            }
            let nll = nll.as_deref().filter(|_| ordinal.index() == last);
            let view = RoutingView::new(self.geometry, ordinal, n, buffers.planes(self.planes, nll))
                .map_err(|source| self.invalid(source))?;
            sink.record(&view)?;
        }
        sink.end()?;
        self.row = row;
        Ok(())
    }

    fn batch(&self, samples: &[SampleRow], parts: &[Part<'_>]) -> Result<TokenBatch, TraceError> {
        let (mut ids, mut positions, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            owners.extend_from_slice(part.numbers::<UInt32Type>(SAMPLE)?);
            positions.extend(part.numbers::<UInt16Type>(POSITION)?.iter().map(|&p| u32::from(p)));
            if self.token_ids {
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
                    file: self.file.path().to_owned(),
                    samples: self.samples_path.to_owned(),
                    row: self.row + (start + at) as u64,
                    found: SampleId(owners[start + at]),
                    expected: sample.sample_id,
                });
            }
            spans.push(Span {
                sample: sample.sample_id,
                dataset: self.dataset.clone(),
                label: sample.label.as_deref().map(Name::from),
                start,
                len,
                begins_with_bos: sample.begins_with_bos,
            });
            start += len;
        }
        TokenBatch::new(ids, positions, spans).map_err(|source| self.invalid(source))
    }

    fn nll(&self, parts: &[Part<'_>]) -> Result<Option<Vec<f32>>, TraceError> {
        if !self.planes.nll {
            return Ok(None);
        }
        let mut all = Vec::new();
        for part in parts {
            let column = part.nullable::<Float32Type>(NLL)?;
            all.extend(
                (0..column.len()).map(|i| if column.is_valid(i) { column.value(i) } else { f32::NAN }),
            );
        }
        Ok(Some(all))
    }

    fn invalid(&self, source: RoutingError) -> TraceError {
        let row = match &source {
            RoutingError::ExpertRange { row, .. }
            | RoutingError::ExpertTwice { row, .. }
            | RoutingError::WeightOrder { row, .. }
            | RoutingError::NotFinite { row, .. } => *row,
            _ => 0,
        };
        TraceError::Routing { file: self.file.path().to_owned(), row: self.row + row as u64, source }
    }
}

/// Record batches cut where passes need them.
struct Source<'a> {
    batches: Batches<'a>,
    open: Option<RecordBatch>,
}

impl Source<'_> {
    /// The next `n` rows in one or more pieces; fewer if the file ends.
    fn take(&mut self, n: usize) -> Result<Vec<RecordBatch>, TraceError> {
        let (mut pieces, mut missing) = (Vec::new(), n);
        while missing > 0 {
            let batch = match self.open.take() {
                Some(batch) => batch,
                None => match self.batches.next()? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let take = missing.min(batch.num_rows());
            if take < batch.num_rows() {
                self.open = Some(batch.slice(take, batch.num_rows() - take));
            }
            missing -= take;
            pieces.push(batch.slice(0, take));
        }
        Ok(pieces)
    }
}
