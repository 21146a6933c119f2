//! A recorded shard at the pace of whoever reads it: the next samples, as one pass, when they are asked for.

use arrow::array::RecordBatch;
use moetrace_routing::{Planes, RoutingSink};

use crate::file::Batches;
use crate::layer::LayerBuffers;
use crate::lists::LayerLists;
use crate::pass::RecordedPass;
use crate::schema::{DATASET, NLL, TOKEN};
use crate::{SampleRow, ShardReader, TraceColumns, TraceError};

/// Rows decoded at once.
const READ_ROWS: usize = 4_096;

/// A shard that is being read. It holds no more rows than the pass asked for and the 4,096 decoded at once.
///
/// After an error nothing more can be expected of it.
pub struct Playback {
    shard: ShardReader,
    /// What is read besides experts.
    columns: TraceColumns,
    source: Source,
    /// One entry a layer.
    lists: Vec<LayerLists>,
    buffers: LayerBuffers,
    /// Rows of the file behind us.
    row: u64,
    /// Samples behind us.
    taken: usize,
}

impl std::fmt::Debug for Playback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Playback").field("shard", &self.shard).field("row", &self.row).finish_non_exhaustive()
    }
}

impl Playback {
    pub(crate) fn new(shard: ShardReader, wants: Planes) -> Result<Self, TraceError> {
        let recorded = shard.columns();
        let columns = TraceColumns {
            logits: wants.logits && recorded.logits,
            shared_gate: wants.shared_gate && recorded.shared_gate,
            nll: wants.nll && recorded.nll,
            ..recorded
        };
        let wanted = |name: &str| match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            TOKEN => columns.token_ids,
            NLL => columns.nll,
            // The data set's name is in the metadata, and lists are read by themselves.
            DATASET | "experts_" | "weights_" | "logits_" => false,
            "margin_" => columns.margins,
            "gate_entropy_" => columns.gate_entropy,
            "shared_gate_" => columns.shared_gate,
            _ => true,
        };
        let batches = shard.file().batches(READ_ROWS, wanted)?;
        let source = Source { batches, open: None };
        let lists = LayerLists::open(shard.file(), shard.geometry(), columns)?;
        Ok(Self { shard, columns, source, lists, buffers: LayerBuffers::default(), row: 0, taken: 0 })
    }

    /// The shard.
    pub fn reader(&self) -> &ShardReader {
        &self.shard
    }

    /// The samples that have not been asked for yet, in row order.
    pub fn remaining(&self) -> &[SampleRow] {
        &self.shard.samples()[self.taken..]
    }

    /// The next `samples` samples as one pass; fewer if fewer remain.
    ///
    /// # Errors
    /// A [`TraceError`] naming file and row of what is damaged or is not what the samples table says.
    pub fn pass(&mut self, samples: usize) -> Result<RecordedPass<'_>, TraceError> {
        let (first, next) = (self.row, self.taken..self.shard.samples().len().min(self.taken + samples));
        let rows: usize = self.shard.samples()[next.clone()].iter().map(|s| s.tokens as usize).sum();
        let pieces = self.take(rows)?;
        self.taken = next.end;
        let samples = &self.shard.samples()[next];
        let read = (self.lists.as_slice(), &mut self.buffers);
        RecordedPass::new(&self.shard, samples, (first, pieces), self.columns, read)
    }

    /// Leaves out the next `samples` samples; their rows are decoded, but not checked.
    ///
    /// # Errors
    /// A [`TraceError`] naming file and row of what is damaged.
    pub fn skip(&mut self, samples: usize) -> Result<(), TraceError> {
        for _ in 0..samples.min(self.remaining().len()) {
            // One at a time, so that no more rows are held than those of one sample.
            self.take(self.shard.samples()[self.taken].tokens as usize)?;
            self.taken += 1;
        }
        Ok(())
    }

    /// Plays all that remains to `sink`, in passes of at most `tokens_per_pass` tokens.
    pub(crate) fn play(
        &mut self,
        tokens_per_pass: usize,
        sink: &mut dyn RoutingSink,
    ) -> Result<(), TraceError> {
        while !self.remaining().is_empty() {
            let mut tokens = 0;
            let fits = |sample: &&SampleRow| {
                tokens += sample.tokens as usize;
                tokens <= tokens_per_pass
            };
            let samples = self.remaining().iter().take_while(fits).count().max(1);
            let mut pass = self.pass(samples)?;
            if !pass.batch().is_empty() {
                pass.play(sink)?;
            }
        }
        Ok(())
    }

    /// The next `rows` rows, all of them.
    fn take(&mut self, rows: usize) -> Result<Vec<RecordBatch>, TraceError> {
        let pieces = self.source.take(rows)?;
        let found: usize = pieces.iter().map(RecordBatch::num_rows).sum();
        if found != rows {
            return Err(TraceError::RowCount {
                file: self.shard.file().path().to_owned(),
                samples: self.shard.samples_path().to_owned(),
                found: self.row + found as u64,
                expected: self.row + rows as u64,
            });
        }
        for lists in &mut self.lists {
            lists.read(self.shard.file(), self.row, rows)?;
        }
        self.row += rows as u64;
        Ok(pieces)
    }
}

/// Record batches cut where passes need them.
struct Source {
    batches: Batches,
    open: Option<RecordBatch>,
}

impl Source {
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
