//! A listener that writes what it hears to Parquet.

use std::io::Write;
use std::ops::Range;

use moetrace_routing::{
    Name, Planes, RoutingGeometry, RoutingSink, RoutingView, SampleId, SinkError, TokenBatch,
};

use crate::chunk::{Cut, Cutter, TokenRows};
use crate::encoder::{Encoder, PassRows, ShardTables};
use crate::hidden::HiddenGatherer;
use crate::metadata::{add_geometry, table_metadata};
use crate::schema::{self, MAX_POSITION, MAX_SAMPLE_TOKENS, hidden_fields, row_bytes, token_fields};
use crate::table::TableWriter;
use crate::{TraceColumns, TraceError, TraceSettings};

/// The files of a shard with their footers written: to be synced, hashed and committed by the caller.
#[derive(Debug)]
pub struct WrittenShard<W> {
    /// Where the tokens table went.
    pub data: W,
    /// Its rows.
    pub rows: u64,
    /// Where the hidden table went, if there is one.
    pub hidden: Option<W>,
    /// Its rows.
    pub hidden_rows: u64,
}

/// Writes one shard: the tokens table, and the hidden table if asked for.
///
/// Rows are copied in [`record`](RoutingSink::record) and encoded on a thread of its own; at most three
/// passes are held. What is written depends on the rows alone: not on how they come in passes, not on the
/// number of threads. Dropped without [`finish`](Self::finish), it leaves no thread and files without a
/// footer.
pub struct ShardWriter<W> {
    geometry: RoutingGeometry,
    columns: TraceColumns,
    dataset: Name,
    cutter: Cutter,
    /// The last one takes the next rows; those before it are complete.
    chunks: Vec<TokenRows>,
    /// Of the current pass: which rows go into which of `chunks`.
    pieces: Vec<(Range<usize>, usize)>,
    hidden: Option<HiddenGatherer>,
    batch: TokenBatch,
    /// Rows of the current pass, and those of each sample in it where losses are recorded.
    rows: usize,
    spans: Vec<(SampleId, Range<usize>)>,
    /// Calls of the current pass so far: 0 outside a pass, 1 after `begin`, one more for each layer.
    calls: usize,
    encoder: Encoder<W>,
}

impl<W> std::fmt::Debug for ShardWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardWriter").field("dataset", &self.dataset).finish_non_exhaustive()
    }
}

impl<W: Write + Send + 'static> ShardWriter<W> {
    /// Begins a shard of `dataset` in `data`; `hidden` is given exactly when `settings` record hidden states.
    ///
    /// # Errors
    /// [`TraceError::MetadataKey`], [`TraceError::HiddenFile`], and what the first write to either file says.
    pub fn new(
        geometry: &RoutingGeometry,
        settings: &TraceSettings,
        dataset: &Name,
        data: W,
        hidden: Option<W>,
    ) -> Result<Self, TraceError> {
        let columns = settings.columns;
        if columns.hidden != hidden.is_some() {
            return Err(TraceError::HiddenFile { recorded: columns.hidden, given: hidden.is_some() });
        }
        let table = |name: &'static str, fields, sink| {
            let mut metadata = table_metadata(settings, name)?;
            add_geometry(&mut metadata, geometry, dataset, settings.weights);
            let schema = schema::schema(fields, &metadata);
            let bytes = row_bytes(&schema);
            TableWriter::new(schema, &metadata, sink, settings.threads)
                .map(|table| (table, bytes))
                .map_err(|source| TraceError::Write { table: name, source })
        };
        let (tokens, token_bytes) = table("tokens", token_fields(geometry, columns), data)?;
        let hidden = hidden.map(|sink| table("hidden", hidden_fields(geometry), sink)).transpose()?;
        let gatherer = hidden.as_ref().map(|(_, bytes)| HiddenGatherer::new(geometry.hidden(), *bytes));
        let encoder = Encoder::start(ShardTables {
            tokens,
            hidden: hidden.map(|(table, _)| table),
            dataset: dataset.clone(),
            geometry: geometry.clone(),
        })?;
        Ok(Self {
            chunks: vec![TokenRows::new(geometry, columns)],
            geometry: geometry.clone(),
            columns,
            dataset: dataset.clone(),
            cutter: Cutter::new(token_bytes),
            pieces: Vec::new(),
            hidden: gatherer,
            batch: TokenBatch::default(),
            rows: 0,
            spans: Vec::new(),
            calls: 0,
            encoder,
        })
    }

    /// Encodes what is left, writes the footers and gives the files back, flushed but not synced.
    ///
    /// # Errors
    /// [`TraceError::PassOrder`] in the middle of a pass, and whatever went wrong on the encoder's thread.
    pub fn finish(mut self) -> Result<WrittenShard<W>, TraceError> {
        self.expect_call(0)?;
        let mut tokens = self.chunks;
        tokens.retain(|chunk| chunk.len() > 0);
        if let Some(last) = tokens.last_mut() {
            last.ends_group = true;
        }
        let hidden = self.hidden.and_then(HiddenGatherer::rest).into_iter().collect();
        self.encoder.send(PassRows { tokens, hidden })?;
        self.encoder.finish()
    }
}

impl<W> ShardWriter<W> {
    fn expect_call(&self, expected: usize) -> Result<(), TraceError> {
        if self.calls == expected {
            return Ok(());
        }
        Err(TraceError::PassOrder { found: expected, expected: self.calls })
    }

    fn begin_pass(&mut self, batch: &TokenBatch) -> Result<(), TraceError> {
        self.encoder.check()?;
        self.expect_call(0)?;
        check_batch(batch, &self.dataset)?;
        self.pieces.clear();
        for span in batch.spans() {
            for (cut, rows) in self.cutter.sample(span.len) {
                if cut != Cut::None {
                    if let Some(open) = self.chunks.last_mut() {
                        open.ends_group = cut == Cut::Group;
                    }
                    self.chunks.push(TokenRows::new(&self.geometry, self.columns));
                }
                let rows = span.start + rows.start..span.start + rows.end;
                let at = self.chunks.len() - 1;
                self.chunks[at].add_tokens(batch, span.sample.0, rows.clone());
                // Neighbours in the same chunk are copied as one.
                match self.pieces.last_mut() {
                    Some((before, chunk)) if *chunk == at => before.end = rows.end,
                    _ => self.pieces.push((rows, at)),
                }
            }
        }
        if self.hidden.is_some() {
            self.batch = batch.clone();
        }
        self.spans.clear();
        if self.columns.nll {
            self.spans.extend(batch.spans().iter().map(|span| (span.sample, span.rows())));
        }
        self.rows = batch.len();
        self.calls = 1;
        Ok(())
    }

    fn record_layer(&mut self, view: &RoutingView<'_>) -> Result<(), TraceError> {
        self.encoder.check()?;
        self.expect_call(view.ordinal().index() + 1)?;
        self.check_view(view)?;
        let last = self.calls == self.geometry.layers().len();
        if let Some(nll) = view.nll().filter(|_| last && self.columns.nll) {
            self.check_losses(nll)?;
        }
        for (rows, chunk) in &self.pieces {
            self.chunks[*chunk].add_layer(view, rows.clone(), self.geometry.experts(), last)?;
        }
        if let Some(gatherer) = &mut self.hidden {
            let missing = TraceError::PlaneMissing { layer: view.layer(), plane: "hidden states" };
            gatherer.add_layer(view.layer(), view.hidden().ok_or(missing)?);
        }
        self.calls += 1;
        Ok(())
    }

    /// A view checked against another geometry would be cut wrongly, or its ids in 16 bits wrapped to 8.
    fn check_view(&self, view: &RoutingView<'_>) -> Result<(), TraceError> {
        let layer = view.layer();
        let own = self.geometry.layer(view.ordinal()).unwrap_or_default();
        let highest = view.experts().iter().map(|id| id.index()).max().unwrap_or(0);
        let most = self.geometry.experts() - 1;
        let width = |values: Option<usize>, rows: usize| values.map_or(0, |n| n / rows.max(1));
        let logits = width(view.logits().map(<[f32]>::len), view.rows());
        let hidden = view.hidden().map(|h| (h.values.len(), h.rows.len()));
        let hidden = hidden.map_or(0, |(values, rows)| width(Some(values), rows));
        for (what, found, expected) in [
            ("layer number", layer.index(), own.index()),
            ("number of rows", view.rows(), self.rows),
            ("number of chosen experts", view.chosen(), self.geometry.chosen()),
            ("highest expert", highest, most.min(highest)),
            ("number of logits of a row", logits, if logits == 0 { 0 } else { self.geometry.experts() }),
            ("hidden width", hidden, if hidden == 0 { 0 } else { self.geometry.hidden() }),
        ] {
            if found != expected {
                return Err(TraceError::View { layer, what, found, expected });
            }
        }
        Ok(())
    }

    /// No loss is written as an empty cell but that of a token which nothing comes before.
    fn check_losses(&self, nll: &[f32]) -> Result<(), TraceError> {
        for (sample, rows) in &self.spans {
            if let Some(at) = nll[rows.clone()].iter().skip(1).position(|loss| loss.is_nan()) {
                return Err(TraceError::Loss { sample: *sample, row: at + 1 });
            }
        }
        Ok(())
    }

    fn end_pass(&mut self) -> Result<(), TraceError> {
        self.encoder.check()?;
        self.expect_call(self.geometry.layers().len() + 1)?;
        self.calls = 0;
        let hidden = self.hidden.as_mut().map_or_else(Vec::new, |g| g.end_pass(&self.batch));
        let complete = self.chunks.len() - 1;
        let tokens: Vec<TokenRows> = self.chunks.drain(..complete).collect();
        if tokens.is_empty() && hidden.is_empty() {
            return Ok(());
        }
        self.encoder.send(PassRows { tokens, hidden })
    }
}

impl<W> RoutingSink for ShardWriter<W> {
    fn wants(&self) -> Planes {
        Planes {
            logits: self.columns.logits,
            shared_gate: self.columns.shared_gate && self.geometry.has_shared_gate(),
            hidden: self.columns.hidden,
            nll: self.columns.nll,
        }
    }
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.begin_pass(batch).map_err(SinkError::new)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.record_layer(view).map_err(SinkError::new)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.end_pass().map_err(SinkError::new)
    }
}

/// Everything that 16 bits or a shard of one data set cannot hold, before any of it is copied.
fn check_batch(batch: &TokenBatch, dataset: &Name) -> Result<(), TraceError> {
    for span in batch.spans() {
        let sample = span.sample;
        if span.dataset != *dataset {
            return Err(TraceError::Dataset {
                sample,
                found: span.dataset.clone(),
                expected: dataset.clone(),
            });
        }
        if span.len > MAX_SAMPLE_TOKENS {
            return Err(TraceError::SampleLength { sample, found: span.len, most: MAX_SAMPLE_TOKENS });
        }
        if let Some(&found) = batch.positions()[span.rows()].iter().find(|&&p| p > MAX_POSITION) {
            return Err(TraceError::Position { sample, found, most: MAX_POSITION });
        }
    }
    Ok(())
}
